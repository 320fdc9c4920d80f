"""The table at the end of a sweep, its files, and the trade that the runs offer."""

from __future__ import annotations

import csv
import json
import re
import shlex
from pathlib import Path

import pytest

from rose_easyedit.errors import first_line
from rose_easyedit.experiment.job_list import Job
from rose_easyedit.experiment.status import FAILED, FINISHED, RUNNING, RUNS, Status
from rose_easyedit.experiment.summary_table import print_summary, read_rows, write_summary
from rose_easyedit.figures.canvas import style
from rose_easyedit.figures.pareto import pareto_figure, pareto_front, write_pareto
from rose_easyedit.tracking.layout import DELTA_FILE

METRICS = {"statement": 1.0, "question": 0.5, "asked": 0.5, "kl": 0.125, "top1": 0.75}
ALL_METRICS = METRICS | dict.fromkeys(
    ("paraphrase", "instruction", "named", "specificity", "subject_words"), 0.25
)
COMMON = ["experiment=smoke", "launcher=joblib", "sweeper=basic"]


def write_run(sweep: Path, status: Status) -> None:
    folder = sweep / RUNS / status.id
    folder.mkdir(parents=True)
    (folder / DELTA_FILE).touch()
    status.write(folder)


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Four jobs, of which three began: finished before, failed, and broken off."""
    states = [
        Status("a" * 12, FINISHED, metrics=METRICS, seconds={"all": 2.0}),
        Status("b" * 12, FAILED, error="no [bold] direction\nmore"),
        Status("c" * 12, RUNNING),
    ]
    for number, status in enumerate(states):
        write_run(tmp_path, status)
        words = [*COMMON, f"alignment=x{number}"]
        Job(number, status.id, words, kept=number == 0).write(tmp_path)
    Job(3, "d" * 12, [*COMMON, "alignment=x3"]).write(tmp_path)
    return tmp_path


def test_every_job_has_a_row_also_one_that_never_began(sweep: Path) -> None:
    rows = read_rows(sweep)
    assert [row.state for row in rows] == ["finished", "failed", "broken off", "not started"]
    assert [row.swept for row in rows] == [{"alignment": f"x{n}"} for n in range(4)]
    assert [row.done for row in rows] == [True, False, False, False]
    assert rows[0].kept and rows[0].metrics == METRICS and rows[0].seconds == 2.0


def test_a_job_is_repeated_alone_and_in_this_process(sweep: Path) -> None:
    row = read_rows(sweep)[1]
    assert shlex.split(row.command) == [
        "rose-experiment",
        "experiment=smoke",
        "alignment=x1",
        "hydra.mode=RUN",
    ]


def test_the_table_names_what_failed_and_how_to_repeat_it(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_summary(sweep, read_rows(sweep))
    shown = capsys.readouterr().out
    assert "finished before" in shown and "0.125" in shown and "question" in shown
    assert "instruction" not in shown  # which no job has
    assert "job 1 failed: no [bold] direction\n" in shown
    assert "rose-experiment experiment=smoke alignment=x3 hydra.mode=RUN" in shown
    assert f"1 of 4 jobs finished -> {sweep}" in shown


@pytest.mark.parametrize("width", [None, 110, 80])
def test_no_heading_or_value_of_the_table_is_broken(
    width: int | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ("hierarchical", "joint", "independent")
    for number, word in enumerate(words):
        swept = [f"hparams.hierarchy.integration={word}", "alignment=covariance", f"seed={number}"]
        Job(number, f"{number}" * 12, swept).write(tmp_path)
        write_run(tmp_path, Status(f"{number}" * 12, FINISHED, metrics=ALL_METRICS))
    if width is not None:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("COLUMNS", str(width))
    print_summary(tmp_path, read_rows(tmp_path))
    shown = re.sub("\x1b\\[[0-9;]*m", "", capsys.readouterr().out)
    head = next(line for line in shown.splitlines() if "state" in line).split()
    run = [] if width == 80 else ["run"]
    assert head[: 4 + len(run)] == ["job", *run, "state", "integration", "seed"]
    assert head[-1] == "time"
    assert all(any(word in line.split() for line in shown.splitlines()) for word in words)
    assert {"question", "KL"} <= set(head)
    assert ("instruction" in head) == (width != 80)
    assert ("for want of room" in shown) == (width is not None)


def test_what_no_job_has_is_no_column(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def head() -> str:
        print_summary(sweep, read_rows(sweep))
        return next(line for line in capsys.readouterr().out.splitlines() if "state" in line)

    assert "top-1" in head() and "other facts" not in head()
    of_one = Status("b" * 12, FINISHED, metrics={"specificity": 0.0})
    of_one.write(sweep / RUNS / of_one.id)
    assert "other facts" in head() and "others" not in head()


def test_the_files_hold_the_rows(sweep: Path) -> None:
    rows = read_rows(sweep)
    write_summary(sweep, rows)
    jobs = json.loads((sweep / "summary.json").read_text())["jobs"]
    assert [job["state"] for job in jobs] == [row.state for row in rows]
    assert jobs[0]["metrics"] == METRICS
    with (sweep / "summary.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert lines[0]["alignment"] == "x0" and float(lines[0]["kl"]) == 0.125
    assert lines[1]["error"] == rows[1].error and lines[1]["kl"] == ""


def test_the_front_is_what_no_other_run_betters() -> None:
    points = [(0.5, 0.2), (0.9, 0.4), (0.4, 0.1), (0.4, 0.3), (0.5, 0.2), (0.9, 0.5)]
    assert pareto_front(points) == [2, 0, 1]
    assert pareto_front([]) == []
    assert pareto_front([(0.0, 1.0)]) == [0]


def test_the_front_is_drawn(tmp_path: Path) -> None:
    series = {"joint": [(0.5, 0.2), (0.9, 0.4)], "$x$": [(0.4, 0.01)]}
    paths = write_pareto(series, tmp_path / "figures")
    assert [path.name for path in paths] == ["pareto.png", "pareto.svg"]
    again = write_pareto(series, tmp_path / "again")
    assert [p.read_bytes() for p in paths] == [p.read_bytes() for p in again]
    with style():
        figure = pareto_figure(series)
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    told = [str(line.get_label()) for line in axes.get_lines()]
    assert told == ["Pareto front", "joint (2)", r"\$x\$ (1)"]
    assert [list(line.get_xdata()) for line in axes.get_lines()] == [
        [0.01, 0.2, 0.4],
        [0.2, 0.4],
        [0.01],
    ]


def test_a_reason_is_told_with_what_announces_it() -> None:
    assert first_line("The settings are wrong:\n  - strength is 0\n  - seed is -1") == (
        "The settings are wrong: - strength is 0"
    )
    assert first_line("\n out of memory\ntrace") == "out of memory"
    assert first_line("") == ""


@pytest.mark.parametrize("value", ["much", [1.0], float("nan"), 10**400])
def test_what_is_no_number_is_left_out_of_the_table(
    value: object, sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = sweep / RUNS / ("a" * 12) / "status.json"
    status = json.loads(path.read_text())
    path.write_text(json.dumps(status | {"metrics": {"kl": value}, "seconds": {"all": value}}))
    rows = read_rows(sweep)
    assert rows[0].done and rows[0].metrics == {} and rows[0].seconds is None
    print_summary(sweep, rows)
    write_summary(sweep, rows)
    assert "1 of 4 jobs finished" in capsys.readouterr().out
