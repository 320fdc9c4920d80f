"""A sweep's folder stays that of the sweep, whatever is repeated, interrupted or damaged in it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from experiments import QUICK, Runs

from rose_easyedit.experiment.job_list import Job, listed_command, listed_jobs, write_list
from rose_easyedit.experiment.main import main
from rose_easyedit.experiment.status import JOBS, only_command
from rose_easyedit.experiment.summary_table import read_rows
from rose_easyedit.tracking.layout import DELTA_FILE

SWEEP = ("-m", *QUICK, "alignment=identity,covariance,shrinkage")
pytestmark = pytest.mark.usefixtures("folder")


def states(folder: Path) -> list[str]:
    jobs = json.loads((folder / "summary.json").read_text())["jobs"]
    return [job["state"] for job in jobs]


def command(folder: Path, number: int) -> list[str]:
    """The words that repeat a job."""
    jobs = json.loads((folder / "summary.json").read_text())["jobs"]
    return shlex.split(jobs[number]["command"])[1:]


def test_a_job_repeated_alone_updates_the_sweep_and_its_figure(
    runs: Runs, drawn: list[Any], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs.raising = {"covariance": MemoryError("gone")}
    assert main(SWEEP) == 1
    assert states(folder) == ["finished", "failed", "finished"]
    assert drawn.pop() == {"identity": [(0.1, 0.1)], "shrinkage": [(0.3, 0.3)]}
    runs.raising = {}
    capsys.readouterr()
    assert main(command(folder, 1)) == 0
    assert "1 of 1 job finished" in capsys.readouterr().out
    assert listed_command(folder) == shlex.join(["rose-experiment", *SWEEP])
    assert states(folder) == ["finished"] * 3
    assert drawn.pop() == {
        "identity": [(0.1, 0.1)],
        "covariance": [(0.2, 0.2)],
        "shrinkage": [(0.3, 0.3)],
    }
    assert main(command(folder, 1)) == 0
    assert [job.kept for job in listed_jobs(folder)] == [False, True, False]
    assert runs.done == ["identity", "shrinkage", "covariance"]


def test_an_interrupt_of_a_job_repeated_alone_leaves_the_sweep(
    runs: Runs, drawn: list[Any], folder: Path
) -> None:
    assert main(SWEEP) == 0
    before = (folder / "summary.json").read_bytes()
    alone = [*command(folder, 1), "resume=false"]
    runs.raising = {"covariance": KeyboardInterrupt()}
    assert main(alone) == 130
    assert len(listed_jobs(folder)) == 3
    assert (folder / "summary.json").read_bytes() == before
    runs.raising = {}
    assert main(alone) == 0
    assert states(folder) == ["finished"] * 3


def test_the_jobs_that_an_interrupted_sweep_had_before_it_are_listed(
    runs: Runs, drawn: list[Any], folder: Path
) -> None:
    runs.raising = {"covariance": KeyboardInterrupt()}
    assert main(SWEEP) == 130
    assert len(listed_jobs(folder)) == 3
    runs.raising = {}
    assert main([*QUICK, "alignment=shrinkage"]) == 0
    assert states(folder) == ["finished", "broken off", "finished"]


def test_another_job_makes_the_folder_its_own(runs: Runs, drawn: list[Any], folder: Path) -> None:
    assert main(SWEEP) == 0
    assert main([*QUICK, "alignment=identity", "seed=5"]) == 0
    assert states(folder) == ["finished"]


def test_a_folder_takes_one_command_at_a_time(
    runs: Runs, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with only_command(folder):
        assert main([*QUICK, "alignment=identity"]) == 2
    assert "Another rose-experiment is at work in" in capsys.readouterr().err
    assert runs.done == []
    assert main([*QUICK, "alignment=identity"]) == 0


def test_a_run_that_cannot_be_written_is_a_failed_job(
    runs: Runs, drawn: list[Any], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(SWEEP) == 0
    lost = folder / "runs" / listed_jobs(folder)[1].run
    for path in lost.iterdir():
        path.unlink()
    lost.rmdir()
    lost.write_text("no folder")
    assert main(SWEEP) == 1
    assert states(folder) == ["finished", "failed", "finished"]
    told = capsys.readouterr().out
    assert "job 1 failed: NotADirectoryError: " in told and str(lost) in told
    lost.unlink()
    assert main(command(folder, 1)) == 0
    assert states(folder) == ["finished"] * 3


def test_a_folder_that_cannot_be_written_is_a_line(
    runs: Runs, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main([*QUICK, f"folder={tmp_path / 'file' / 'x'}"]) == 2
    printed = capfd.readouterr()
    assert "cannot be written" in printed.err and "folder=" in printed.err
    assert printed.out == "" and "Traceback" not in printed.err


def test_a_damaged_list_is_named_and_the_sweep_lists_its_jobs_anew(
    runs: Runs, drawn: list[Any], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(SWEEP) == 0
    alone = command(folder, 0)
    (folder / JOBS / "1.json").write_text('{"number": 1, "ru')
    (folder / JOBS / "2.json").write_text('{"number": "2", "run": "a"}')
    assert main(alone) == 2
    told = capsys.readouterr().err
    assert "1.json" in told and "2.json" in told and "number is '2'" in told
    assert main(SWEEP) == 0
    assert states(folder) == ["finished"] * 3


def test_a_finished_run_without_metrics_is_no_point_of_the_figure(
    runs: Runs, drawn: list[Any], folder: Path
) -> None:
    assert main(SWEEP) == 0
    run = listed_jobs(folder)[0].run
    status = folder / "runs" / run / "status.json"
    status.write_text(json.dumps({**json.loads(status.read_text()), "metrics": {}}))
    assert main(SWEEP) == 0
    assert drawn.pop() == {"covariance": [(0.2, 0.2)], "shrinkage": [(0.3, 0.3)]}


def test_the_command_that_repeats_a_job_names_the_folder_of_its_settings(
    runs: Runs,
    drawn: list[Any],
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "own groups" / "method").mkdir(parents=True)
    (tmp_path / "own groups" / "method" / "mine.yaml").write_text("# @package hparams\nseed: 4\n")
    monkeypatch.chdir(tmp_path)
    assert main(["--config-dir", "own groups", *SWEEP, "method=mine"]) == 0
    words = command(folder, 2)
    assert words[:2] == ["--config-dir", str(tmp_path / "own groups")]
    monkeypatch.chdir("/")
    assert main(words) == 0
    assert states(folder) == ["finished"] * 3
    assert len(runs.done) == 3


def test_a_list_takes_the_place_of_a_longer_one(folder: Path) -> None:
    write_list(folder, [Job(number, f"r{number}", ["\u00e9=1"]) for number in range(3)])
    write_list(folder, [Job(0, "new", ["\u00e9=1"])])
    assert listed_jobs(folder) == [Job(0, "new", ["\u00e9=1"])]
    write_list(folder, [])
    assert listed_jobs(folder) == []


def test_a_run_without_its_edit_is_done_again(
    runs: Runs, drawn: list[Any], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(SWEEP) == 0
    (folder / "runs" / listed_jobs(folder)[1].run / DELTA_FILE).unlink()
    assert states(folder) == ["finished", "finished", "finished"]  # as it was summed up
    assert [row.state for row in read_rows(folder)] == ["finished", "broken off", "finished"]
    assert main(SWEEP) == 0
    assert runs.done == ["identity", "covariance", "shrinkage", "covariance"]
