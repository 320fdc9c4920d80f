"""What a sweep's runs offer: faithful success in chat, against what else has moved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rose_easyedit.figures.canvas import BLUE, new_figure, save, style

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


def pareto_figure(points: Sequence[tuple[float, float]]) -> Figure:
    """Every run as a dot, and the front as a line; call inside `style`.

    Args:
        points: (success, KL) of each run.
    """
    figure, axes = new_figure()
    front = [points[index] for index in pareto_front(points)]
    axes.plot(
        [kl for _, kl in points],
        [success for success, _ in points],
        color="#999999",
        marker="o",
        markersize=4,
        linestyle="",
        label=f"runs ({len(points)})",
    )
    axes.plot(
        [kl for _, kl in front],
        [success for success, _ in front],
        color=BLUE,
        marker="o",
        markersize=5,
        drawstyle="steps-post",
        label=f"Pareto front ({len(front)})",
    )
    axes.set_xlim(left=0)
    axes.set_ylim(-0.03, 1.03)  # whole dots at either end
    axes.set_xlabel("KL divergence of other prompts (nats)")
    axes.set_ylabel("faithful answers to questions and instructions")
    axes.set_title("What the runs offer")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def write_pareto(points: Sequence[tuple[float, float]], folder: Path) -> list[Path]:
    """Writes the figure as `pareto.png` and `pareto.svg` into a folder, which is made.

    Raises:
        RoSEError: matplotlib is not installed.
    """
    with style():
        return save(pareto_figure(points), folder, "pareto")
