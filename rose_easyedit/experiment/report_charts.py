"""The pictures of a sweep's report, as SVG that is part of the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rose_easyedit.experiment.report_data import Sweep
from rose_easyedit.experiment.report_looks import Looks, setting, short_names, swept_keys
from rose_easyedit.experiment.report_metrics import Metric, success_metric
from rose_easyedit.experiment.report_plane import Plane, upright
from rose_easyedit.experiment.report_scales import Axis, Numbers, Words, setting_axis
from rose_easyedit.experiment.report_svg import (
    Point,
    drawing,
    job_line,
    job_mark,
    lone_points,
    path_of,
    tag,
)
from rose_easyedit.experiment.summary_table import RunRow
from rose_easyedit.figures.pareto import pareto_front

if TYPE_CHECKING:
    from markupsafe import Markup

_PANELS = {
    "fact/loss": ("Facts: loss (nats per token)", "step"),
    "fact/norm": ("Facts: size of the shift (of the hidden norm)", "step"),
    "fact/kl": ("Facts: KL of what is kept (nats)", "step"),
    "subject/loss": ("Subjects: loss (nats per token)", "step"),
    "subject/norm": ("Subjects: size of the shift (of the hidden norm)", "step"),
    "subject/kl": ("Subjects: KL of what is kept (nats)", "step"),
    "layer/residual": ("Layers: what is left to write", "layer"),
    "layer/update_norm": ("Layers: norm of the update", "layer"),
}


def parallel_chart(sweep: Sweep, metrics: Sequence[Metric], looks: Looks) -> Markup:
    """Parallel coordinates: what each finished job set, and what came of it."""
    rows = sweep.done
    keys = swept_keys(rows)
    axes: list[Axis] = []
    places: list[list[float | None]] = [[] for _ in rows]
    for key, title in short_names(keys).items():
        values = [setting(row, key) for row in rows]
        axis = setting_axis(title, values)
        axes.append(axis)
        for of, value in zip(places, values, strict=True):
            of.append(axis.place(value) if isinstance(axis, Words) else axis.place(float(value)))
    for metric in metrics:
        numbers = [row.metrics.get(metric.name) for row in rows]
        known = [value for value in numbers if value is not None]
        axis = Numbers.around(
            metric.title, known, rate=not metric.length, turned=metric.less_is_better
        )
        axes.append(axis)
        for of, number in zip(places, numbers, strict=True):
            of.append(None if number is None else axis.place(number))

    top, height, left, gap = 46.0, 300.0, 56.0, 108.0
    width = left + gap * len(axes)

    def at(index: int, place: float) -> Point:
        return left + gap * index, top + height * (1 - place)

    lines = [
        job_line(
            row,
            looks,
            [None if place is None else at(index, place) for index, place in enumerate(of)],
            _metrics_text(row, metrics),
        )
        for row, of in zip(rows, places, strict=True)
    ]
    drawn = [upright(axis, at(index, 1.0), at(index, 0.0)) for index, axis in enumerate(axes)]
    title = "Settings and results of each job"
    return drawing(width, top + height + 20, *lines, *drawn, title=title)


def scatter_chart(sweep: Sweep, metrics: Sequence[Metric], looks: Looks) -> Markup | None:
    """Success against locality, with the jobs that no other one betters on a line.

    None if either was not measured.
    """
    success = success_metric(metrics)
    length = next((metric for metric in metrics if metric.name == "kl"), None)
    if success is None or length is None:
        return None
    rows = [row for row in sweep.done if {success.name, length.name} <= row.metrics.keys()]
    points = [(row.metrics[success.name] or 0.0, row.metrics[length.name] or 0.0) for row in rows]
    if not points:
        return None
    x = Numbers.around("KL of other prompts (nats)", [kl for _, kl in points], zero=True)
    y = Numbers.around(
        f"faithful success: {success.title}", [rate for rate, _ in points], zero=True, rate=True
    )
    plane = Plane(760, 430, x, y)
    front = [points[index] for index in pareto_front(points)]
    steps: list[Point] = []
    for rate, kl in front:
        if steps:
            steps.append((plane.at(kl, 0.0)[0], steps[-1][1]))
        steps.append(plane.at(kl, rate))
    marks = [
        job_mark(row, looks, plane.at(kl, rate), _metrics_text(row, metrics))
        for row, (rate, kl) in zip(rows, points, strict=True)
    ]
    line = tag("path", d=path_of(steps), class_="front")
    ring = [tag("circle", cx=x, cy=y, r=10, class_="front") for x, y in lone_points(steps)]
    return plane.drawn(line, *ring, *marks, title="Faithful success against locality")


def curve_charts(sweep: Sweep, looks: Looks) -> list[Markup]:
    """A picture of each curve that a job has, all jobs in one."""
    charts = []
    for name, (title, axis) in _PANELS.items():
        rows = [row for row in sweep.done if sweep.run(row).curves.get(name)]
        curves = [sweep.run(row).curves[name] for row in rows]
        if curves:
            points = [point for curve in curves for point in curve]
            x = Numbers.around(axis, [place for place, _ in points])
            y = Numbers.around(title, [value for _, value in points], zero=True)
            plane = Plane(430, 260, x, y)
            lines = [
                job_line(row, looks, [plane.at(*point) for point in curve], title, easy=False)
                for row, curve in zip(rows, curves, strict=True)
            ]
            charts.append(plane.drawn(*lines, title=title))
    return charts


def _metrics_text(row: RunRow, metrics: Sequence[Metric]) -> str:
    known = [metric for metric in metrics if metric.name in row.metrics]
    return ", ".join(f"{metric.title} {metric.text(row.metrics[metric.name])}" for metric in known)
