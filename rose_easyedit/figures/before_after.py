"""What edits changed and what they left: shares of answers, one group of bars a question's kind."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rose_easyedit.figures.canvas import looks, new_panels, save, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Shares = Mapping[str, float]


def before_after_figure(written: Mapping[str, Shares], kept: Mapping[str, Shares]) -> Figure:
    """Bars for what shall be new, and for what shall stay; call inside `style`.

    Args:
        written: of each method, the share of faithful answers by form; 0 before an edit.
        kept: of each method, the share of what is as before, by what it is; 1 before an edit.
    """
    figure, (left, right) = new_panels(2, width=8.0, height=2.9, widths=(3, 2))
    _bars(left, written)
    _bars(right, kept)
    left.set_title("The new facts, asked for (before: 0)")
    left.set_ylabel("faithful answers")
    right.set_title("All else (before: 1)")
    right.set_ylabel("as before")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


def _bars(axes: Axes, shares: Mapping[str, Shares]) -> None:
    """A group of bars for each kind, a bar for each method, its share above it."""
    kinds = list(next(iter(shares.values())))
    width = 0.8 / len(shares)
    for place, ((name, of_method), look) in enumerate(zip(shares.items(), looks(), strict=False)):
        bars = axes.bar(
            [group + (place - (len(shares) - 1) / 2) * width for group in range(len(kinds))],
            [of_method[kind] for kind in kinds],
            width=0.92 * width,
            color=look.color,
            hatch=look.hatch,
            edgecolor="white",
            label=name,
        )
        axes.bar_label(bars, fmt="{:.2f}", padding=2, fontsize=8)
    axes.set_xticks(range(len(kinds)), kinds)
    axes.tick_params(axis="x", length=0)
    axes.grid(visible=False, axis="x")
    axes.set_ylim(0, 1.12)  # room for the numbers
    axes.set_yticks([0, 0.5, 1])


def write_before_after(
    written: Mapping[str, Shares], kept: Mapping[str, Shares], folder: Path
) -> list[Path]:
    """Writes the figure as `before_after.png` and `before_after.svg` into a folder, which is made.

    Args:
        written: as `before_after_figure`.
        kept: likewise.
        folder: where the files go.

    Raises:
        RoSEError: matplotlib is not installed.
        DiskError: a file cannot be written.
    """
    with style():
        return save(before_after_figure(written, kept), folder, "before_after")
