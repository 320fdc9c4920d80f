"""What all figures share: colours that the colour-blind tell apart, a canvas, and how it is saved.

No figure is known to pyplot, and none depends on the user's matplotlib settings.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rose_easyedit.errors import RoSEError
from rose_easyedit.files.writing import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, the yellow left out, which is lost on white
BLUE, VERMILION, GREEN = "#0072B2", "#D55E00", "#009E73"
_COLOURS = (BLUE, VERMILION, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# printed in grey, lines are told apart by their dashes and points by their shape
_DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 3)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_HATCHES = ("", "///", "...", "xxx", "\\\\\\", "+++", "ooo")

_STYLE: dict[str, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "hatch.linewidth": 0.6,
    # ids in an SVG would otherwise be random
    "svg.hashsalt": "rose-easyedit",
}

# From this ratio of the largest to the smallest, an axis of positive numbers is logarithmic.
_WIDE = 20.0


class Look(NamedTuple):
    """How one of several series is drawn."""

    color: str
    dash: Any
    marker: str
    hatch: str


def looks() -> Iterable[Look]:
    """One look after another, without end."""
    return map(Look, *map(cycle, (_COLOURS, _DASHES, _MARKERS, _HATCHES)))


def spans_sizes(low: float, high: float) -> bool:
    """Whether numbers from one to the other are of several sizes, and their axis logarithmic."""
    return low > 0 and high / low >= _WIDE


def require_matplotlib() -> None:
    """Finds out whether figures can be drawn.

    Raises:
        RoSEError: matplotlib is not installed, with the command that installs it.
    """
    if find_spec("matplotlib") is None:
        raise RoSEError(
            "Figures need matplotlib, which is not installed: pip install 'rose-easyedit[figures]'"
        )


def style() -> AbstractContextManager[None]:
    """The settings of every figure, on top of matplotlib's defaults; the user's are put back."""
    require_matplotlib()
    from matplotlib.style import context

    return context(["default", _STYLE])


def new_figure(width: float = 4.8, height: float = 3.4) -> tuple[Figure, Axes]:
    """A figure and its empty axes; call inside `style`.

    Args:
        width: in inches.
        height: in inches.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def new_panels(
    number: int, width: float = 8.0, height: float = 3.4, widths: Sequence[float] | None = None
) -> tuple[Figure, Sequence[Axes]]:
    """A figure and several empty axes side by side; call inside `style`.

    Args:
        number: of axes, two at the least.
        width: in inches, of all of them.
        height: in inches.
        widths: of the axes, relative to each other; None makes them equal.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(1, number, width_ratios=widths))


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Writes a figure as PNG and SVG; equal figures are equal files. Call inside `style`.

    Raises:
        DiskError: one of them cannot be written; nothing is left of it.
    """
    kinds: dict[str, dict[str, Any]] = {
        "png": {"dpi": 200, "metadata": {"Software": None}},
        "svg": {"metadata": {"Date": None, "Creator": None}},
    }
    paths = []
    for kind, settings in kinds.items():
        paths.append(folder / f"{name}.{kind}")
        with whole_file(paths[-1]) as part:
            figure.savefig(part, format=kind, **settings)
    return paths
