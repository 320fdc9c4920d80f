"""The grids of a sweep's report: a metric by every two of the swept settings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

from rose_easyedit.experiment.report_data import Sweep
from rose_easyedit.experiment.report_looks import setting, swept_keys
from rose_easyedit.experiment.report_metrics import Metric
from rose_easyedit.experiment.report_scales import in_order

# Settings with more values than this are no rows and columns, as those of a search.
_MOST_VALUES = 12


@dataclass(frozen=True)
class Cell:
    """The mean of some jobs.

    Attributes:
        text: as it is shown.
        heat: 0 for the smallest of the grid, 1 for the largest.
        best: no other is better.
        jobs: their numbers.
    """

    text: str
    heat: float
    best: bool
    jobs: Sequence[int]


@dataclass(frozen=True)
class Grid:
    """One metric by two settings; a cell is None where no job has it."""

    metric: Metric
    across: str
    columns: Sequence[str]
    down: str
    rows: Sequence[tuple[str, Sequence[Cell | None]]]


def grids_of(sweep: Sweep, metrics: Sequence[Metric]) -> list[Grid]:
    """A grid for each metric and each pair of settings, or for the only setting."""
    keys = [key for key in swept_keys(sweep.done) if len(_values(sweep, key)) <= _MOST_VALUES]
    pairs = list(combinations(keys, 2)) or [(key, "") for key in keys]
    return [_grid(sweep, metric, *pair) for metric in metrics for pair in pairs]


def _grid(sweep: Sweep, metric: Metric, down: str, across: str) -> Grid:
    places: dict[tuple[str, str], list[tuple[int, float]]] = defaultdict(list)
    for row in sweep.done:
        value = row.metrics.get(metric.name)
        if value is not None:
            places[setting(row, down), setting(row, across)].append((row.number, value))
    means = {place: fmean(value for _, value in of) for place, of in places.items()}
    low, high = min(means.values()), max(means.values())
    best = low if metric.less_is_better else high

    def cell(place: tuple[str, str]) -> Cell | None:
        if place not in means:
            return None
        mean = means[place]
        heat = round((mean - low) / (high - low), 3) if high > low else 0.0
        jobs = [number for number, _ in places[place]]
        return Cell(metric.text(mean), heat, mean == best and high > low, jobs)

    columns = _values(sweep, across)
    rows = [
        (value, [cell((value, column)) for column in columns]) for value in _values(sweep, down)
    ]
    return Grid(metric, across, columns if across else ["all"], down, rows)


def _values(sweep: Sweep, key: str) -> list[str]:
    """What the jobs set the key to."""
    return in_order(setting(row, key) for row in sweep.done)
