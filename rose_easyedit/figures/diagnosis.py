"""All figures of a diagnosis, written into a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rose_easyedit.figures.canvas import save, style
from rose_easyedit.figures.edits import (
    certificate_figure,
    deviation_figure,
    landscape_figure,
    radius_figure,
)
from rose_easyedit.figures.keys import conflict_figure, similarity_figure, spectrum_figure
from rose_easyedit.geometry.diagnosis import Diagnosis

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_figures(diagnosis: Diagnosis, folder: Path) -> list[Path]:
    """Writes every figure that the diagnosis has numbers for, as PNG and SVG.

    Edits that share their targets have one radius and one landscape, which are drawn once.

    Args:
        diagnosis: what was measured.
        folder: an existing folder.

    Returns:
        The files written.

    Raises:
        RoSEError: matplotlib is not installed.
    """
    own = diagnosis.edits[0]
    deviations = {
        edit.name: {
            form: [q.deviation for q in edit.queries if q.form == form] for form in edit.forms
        }
        for edit in diagnosis.edits
    }
    scores = [conflict.score for conflict in diagnosis.conflicts]
    first_with = {edit.radii: edit for edit in reversed(diagnosis.edits)}
    different = [edit for edit in diagnosis.edits if first_with[edit.radii] is edit]
    radii = {edit.name: [r.radius for r in edit.radii] for edit in different}
    losses = {edit.name: edit.losses for edit in different}
    figures: dict[str, Callable[[], Figure]] = {
        "deviation": lambda: deviation_figure(deviations, radii),
        "radius": lambda: radius_figure(radii),
        "certificate": lambda: certificate_figure(
            [q.deviation for q in own.queries],
            [q.radius for q in own.queries],
            [q.answered for q in own.queries],
        ),
        "landscape": lambda: landscape_figure(
            diagnosis.landscape_subject, diagnosis.landscape_radii, losses
        ),
        "keys": lambda: similarity_figure(diagnosis.similarity),
        "spectrum": lambda: spectrum_figure(diagnosis.spectra),
    }
    if scores:
        figures["conflict"] = lambda: conflict_figure(scores)
    with style():
        return [path for name, draw in figures.items() for path in save(draw(), folder, name)]
