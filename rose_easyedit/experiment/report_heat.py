"""The heat maps of a sweep's report: a metric by every two of the swept settings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import fmean

from rose_easyedit.experiment.report_data import Sweep
from rose_easyedit.experiment.report_figures import CARD, INK, Chart, Figure, axis, layout, safe
from rose_easyedit.experiment.report_metrics import Metric
from rose_easyedit.experiment.report_settings import brief, setting, swept_keys, values_of
from rose_easyedit.files.amounts import counted

# Settings with more values than this are no rows and columns, as those of a search.
_MOST_VALUES = 12
_HEAT = "var(--heat)"


def heat_charts(sweep: Sweep, metrics: Sequence[Metric], names: Mapping[str, str]) -> list[Chart]:
    """A heat map for each metric and each pair of settings, or for the only setting."""
    keys = [
        key for key in swept_keys(sweep.done) if len(values_of(sweep.done, key)) <= _MOST_VALUES
    ]
    pairs = list(combinations(keys, 2)) or [(key, "") for key in keys]
    return [_heat(sweep, metric, names, *pair) for metric in metrics for pair in pairs]


def _heat(sweep: Sweep, metric: Metric, names: Mapping[str, str], down: str, across: str) -> Chart:
    """Means of the jobs in each cell; where no job has the metric, the cell is empty."""
    found = _jobs_of_cells(sweep, metric, down, across)
    means = {place: fmean(value for _, value in of) for place, of in found.items()}
    low, high = min(means.values(), default=0.0), max(means.values(), default=0.0)
    best = low if metric.less_is_better else high
    rows, columns = values_of(sweep.done, down), values_of(sweep.done, across)
    column_words = list(map(brief, columns)) if across else ["all"]

    def words(place: tuple[str, str], between: str) -> str:
        if place not in means:
            return ""
        several = f"{between}mean of {counted(len(found[place]), 'job')}"
        return metric.text(means[place]) + (several if len(found[place]) > 1 else "")

    cells = [[(row, column) for column in columns] for row in rows]
    heat: Figure = {
        "type": "heatmap",
        "x": list(range(len(columns))),
        "y": list(range(len(rows))),
        "z": [[means.get(place) for place in line] for line in cells],
        # a map of equal numbers is of the lightest colour
        "zmin": low,
        "zmax": high if high > low else low + 1,
        "text": [[words(place, "<br>") for place in line] for line in cells],
        "texttemplate": "%{text}",
        "customdata": [
            [" ".join(str(job) for job, _ in found[at]) for at in line] for line in cells
        ],
        "hoverinfo": "none",
        "colorscale": [[0, CARD], [1, _HEAT]],
        "showscale": False,
        "xgap": 2,
        "ygap": 2,
    }
    framed = [
        _frame(x, y)
        for y, line in enumerate(cells)
        for x, place in enumerate(line)
        if means.get(place) == best and high > low
    ]
    figure = {
        "data": [heat],
        "layout": layout(
            _labelled(names.get(across, ""), column_words, side="top"),
            _labelled(names[down], list(map(brief, rows)), autorange="reversed"),
            shapes=framed,
            dragmode=False,
        ),
    }
    title = f"{metric.axis_title} by {names[down]}" + (f" and {names[across]}" if across else "")
    table = [
        [brief(row), *(words(place, ", ") for place in line)]
        for row, line in zip(rows, cells, strict=True)
    ]
    head = [names[down], *column_words]
    size = {"height": 110 + 56 * len(rows), "least_width": 140 + 80 * len(columns)}
    return Chart(
        title, figure, head, table, most_width=180 + 150 * len(columns), metric=metric.name, **size
    )


def _jobs_of_cells(
    sweep: Sweep, metric: Metric, down: str, across: str
) -> dict[tuple[str, str], list[tuple[int, float]]]:
    """The number of each job and its value, by the settings that place it."""
    found: dict[tuple[str, str], list[tuple[int, float]]] = defaultdict(list)
    for job in sweep.done:
        value = job.metrics.get(metric.name)
        if value is not None:
            found[setting(job, down), setting(job, across)].append((job.number, value))
    return found


def _labelled(title: str, values: Sequence[str], **more: object) -> Figure:
    """An axis of words."""
    ticks = {"tickvals": list(range(len(values))), "ticktext": list(map(safe, values))}
    return axis(title, showgrid=False, zeroline=False, fixedrange=True, **ticks, **more)


def _frame(x: int, y: int) -> Figure:
    sides = {"x0": x - 0.47, "x1": x + 0.47, "y0": y - 0.45, "y1": y + 0.45}
    return {"type": "rect", "line": {"color": INK, "width": 2}, **sides}
