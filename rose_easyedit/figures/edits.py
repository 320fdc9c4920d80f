"""Figures of what an edit did: D, R, which queries it answers, and the loss around its targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from rose_easyedit.figures.canvas import BLUE, GREEN, VERMILION, looks, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_UNIT = "distance of hidden states"
# Of an axis, beyond its last point: so much that no mark is cut.
_ROOM = 1.1
# Two columns of longer ones do not fit side by side.
_LONG_LABEL = 40


def deviation_figure(
    deviations: Mapping[str, Mapping[str, Sequence[float]]], radii: Mapping[str, Sequence[float]]
) -> Figure:
    """Mean D of each edit and form as bars, against mean R as lines.

    Args:
        deviations: edit to form to D of its queries.
        radii: edit to R of its facts; edits that share their targets need be there once only.
    """
    forms = list(dict.fromkeys(form for by_form in deviations.values() for form in by_form))
    figure, axes = new_figure(1.8 + 0.9 * max(4, len(forms)), 4.0)
    width = 0.8 / len(deviations)
    for place, ((name, by_form), look) in enumerate(zip(deviations.items(), looks(), strict=False)):
        left = [i - 0.4 + width * (place + 0.5) for i, form in enumerate(forms) if form in by_form]
        heights = [fmean(by_form[form]) for form in forms if form in by_form]
        bars = axes.bar(
            left, heights, 0.92 * width, color=look.color, hatch=look.hatch, edgecolor="white"
        )
        axes.bar_label(bars, fmt="%.0f", fontsize=7, padding=1)
        bars.set_label(f"D: {name}")
        if name in radii:
            mean = fmean(radii[name])
            line = axes.axhline(mean, color=look.color, linestyle=look.dash, linewidth=1.2)
            line.set_label(f"mean R: {name} ({mean:.0f})")
    axes.set_xticks(range(len(forms)), forms, parse_math=False)
    axes.grid(False, axis="x")
    axes.set_ylabel(f"mean deviation D ({_UNIT})")
    axes.set_title("Where queries land, against what the targets tolerate")
    handles, labels = axes.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda i: labels[i].startswith("mean R"))
    figure.legend(
        [handles[i] for i in order],
        [labels[i] for i in order],
        loc="outside lower center",
        ncols=1 if max(map(len, labels)) > _LONG_LABEL else 2,
        fontsize=8,
    )
    return figure


def radius_figure(radii: Mapping[str, Sequence[float]]) -> Figure:
    """R of every fact as a dot, with a box from quartile to quartile and its median, edit by edit.

    Args:
        radii: edit to R of its facts.
    """
    import numpy as np

    figure, axes = new_figure(2.2 + 1.3 * len(radii))
    values = list(radii.values())
    for place, (each, look) in enumerate(zip(values, looks(), strict=False), start=1):
        low, median, high = np.quantile(each, (0.25, 0.5, 0.75))
        axes.bar(place, high - low, 0.5, low, facecolor="#eeeeee", edgecolor="#777777")
        axes.hlines(median, place - 0.25, place + 0.25, color="black")
        # spread side by side, so that equal figures are equal files
        offsets = [0.36 * (i / max(1, len(each) - 1) - 0.5) for i in range(len(each))]
        axes.plot(
            [place + offset for offset in offsets],
            each,
            color=look.color,
            marker=look.marker,
            markersize=4,
            linestyle="",
        )
    labels = [f"{name}\nmean {fmean(each):.0f}" for name, each in radii.items()]
    axes.set_xticks(range(1, len(values) + 1), labels, parse_math=False)
    axes.set_xlim(0.4, len(values) + 0.6)
    axes.grid(False, axis="x")
    axes.set_ylim(0, _ROOM * max(map(max, values)) or 1.0)
    axes.set_ylabel(f"tolerance radius R ({_UNIT})")
    axes.set_title("What the targets tolerate, fact by fact")
    return figure


def certificate_figure(
    deviations: Sequence[float], radii: Sequence[float], answered: Sequence[bool]
) -> Figure:
    """D against R of every query, marked by whether it was answered; D = R divides them.

    On log axes, since one query that lands far off would leave the others in a corner; what has no
    logarithm is at the edge.

    Args:
        deviations: D of each query, Q.
        radii: R of each query's fact, Q.
        answered: whether the edited model answered it, Q.
    """
    from matplotlib.ticker import LogFormatter, ScalarFormatter

    figure, axes = new_figure(4.8, 4.0)
    axes.set_xscale("log")
    axes.set_yscale("log")
    (left, right), (bottom, top) = _log_limits(deviations), _log_limits(radii)
    kinds = ((True, "answered", GREEN, "o"), (False, "not answered", VERMILION, "x"))
    for mark, label, color, marker in kinds:
        chosen = [i for i, a in enumerate(answered) if a == mark]
        axes.plot(
            [max(deviations[i], left) for i in chosen],
            [max(radii[i], bottom) for i in chosen],
            color=color,
            marker=marker,
            markersize=5,
            markerfacecolor="none",
            linestyle="",
            label=f"{label} ({len(chosen)})",
        )
    ends = [min(left, bottom), max(right, top)]
    axes.plot(ends, ends, color="black", linewidth=0.8, linestyle="--")
    axes.fill_between(
        ends,
        ends,
        ends[1],
        color=BLUE,
        alpha=0.1,
        linewidth=0,
        label="certified, D \u2264 R",
    )
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    for axis in (axes.xaxis, axes.yaxis):  # of less than a decade, the numbers between are wanted
        axis.set_major_formatter(ScalarFormatter())
        axis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.5)))
    axes.set_xlabel(f"deviation D of the query ({_UNIT})")
    axes.set_ylabel(f"radius R of its fact ({_UNIT})")
    axes.set_title("Does landing within the radius mean an answer?")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def _log_limits(values: Sequence[float]) -> tuple[float, float]:
    """The ends of a logarithmic axis around what can be on it, at least a factor of 4 apart."""
    positive = [value for value in values if value > 0] or [1.0]
    low, high = min(positive), max(positive)
    beyond = max(_ROOM**2, (4 * low / high) ** 0.5)
    return low / beyond, high * beyond


def landscape_figure(
    subject: str, radii: Sequence[float], losses: Mapping[str, Sequence[Sequence[float]]]
) -> Figure:
    """Loss around the targets: the mean over directions, and the band between their extremes.

    Args:
        subject: whose facts.
        radii: in multiples of |h|, P.
        losses: edit to losses [directions, P].
    """
    figure, axes = new_figure()
    for (name, rows), look in zip(losses.items(), looks(), strict=False):
        columns = list(zip(*rows, strict=True))
        axes.fill_between(
            radii,
            list(map(min, columns)),
            list(map(max, columns)),
            color=look.color,
            alpha=0.15,
            linewidth=0,
        )
        axes.plot(
            radii, list(map(fmean, columns)), color=look.color, linestyle=look.dash, label=name
        )
    axes.set_ylim(bottom=0)
    axes.set_xlim(min(radii), max(radii))
    axes.set_xlabel("distance from the target along a random direction, r / |h|")
    axes.set_ylabel("mean loss (nats per target token)")
    axes.set_title(f"Loss landscape of {subject}", parse_math=False)
    axes.legend(loc="upper center")
    return figure
