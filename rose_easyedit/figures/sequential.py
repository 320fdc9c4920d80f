"""Batches one after another: what is answered after each, and what else has moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rose_easyedit.figures.canvas import looks, new_panels, save, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Point(NamedTuple):
    """What was measured after a batch.

    Attributes:
        facts: written so far.
        success: of the queries for all of them, the share of faithful answers.
        kl: drift of other prompts (nats).
    """

    facts: int
    success: float
    kl: float


def sequential_figure(ways: Mapping[str, Sequence[Point]]) -> Figure:
    """Success and drift against the number of facts; call inside `style`.

    Args:
        ways: of writing the batches, each with its points, one for each batch; a way with one
            point is drawn as a mark.
    """
    figure, (left, right) = new_panels(2)
    for (name, points), look in zip(ways.items(), looks(), strict=False):
        for axes, values in (
            (left, [point.success for point in points]),
            (right, [point.kl for point in points]),
        ):
            axes.plot(
                [point.facts for point in points],
                values,
                color=look.color,
                linestyle=look.dash if len(points) > 1 else "",
                marker=look.marker,
                markersize=4 if len(points) > 1 else 8,
                markerfacecolor=look.color if len(points) > 1 else "none",
                label=name if axes is left else None,
            )
    for axes in (left, right):
        axes.set_xlim(left=0)
        axes.set_xlabel("facts written")
    left.set_ylim(-0.03, 1.03)  # whole marks at either end
    left.set_ylabel("faithful answers, of all facts so far")
    right.set_ylim(bottom=0)
    right.set_ylabel("KL divergence of other prompts (nats)")
    figure.suptitle("Batches one after another")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def write_sequential(ways: Mapping[str, Sequence[Point]], folder: Path) -> list[Path]:
    """Writes the figure as `sequential.png` and `sequential.svg` into a folder, which is made.

    Raises:
        RoSEError: matplotlib is not installed.
    """
    with style():
        return save(sequential_figure(ways), folder, "sequential")
