"""The front, results by a number that was swept, and the curves of the optimisation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean

from rose_easyedit.experiment.report_data import Sweep
from rose_easyedit.experiment.report_figures import (
    SOFT,
    Chart,
    Figure,
    axis,
    job_trace,
    layout,
    legend_traces,
    metrics_text,
)
from rose_easyedit.experiment.report_metrics import Metric, success_metric
from rose_easyedit.experiment.report_settings import (
    Looks,
    brief,
    is_numeric,
    setting,
    swept_keys,
    values_of,
)
from rose_easyedit.experiment.summary_table import RunRow
from rose_easyedit.figures.canvas import spans_sizes
from rose_easyedit.figures.pareto import pareto_front

# Title, the upright axis with its unit, and what the curve runs along.
_PANELS = {
    "fact/loss": ("Facts: loss", "nats per token", "step"),
    "fact/norm": ("Facts: size of the shift", "share of the hidden norm", "step"),
    "fact/kl": ("Facts: KL of what is kept", "nats", "step"),
    "subject/loss": ("Subjects: loss", "nats per token", "step"),
    "subject/norm": ("Subjects: size of the shift", "share of the hidden norm", "step"),
    "subject/kl": ("Subjects: KL of what is kept", "nats", "step"),
    "layer/residual": ("Layers: what is left to write", "of what tells subjects apart", "layer"),
    "layer/update_norm": ("Layers: norm of the update", "Frobenius norm", "layer"),
}
# Numbers that say nothing by their size.
_NO_SIZE = ("seed",)


def front_chart(
    sweep: Sweep, metrics: Sequence[Metric], looks: Looks, names: Mapping[str, str]
) -> Chart | None:
    """Faithful success against damage, with the jobs that no other one betters on a line.

    None if either was not measured.
    """
    success, damage = success_metric(metrics), _damage(metrics)
    if success is None or damage is None:
        return None
    rows = [row for row in sweep.done if {success.name, damage.name} <= row.metrics.keys()]
    points = [(row.metrics[success.name] or 0.0, row.metrics[damage.name] or 0.0) for row in rows]
    if not points:
        return None
    jobs = [
        job_trace(row, looks, [(kl, rate)], metrics_text(sweep, row, metrics), mode="markers")
        for row, (rate, kl) in zip(rows, points, strict=True)
    ]
    best = [points[index] for index in pareto_front(points)]
    line = {
        "type": "scatter",
        "uid": "front",
        "name": "Pareto front",
        "legendgroup": "front",
        "legendgrouptitle": {"text": "line"},
        "x": [kl for _, kl in best],
        "y": [rate for rate, _ in best],
        "mode": "lines+markers",
        "line": {"color": SOFT, "dash": "dash", "shape": "hv"},
        "marker": {"color": SOFT, "symbol": "circle-open", "size": 18},
        "hoverinfo": "skip",
    }
    x = axis("damage: KL divergence of other prompts (nats)", **_scale([kl for _, kl in points]))
    y = axis(f"faithful success: {success.title} (%)", tickformat=".0%", rangemode="tozero")
    figure = {"data": [line, *jobs, *legend_traces(looks, names)], "layout": layout(x, y)}
    return Chart("Faithful success against damage", figure, height=460, most_width=960)


def number_charts(
    sweep: Sweep, metrics: Sequence[Metric], looks: Looks, names: Mapping[str, str]
) -> list[Chart]:
    """Success and damage by each number that was swept, as that of facts per subject.

    A line goes through the means of the jobs that set everything else alike.
    """
    shown = [metric for metric in (success_metric(metrics), _damage(metrics)) if metric]
    keys = [
        key
        for key in swept_keys(sweep.done)
        if is_numeric(values_of(sweep.done, key)) and names[key] not in _NO_SIZE
    ]
    charts = [
        _by_number(sweep, metric, key, looks, names, metrics) for key in keys for metric in shown
    ]
    return [chart for chart in charts if chart]


def _by_number(
    sweep: Sweep,
    metric: Metric,
    key: str,
    looks: Looks,
    names: Mapping[str, str],
    metrics: Sequence[Metric],
) -> Chart | None:
    rows = [row for row in sweep.done if row.metrics.get(metric.name) is not None]
    if len(values_of(rows, key)) < 2:
        return None
    others = [other for other in swept_keys(rows) if other != key and names[other] not in _NO_SIZE]
    alike: dict[tuple[str, ...], dict[str, list[RunRow]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        alike[tuple(setting(row, other) for other in others)][setting(row, key)].append(row)
    lines, table = [], []
    for number, (values, by_value) in enumerate(alike.items()):
        means = {
            value: fmean(row.metrics[metric.name] or 0.0 for row in by_value[value])
            for value in sorted(by_value, key=float)
        }
        first = next(iter(by_value.values()))[0]
        points = [(float(value), mean) for value, mean in means.items()]
        line = job_trace(first, looks, points, "", mode="lines")
        line |= {"uid": f"line{number}", "hoverinfo": "skip"}
        # the job's own look tells of its number, too, which the line has all of
        if looks.colour_key == key:
            line["line"]["color"] = SOFT
        if looks.shape_key == key:
            line["line"]["dash"] = "solid"
        lines.append(line)
        table += [[value, *values, metric.text(mean)] for value, mean in means.items()]
    jobs = [
        job_trace(
            row,
            looks,
            [(float(setting(row, key)), row.metrics[metric.name])],
            metrics_text(sweep, row, metrics),
            mode="markers",
        )
        for row in rows
    ]
    title = names[key].replace("_", " ")
    x = axis(title, **_scale([float(value) for value in values_of(rows, key)]))
    y = axis(
        metric.axis_title, rangemode="tozero", **({} if metric.length else {"tickformat": ".0%"})
    )
    figure = {"data": [*lines, *jobs, *legend_traces(looks, names)], "layout": layout(x, y)}
    head = [title, *(names[other] for other in others), metric.axis_title]
    return Chart(f"{metric.axis_title} by {title}", figure, head, table, height=380)


def curve_charts(sweep: Sweep, looks: Looks, names: Mapping[str, str]) -> list[Chart]:
    """A picture of each curve that a job has, all jobs in one."""
    charts = []
    for name, (title, unit, along) in _PANELS.items():
        curves = {
            row.number: (row, sweep.run(row).curves[name])
            for row in sweep.done
            if sweep.run(row).curves.get(name)
        }
        if not curves:
            continue
        traces = [
            job_trace(
                row,
                looks,
                curve,
                metrics_text(sweep, row, []),
                mode="lines" if len(curve) > 1 else "markers",
            )
            for row, curve in curves.values()
        ]
        x = axis(along, **({"tickformat": "d"} if along == "layer" else {}))
        figure: Figure = {
            "data": [*traces, *legend_traces(looks, names)],
            "layout": layout(x, axis(unit, rangemode="tozero")),
        }
        at = {number: dict(curve) for number, (_, curve) in curves.items()}
        places = sorted({place for curve in at.values() for place in curve})
        table = [
            [f"{place:g}", *(_number(curve.get(place)) for curve in at.values())]
            for place in places
        ]
        head = [along, *(f"job {number}" for number in at)]
        charts.append(Chart(f"{title} ({unit})", figure, head, table))
    return charts


def _damage(metrics: Sequence[Metric]) -> Metric | None:
    return next((metric for metric in metrics if metric.name == "kl"), None)


def _scale(values: Sequence[float]) -> Figure:
    """Even ratios for numbers of several sizes, else even steps from nothing."""
    low, high = min(values), max(values)
    if spans_sizes(low, high):
        return {"type": "log", "dtick": 1 if high / low > 100 else "D2", "exponentformat": "none"}
    return {"rangemode": "tozero"}


def _number(value: float | None) -> str:
    return "" if value is None else brief(f"{value:.4g}")
