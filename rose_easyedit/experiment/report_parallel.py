"""Parallel coordinates: what each finished job set, and what came of it.

Plotly's own trace for this compiles code in the browser, which the page's policy forbids, and needs
WebGL. Here the axes are lines in a plane whose heights are shares of each, and Plotly's selections
are the brushes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap

from rose_easyedit.experiment.report_data import Sweep
from rose_easyedit.experiment.report_figures import (
    CARD,
    SOFT,
    Chart,
    Figure,
    job_trace,
    layout,
    legend_traces,
    metrics_text,
    safe,
)
from rose_easyedit.experiment.report_metrics import Metric
from rose_easyedit.experiment.report_settings import (
    Looks,
    brief,
    is_numeric,
    setting,
    swept_keys,
    values_of,
)
from rose_easyedit.figures.canvas import spans_sizes

# An axis of more numbers is labelled at its ends only.
_MOST_TICKS = 6
_AXIS_WIDTH = 104


@dataclass(frozen=True)
class Upright:
    """One of the axes.

    Attributes:
        title: in words, with the unit.
        places: of each job, from 0 at the foot to 1; None where the job has no value.
        ticks: place and words.
    """

    title: str
    places: Sequence[float | None]
    ticks: Sequence[tuple[float, str]]


def parallel_chart(
    sweep: Sweep, metrics: Sequence[Metric], looks: Looks, names: Mapping[str, str]
) -> Chart:
    """A line for each finished job, across an axis for each setting and each metric."""
    rows = sweep.done
    axes = [
        _setting_axis(names[key], [setting(row, key) for row in rows], values_of(rows, key))
        for key in swept_keys(rows)
    ]
    axes += [
        _metric_axis(metric, [row.metrics.get(metric.name) for row in rows]) for metric in metrics
    ]
    traces = [
        job_trace(
            row,
            looks,
            [(number, upright.places[place]) for number, upright in enumerate(axes)],
            metrics_text(sweep, row, metrics),
            mode="lines+markers",
        )
        for place, row in enumerate(rows)
    ]
    titles = ["<br>".join(map(safe, wrap(upright.title.replace("_", " "), 15))) for upright in axes]
    across = {
        "tickvals": list(range(len(axes))),
        "ticktext": titles,
        "side": "top",
        "range": [-0.3, len(axes) - 0.3],
        "showgrid": False,
        "zeroline": False,
        "fixedrange": True,
        "automargin": True,
        "tickangle": 0,
    }
    up = {"visible": False, "range": [-0.06, 1.06], "fixedrange": True}
    figure: Figure = {
        "data": [*traces, *legend_traces(looks, names)],
        "layout": layout(
            across,
            up,
            margin={"l": 10, "r": 10, "t": 70, "b": 10},
            dragmode="select",
            shapes=[_line(number) for number in range(len(axes))],
            annotations=[
                _tick(number, *tick)
                for number, upright in enumerate(axes)
                for tick in upright.ticks
            ],
        ),
    }
    figure["layout"]["legend"] |= {"y": -0.02, "yanchor": "top"}
    width = 80 + _AXIS_WIDTH * len(axes)
    return Chart(
        "Settings and results of each job, in parallel coordinates",
        figure,
        height=420,
        least_width=width,
        most_width=2 * width,
    )


def _setting_axis(title: str, values: Sequence[str], distinct: Sequence[str]) -> Upright:
    """Numbers by their size, if they are several; words evenly, the first the highest."""
    if len(distinct) < 3 or not is_numeric(distinct):
        step = 1 / len(distinct)
        place = {value: 1 - (number + 0.5) * step for number, value in enumerate(distinct)}
        ticks = [(place[value], brief(value)) for value in distinct]
        return Upright(title, [place[value] for value in values], ticks)
    numbers = [float(value) for value in distinct]
    shares = dict(zip(distinct, _shares(numbers), strict=True))
    shown = distinct if len(distinct) <= _MOST_TICKS else [distinct[0], distinct[-1]]
    ticks = [(shares[value] or 0.0, brief(value)) for value in shown]
    return Upright(title, [shares[value] for value in values], ticks)


def _metric_axis(metric: Metric, values: Sequence[float | None]) -> Upright:
    """From the lowest to the highest, so that up is better."""
    shares = _shares(values)
    if metric.less_is_better:
        shares = [None if share is None else 1 - share for share in shares]
    known = {
        value: share
        for value, share in zip(values, shares, strict=True)
        if value is not None and share is not None
    }
    ends = dict.fromkeys([min(known), max(known)]) if known else {}
    return Upright(metric.axis_title, shares, [(known[end], metric.text(end)) for end in ends])


def _shares(values: Sequence[float | None]) -> list[float | None]:
    """Where each value lies between the lowest and the highest; equal ones in the middle."""
    known = [value for value in values if value is not None]
    low, high = min(known, default=0.0), max(known, default=0.0)
    logarithmic = spans_sizes(low, high)

    def share(value: float) -> float:
        if high <= low:
            return 0.5
        if logarithmic:
            return math.log(value / low) / math.log(high / low)
        return (value - low) / (high - low)

    return [None if value is None else share(value) for value in values]


def _line(number: int) -> Figure:
    across = {"x0": number, "x1": number, "y0": 0, "y1": 1}
    return {"type": "line", "layer": "below", "line": {"color": SOFT, "width": 1}, **across}


def _tick(number: int, place: float, words: str) -> Figure:
    shown = words if len(words) <= 16 else words[:15] + "\u2026"
    return {
        "x": number,
        "y": place,
        "text": safe(shown),
        "showarrow": False,
        "xanchor": "left",
        "xshift": 7,
        "font": {"size": 11.5},
        "bgcolor": CARD,
        "opacity": 0.85,
        "borderpad": 1,
    }
