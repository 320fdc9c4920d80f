"""The pictures of a sweep's page, as data that Plotly itself accepts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pages import ATTACK
from sweeps import a_result, end_sweep, write_run, write_sweep

from rose_easyedit.experiment.keys import short_names
from rose_easyedit.experiment.report_charts import curve_charts, front_chart, number_charts
from rose_easyedit.experiment.report_data import Sweep, read_sweep
from rose_easyedit.experiment.report_figures import Chart
from rose_easyedit.experiment.report_heat import heat_charts
from rose_easyedit.experiment.report_metrics import Metric, metrics_of
from rose_easyedit.experiment.report_parallel import parallel_chart
from rose_easyedit.experiment.report_settings import (
    UNSET,
    Looks,
    brief,
    looks_of,
    swept_keys,
    values_of,
)
from rose_easyedit.experiment.summary_table import RunRow

What = tuple[Sweep, list[Metric], Looks, dict[str, str]]


def charted(folder: Path) -> What:
    sweep = read_sweep(folder)
    names = short_names(swept_keys(sweep.done))
    return sweep, metrics_of(sweep), looks_of(sweep.done), names


def all_charts(folder: Path) -> list[Chart]:
    sweep, metrics, looks, names = charted(folder)
    front = front_chart(sweep, metrics, looks, names)
    return [
        parallel_chart(sweep, metrics, looks, names),
        *heat_charts(sweep, metrics, names),
        *([front] if front else []),
        *number_charts(sweep, metrics, looks, names),
        *curve_charts(sweep, looks, names),
    ]


def jobs_of(chart: Chart | None) -> dict[str, Any]:
    assert chart is not None
    traces = chart.figure["data"]
    return {trace["uid"]: trace for trace in traces if trace.get("uid", "").startswith("job")}


def write_numbers(folder: Path, key: str = "data.facts_per_subject") -> Path:
    """Three numbers with two methods, each twice."""
    jobs = []
    for number, (value, method, seed) in enumerate(
        (v, m, s) for v in ("1", "2", "10") for m in ("rose", "memit") for s in ("0", "1")
    ):
        words = [f"{key}={value}", f"method={method}", f"seed={seed}"]
        write_run(folder, f"r{number}", words, a_result(0.5, 0.1 * (number + 1), seed=number))
        jobs.append((f"r{number}", words))
    end_sweep(folder, jobs)
    return folder


@pytest.mark.parametrize("write", [write_sweep, write_numbers])
def test_plotly_knows_every_word_of_every_figure(tmp_path: Path, write: Any) -> None:
    import plotly.graph_objects as go

    charts = all_charts(write(tmp_path))
    assert len(charts) > 5
    for chart in charts:
        go.Figure(chart.figure)  # it refuses what it does not know
        json.dumps(chart.figure, allow_nan=False)
        assert chart.title and all(len(row) == len(chart.head) for row in chart.rows)


def test_each_finished_job_is_a_line_and_a_point(tmp_path: Path) -> None:
    sweep, metrics, looks, names = charted(write_sweep(tmp_path))
    assert (looks.colour_key, looks.shape_key) == ("alignment", "hierarchy")
    lines = jobs_of(parallel_chart(sweep, metrics, looks, names))
    assert list(lines) == ["job0", "job1", "job2", "job3"]
    colours = [line["line"]["color"] for line in lines.values()]
    assert colours == ["var(--c0)", "var(--c0)", "var(--c1)", "var(--c1)"]
    assert {len(line["x"]) for line in lines.values()} == {2 + len(metrics)}
    places = [place for line in lines.values() for place in line["y"] if place is not None]
    assert all(0 <= place <= 1 for place in places)
    points = jobs_of(front_chart(sweep, metrics, looks, names))
    assert [point["marker"]["symbol"] for point in points.values()] == ["circle", "square"] * 2


def test_up_is_better_on_the_axis_of_a_result(tmp_path: Path) -> None:
    sweep, metrics, looks, names = charted(write_sweep(tmp_path))
    lines = jobs_of(parallel_chart(sweep, metrics, looks, names))
    kl = 2 + [metric.name for metric in metrics].index("kl")
    assert [line["y"][kl] for line in lines.values()] == pytest.approx([1, 2 / 3, 1 / 3, 0])


def test_the_front_has_the_jobs_that_no_other_betters(tmp_path: Path) -> None:
    sweep, metrics, looks, names = charted(write_sweep(tmp_path))
    chart = front_chart(sweep, metrics, looks, names)
    assert chart is not None
    line = chart.figure["data"][0]
    best: list[tuple[float, float]] = []
    for row in sorted(sweep.done, key=lambda row: row.metrics["kl"] or 0):
        kl, rate = row.metrics["kl"] or 0, row.metrics["asked"] or 0
        if not best or rate > best[-1][1]:
            best.append((kl, rate))
    assert list(zip(line["x"], line["y"], strict=True)) == best
    layout = chart.figure["layout"]
    assert "(nats)" in layout["xaxis"]["title"]["text"]
    assert layout["yaxis"]["title"]["text"].endswith("(%)")


def test_the_front_takes_a_form_where_nothing_was_asked_in_chat(tmp_path: Path) -> None:
    write_sweep(tmp_path)
    for path in tmp_path.glob("runs/*/status.json"):
        status = json.loads(path.read_text())
        status["metrics"] = {"statement": 0.5, "kl": 0.1, "asked": None}
        path.write_text(json.dumps(status))
    chart = front_chart(*charted(tmp_path))
    assert chart is not None and "success: statement" in json.dumps(chart.figure)


def test_an_edit_of_one_layer_is_a_point(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "r0", ["seed=1"], a_result(0.5, 0.1))
    event = {"event": "log", "axis": "layer", "step": 4, "values": {"layer/residual": 0.5}}
    (folder / "metrics.jsonl").write_text(json.dumps(event) + "\n")
    end_sweep(tmp_path, [("r0", ["seed=1"])])
    sweep, _, looks, names = charted(tmp_path)
    (chart,) = curve_charts(sweep, looks, names)
    assert jobs_of(chart)["job0"]["mode"] == "markers"
    assert (list(chart.head), chart.rows) == (["layer", "job 0"], [["4", "0.5"]])


def test_curves_are_a_table_too(tmp_path: Path) -> None:
    sweep, _, looks, names = charted(write_sweep(tmp_path))
    chart = next(c for c in curve_charts(sweep, looks, names) if c.title.startswith("Subjects: l"))
    assert list(chart.head) == ["step", "job 0", "job 1", "job 2", "job 3"]
    assert [row[0] for row in chart.rows] == [str(step) for step in range(9)]
    assert chart.rows[0][1:] == ["8"] * 4


def test_heat_maps_hold_means_and_frame_the_best(tmp_path: Path) -> None:
    jobs = []
    for number, (seed, alignment, hierarchy) in enumerate(
        (s, a, h) for s in "01" for a in ("isotropic", "covariance") for h in ("joint", "none")
    ):
        words = [f"alignment={alignment}", f"hierarchy={hierarchy}"]
        words += [f"hparams.alignment.strength={number}", "experiment=x"]
        write_run(tmp_path, f"r{number}", words, a_result(0.5, 0.1 * (number + 1), seed=int(seed)))
        jobs.append((f"r{number}", words))
    end_sweep(tmp_path, jobs)
    sweep, metrics, _, names = charted(tmp_path)
    charts = [chart for chart in heat_charts(sweep, metrics, names) if chart.metric == "kl"]
    assert [chart.title for chart in charts] == [
        "KL (nats) by alignment and hierarchy",
        "KL (nats) by alignment and strength",
        "KL (nats) by hierarchy and strength",
    ]
    heat = charts[0].figure["data"][0]
    assert [pytest.approx(line) for line in heat["z"]] == [[0.3, 0.4], [0.5, 0.6]]
    assert heat["customdata"][0] == ["0 4", "1 5"]
    (frame,) = charts[0].figure["layout"]["shapes"]
    assert (round(frame["x0"]), round(frame["y0"])) == (0, 0)
    assert charts[0].rows[0] == ["isotropic", "0.300, mean of 2 jobs", "0.400, mean of 2 jobs"]
    assert None in charts[1].figure["data"][0]["z"][0]


def test_a_number_that_was_swept_has_success_and_damage_drawn_over_it(tmp_path: Path) -> None:
    sweep, metrics, looks, names = charted(write_numbers(tmp_path))
    assert (looks.colour_key, looks.shape_key) == ("method", "data.facts_per_subject")
    success, damage = number_charts(sweep, metrics, looks, names)
    assert success.title == "questions and instructions (%) by facts per subject"
    assert damage.title == "KL (nats) by facts per subject"
    lines = [one for one in damage.figure["data"] if one.get("uid", "").startswith("line")]
    assert [line["x"] for line in lines] == [[1, 2, 10]] * 2
    assert lines[0]["y"] == pytest.approx([0.15, 0.55, 0.95])
    assert len(jobs_of(damage)) == 12
    assert damage.rows[0] == ["1", "rose", "0.150"]


def test_a_seed_is_no_number_to_draw_over(tmp_path: Path) -> None:
    assert number_charts(*charted(write_numbers(tmp_path, "seed"))) == []


def test_what_a_user_named_is_shown_as_it_is(tmp_path: Path) -> None:
    jobs = [("r0", [f"x.a={ATTACK}", "seed=1"]), ("r1", ["x.a=<b>&amp;</b>", "seed=2"])]
    for run, words in jobs:
        write_run(tmp_path, run, words, a_result(0.5, 0.1))
    end_sweep(tmp_path, jobs)
    for chart in all_charts(tmp_path):
        words = json.dumps(chart.figure)
        assert "<script" not in words and "<img" not in words
        assert "<b>&" not in words.replace("<b>job", "")


def row(**swept: str) -> RunRow:
    return RunRow(0, "r", "finished", False, swept)


def test_settings_are_words_unless_all_of_them_are_numbers() -> None:
    assert values_of([row(a="10"), row(a="9")], "a") == ["9", "10"]
    assert values_of([row(a="10"), row(), row(a="9")], "a") == ["10", UNSET, "9"]
    assert [brief(word) for word in ("0.123456", "1e-10", "1000000", "joint")] == [
        "0.1235", "1e-10", "1e+06", "joint",
    ]  # fmt: skip
