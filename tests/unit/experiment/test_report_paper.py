"""The tables of a study: what is compared, means over seeds, and the paper's order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from diagnoses import some_diagnosis
from experiments import run
from sweeps import a_result, end_sweep, write_run, write_sweep

from rose_easyedit.experiment.report import render_sweep
from rose_easyedit.experiment.report_data import read_sweep
from rose_easyedit.experiment.report_paper import paper_tables

METHODS, COUNTS, SEEDS = ("memit", "rose"), (1, 2), (0, 1, 2)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two methods x one and two facts per subject x three seeds; D is 1, 2, 3 by the seed."""
    sweep = tmp_path_factory.mktemp("study")
    found = some_diagnosis().as_dict()
    jobs = []
    for method in METHODS:
        for facts in COUNTS:
            for seed in SEEDS:
                run = f"{method}{facts}{seed}"
                words = [f"method={method}", f"data.facts_per_subject={facts}", f"seed={seed}"]
                folder = write_run(sweep, run, words, a_result(0.5, 0.1, seed=seed))
                edit = next(iter(found["summary"]["edits"].values()))
                edit["all"]["deviation"] = 1.0 + seed
                edit["radius"]["mean"] = 10.0 * facts
                found["summary"]["conflict"]["mean"] = 0.25 * facts
                (folder / "diagnosis.json").write_text(json.dumps(found))
                jobs.append((run, words))
    end_sweep(sweep, jobs)
    return sweep


def test_the_tables_come_in_the_papers_order_each_with_its_conditions(study: Path) -> None:
    tables = paper_tables(read_sweep(study))
    assert [table.title[:2] for table in tables] == ["1.", "2.", "3.", "4."]
    assert "2 facts per subject" in tables[0].title
    assert [row[0] for row in tables[0].rows] == ["memit", "rose"]
    assert tables[0].head[1:4] == ["statement", "question", "instruction"]
    assert [row[:2] for row in tables[3].rows] == [
        ["memit", "1"], ["memit", "2"], ["rose", "1"], ["rose", "2"],
    ]  # fmt: skip


def test_a_mean_is_over_the_seeds_with_its_interval(study: Path) -> None:
    distances = paper_tables(read_sweep(study))[1]
    row = dict(zip(distances.head, distances.rows[0], strict=True))
    # the spread of 1, 2 and 3 is 1; Student's 4.30 over the root of three
    assert row["D"] == "2.00 \u00b1 2.48"
    assert row["R"] == "20.00 \u00b1 0.00"
    chart = distances.chart
    assert chart is not None
    bars = {trace["name"]: trace for trace in chart.figure["data"]}
    place = bars["rose"]["x"].index("D")
    assert bars["rose"]["y"][place] == pytest.approx(2.0)
    assert bars["rose"]["error_y"]["array"][place] == pytest.approx(4.30 / 3**0.5)


def test_conflict_and_keys_are_by_the_facts_of_a_subject(study: Path) -> None:
    conflict = paper_tables(read_sweep(study))[2]
    assert [row[:2] for row in conflict.rows] == [
        ["1", "0.25 \u00b1 0.00"],
        ["2", "0.50 \u00b1 0.00"],
    ]


def test_the_page_has_them_where_there_is_a_geometry(study: Path, tmp_path: Path) -> None:
    page = render_sweep(read_sweep(study))
    assert page.index("1. Which query forms") < page.index("2. How far") < page.index("4. More")
    plain = write_sweep(tmp_path)
    assert paper_tables(read_sweep(plain)) == []
    assert "in the paper" not in render_sweep(read_sweep(plain))


def test_a_damaged_diagnosis_is_told_and_left_out(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path)
    for edits, fault in (
        ("{}", "it is cut short, or no such file"),
        ('{"a": {}}', "lacks 'forms'"),
    ):
        text = f'{{"summary": {{"edits": {edits}}}}}'
        (sweep / "runs" / "r0" / "diagnosis.json").write_text(text)
        read = read_sweep(sweep)
        (told,) = read.runs["r0"].faults
        assert told.startswith("diagnosis.json cannot be read (") and fault in told
        assert paper_tables(read) == []


@pytest.mark.parametrize(
    "places",
    [("edits", "own", "all", "deviation"), ("edits", "own", "forms", "question", "deviation"),
     ("edits", "own", "radius", "mean"), ("conflict", "mean"), ("key_cosine", "across")],
)  # fmt: skip
@pytest.mark.parametrize("value", ["much", [1.0], True, float("nan"), 10**400])
def test_a_diagnosis_with_what_is_no_number_is_told_and_left_out(
    places: tuple[str, ...], value: Any, tmp_path: Path
) -> None:
    sweep, found = write_sweep(tmp_path), some_diagnosis().as_dict()
    found["summary"]["edits"] = {"own": next(iter(found["summary"]["edits"].values()))}
    holder = found["summary"]
    for name in places[:-1]:
        holder = holder[name]
    holder[places[-1]] = value
    (sweep / "runs" / "r0" / "diagnosis.json").write_text(json.dumps(found))
    read = read_sweep(sweep)
    assert len(read.runs["r0"].faults) == 1 and paper_tables(read) == []
    render_sweep(read)


@pytest.mark.slow
def test_the_study_runs_in_the_laboratory(tmp_path: Path) -> None:
    words = "-m experiment=paper hparams=laboratory data=laboratory method=memit_merge,rose_paper"
    fewer = "data.facts_per_subject=1,2 seed=0,1 data.subjects=2 evaluation.max_new_tokens=4"
    done = run(tmp_path, *words.split(), *fewer.split())
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 of 8 jobs done" in done.stdout
    sweep = read_sweep(tmp_path / "paper")
    tables = {table.title[:2]: table for table in paper_tables(sweep)}
    assert set(tables) == {"1.", "2.", "3.", "4."}
    assert [row[0] for row in tables["2."].rows] == ["memit_merge", "rose_paper"]
    assert all("\u00b1" in cell for row in tables["2."].rows for cell in row[1:-1])
    assert all("\u00b1" in cell for row in tables["1."].rows for cell in row[1:])
