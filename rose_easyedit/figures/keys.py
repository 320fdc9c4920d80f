"""Figures of what an edit finds in a model: how alike its keys are, and how they are spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rose_easyedit.figures.canvas import BLUE, VERMILION, looks, new_figure
from rose_easyedit.files.amounts import counted
from rose_easyedit.geometry.similarity import KeySimilarity

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Further cells are there, but have no room for a label of their own.
_LABELLED_SUBJECTS = 32


def similarity_figure(similarity: KeySimilarity) -> Figure:
    """Heat map of the mean cosine between the keys of every two subjects and forms."""
    subjects = list(dict.fromkeys(subject for subject, _ in similarity.cells))
    rows = sorted(
        range(len(similarity.cells)), key=lambda i: subjects.index(similarity.cells[i][0])
    )
    forms = list(dict.fromkeys(form for _, form in similarity.cells))
    values = [[similarity.matrix[i][j] for j in rows] for i in rows]
    side = min(9.0, 3.2 + 0.11 * len(rows))
    figure, axes = new_figure(side + 0.9, side)
    low = min(0.0, min(map(min, values)))
    image = axes.imshow(values, cmap="cividis", vmin=low, vmax=1.0, interpolation="nearest")
    figure.colorbar(image, ax=axes, label="mean cosine", fraction=0.046, pad=0.03)
    of_row = [similarity.cells[i][0] for i in rows]
    starts = [of_row.index(subject) for subject in subjects]
    centers = [
        start + (of_row.count(subject) - 1) / 2
        for start, subject in zip(starts, subjects, strict=True)
    ]
    if len(subjects) <= _LABELLED_SUBJECTS:
        size = 8 if len(subjects) <= 12 else 6
        axes.set_xticks(centers, subjects, rotation=90, fontsize=size, parse_math=False)
        axes.set_yticks(centers, subjects, fontsize=size, parse_math=False)
    else:
        axes.set_xlabel("subjects")
        axes.set_ylabel("subjects")
    axes.tick_params(length=0)
    axes.grid(False)
    for start in starts[1:]:
        axes.axhline(start - 0.5, color="white", linewidth=0.8)
        axes.axvline(start - 0.5, color="white", linewidth=0.8)
    axes.set_title(
        f"Keys: cosine {_number(similarity.within)} within, {_number(similarity.across)} across "
        f"subjects\n(per subject: {', '.join(forms)})"
    )
    return figure


def spectrum_figure(spectra: Mapping[int, Sequence[float]]) -> Figure:
    """Eigenvalues of the generic keys' second moment, layer by layer, on log axes.

    Args:
        spectra: layer to eigenvalues in descending order.
    """
    figure, axes = new_figure()
    for (layer, values), look in zip(spectra.items(), looks(), strict=False):
        ranks = range(1, len(values) + 1)
        axes.plot(ranks, values, color=look.color, linestyle=look.dash, label=f"layer {layer}")
        axes.plot(
            ranks[:8], values[:8], color=look.color, marker=look.marker, markersize=4, linestyle=""
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("rank of the direction")
    axes.set_ylabel(r"eigenvalue of $E[k\,k^T]$ (squared key norm)")
    axes.set_title("Second moment of generic keys, layer by layer")
    axes.legend()
    return figure


def conflict_figure(scores: Sequence[float]) -> Figure:
    """Histogram of the conflict scores of the facts of one subject.

    Args:
        scores: 1 - |cos| of every pair, P.
    """
    from matplotlib.ticker import MaxNLocator

    figure, axes = new_figure()
    axes.hist(
        scores, bins=[i / 20 for i in range(21)], color=BLUE, edgecolor="white", linewidth=0.8
    )
    mean = sum(scores) / len(scores)
    axes.axvline(mean, color=VERMILION, linestyle="--", label=f"mean {mean:.2f}")
    axes.set_xlim(0, 1)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("conflict score, 1 - |cos| (1: orthogonal gradients)")
    axes.set_ylabel("pairs of facts of one subject")
    axes.set_title(f"Conflict of the facts of one subject, {counted(len(scores), 'pair')}")
    axes.legend(loc="upper left")
    return figure


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
