"""What a sweep's runs offer: faithful success in chat, against what else has moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rose_easyedit.figures.canvas import looks, new_figure, save, spans_sizes, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """The points that no other one betters: more success at no more KL, or as much at less.

    Args:
        points: (success, KL) of each run.

    Returns:
        Their indices, by rising KL; of equal points the first.
    """
    front: list[int] = []
    by_kl = sorted(range(len(points)), key=lambda i: (points[i][1], -points[i][0]))
    for index in by_kl:
        if not front or points[index][0] > points[front[-1]][0]:
            front.append(index)
    return front


def pareto_figure(series: Mapping[str, Sequence[tuple[float, float]]]) -> Figure:
    """Every run as a dot, one look for each series, and the front as a line; call inside `style`.

    Args:
        series: name to the (success, KL) of its runs.
    """
    from matplotlib.ticker import LogLocator

    figure, axes = new_figure()
    points = [point for of_series in series.values() for point in of_series]
    front = [points[index] for index in pareto_front(points)]
    axes.plot(
        [kl for _, kl in front],
        [success for success, _ in front],
        color="#999999",
        drawstyle="steps-post",
        label="Pareto front",
        zorder=1,
    )
    for (name, runs), look in zip(series.items(), looks(), strict=False):
        axes.plot(
            [kl for _, kl in runs],
            [success for success, _ in runs],
            color=look.color,
            marker=look.marker,
            markersize=5,
            linestyle="",
            label=f"{name} ({len(runs)})".replace("$", r"\$"),  # it is no formula
        )
    drifts = [kl for _, kl in points]
    if spans_sizes(min(drifts), max(drifts)):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
    else:
        axes.set_xlim(left=0)
    axes.set_ylim(-0.03, 1.03)  # whole dots at either end
    axes.set_xlabel("KL divergence of other prompts (nats)")
    axes.set_ylabel("faithful questions and instructions")
    axes.set_title("What the runs offer")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def write_pareto(series: Mapping[str, Sequence[tuple[float, float]]], folder: Path) -> list[Path]:
    """Writes the figure as `pareto.png` and `pareto.svg` into a folder, which is made.

    Args:
        series: as `pareto_figure` has them; one point at the least.
        folder: where to.

    Raises:
        RoSEError: matplotlib is not installed.
    """
    with style():
        return save(pareto_figure(series), folder, "pareto")
