"""Pictures of a sweep's report as Plotly reads them: plain data, drawn by the page's script.

A colour is a name of the style sheet, `var(--ink)`: the page puts in that of the reader's scheme.
Plotly reads a few tags and entities in words, so all that a file or a user said is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from textwrap import wrap
from typing import Any

from rose_easyedit.experiment.report_data import Sweep
from rose_easyedit.experiment.report_metrics import Metric
from rose_easyedit.experiment.report_settings import Looks, brief, label
from rose_easyedit.experiment.summary_table import RunRow

INK, SOFT, LINE, CARD = "var(--ink)", "var(--soft)", "var(--line)", "var(--card)"
SYMBOLS = ("circle", "square", "triangle-up", "diamond")
_DASHES = ("solid", "dash", "dot", "dashdot")
Figure = dict[str, Any]


@dataclass(frozen=True)
class Chart:
    """A picture, and its numbers as a table.

    Attributes:
        title: what it shows, in words.
        figure: `data` and `layout`, as Plotly has them.
        head: of the table; empty if the table of all jobs has the numbers.
        rows: of the table.
        height: in pixels.
        least_width: in pixels; on a narrower screen it scrolls in its box.
        most_width: in pixels.
        metric: the name of the metric that it shows, where a reader chooses one.
    """

    title: str
    figure: Figure
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    height: int = 340
    least_width: int = 0
    most_width: int = 1400
    metric: str = ""


def safe(words: str) -> str:
    """Words that Plotly shows as they are."""
    return escape(words, quote=False)


def job_trace(
    row: RunRow,
    looks: Looks,
    points: Sequence[tuple[float, float | None]],
    hover: str,
    *,
    mode: str,
) -> Figure:
    """A job's line or points; the page finds the job by the trace's `uid`.

    Args:
        row: the job.
        looks: colours and shapes.
        points: x and y; a line is broken where y is None.
        hover: what is said where it is pointed at; escaped already.
        mode: `lines`, `markers` or both, as Plotly has them.
    """
    colour = f"var(--c{looks.colour(row)})"
    shape = looks.shape(row)
    return {
        "type": "scatter",
        "uid": f"job{row.number}",
        "name": safe(label(row)),
        "x": [x for x, _ in points],
        "y": [y for _, y in points],
        "mode": mode,
        "line": {"color": colour, "width": 2, "dash": _DASHES[shape]},
        "marker": _marker(colour, shape),
        "unselected": {"marker": {"opacity": 1}},
        "hovertext": hover,
        "hoverinfo": "text",
        "showlegend": False,
    }


def legend_traces(looks: Looks, names: Mapping[str, str]) -> list[Figure]:
    """Samples of what colours and shapes tell; they draw nothing but the legend."""
    coloured = [(f"var(--c{number})", 0, value) for number, value in enumerate(looks.colours)]
    shaped = [(SOFT, number, value) for number, value in enumerate(looks.shapes)]
    told = [(looks.colour_key, coloured), (looks.shape_key, shaped)]
    return [
        {
            "type": "scatter",
            "x": [None],
            "y": [None],
            "name": safe(brief(value)),
            "mode": "lines+markers",
            "line": {"color": colour, "width": 2, "dash": _DASHES[shape]},
            "marker": _marker(colour, shape),
            "legendgroup": f"{number}",
            "legendgrouptitle": {"text": safe(names[key])},
            "hoverinfo": "skip",
        }
        for number, (key, samples) in enumerate(told)
        if key
        for colour, shape, value in samples
    ]


def layout(x: Figure, y: Figure, **more: Any) -> Figure:
    """What all pictures have in common.

    Args:
        x: the axis, as `axis` makes it.
        y: the same.
        more: of Plotly's layout.
    """
    return {
        "autosize": True,
        "font": {"color": INK, "size": 13, "family": "system-ui, sans-serif"},
        "paper_bgcolor": CARD,
        "plot_bgcolor": CARD,
        "margin": {"l": 60, "r": 16, "t": 16, "b": 48},
        "hovermode": "closest",
        "hoverlabel": {
            "align": "left",
            "bgcolor": CARD,
            "bordercolor": SOFT,
            "font": {"color": INK},
        },
        "legend": {
            "orientation": "h",
            "x": 0,
            "y": 1.02,
            "yanchor": "bottom",
            "itemclick": False,
            "itemdoubleclick": False,
            "bgcolor": CARD,
        },
        "xaxis": x,
        "yaxis": y,
        **more,
    }


def axis(title: str, **more: Any) -> Figure:
    """An axis with its title, which is escaped, in lines that a narrow screen has room for."""
    return {
        "title": {"text": "<br>".join(map(safe, wrap(title, 34))), "standoff": 8},
        "gridcolor": LINE,
        "zerolinecolor": LINE,
        "linecolor": SOFT,
        "tickfont": {"color": SOFT},
        "automargin": True,
        **more,
    }


def metrics_text(sweep: Sweep, row: RunRow, metrics: Sequence[Metric]) -> str:
    """What is said of a job where it is pointed at: a line for each metric; escaped."""
    evaluation = sweep.run(row).evaluation
    intervals = evaluation.intervals if evaluation else {}
    lines = [
        f"{metric.title}: {metric.text(row.metrics[metric.name], intervals.get(metric.name))}"
        for metric in metrics
        if row.metrics.get(metric.name) is not None
    ]
    return "<br>".join([f"<b>{safe(label(row))}</b>", *map(safe, lines)])


def _marker(colour: str, shape: int) -> Figure:
    return {
        "color": colour,
        "symbol": SYMBOLS[shape],
        "size": 9,
        "opacity": 1,
        "line": {"color": CARD, "width": 1},
    }
