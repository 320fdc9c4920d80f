"""A diagnosis that nobody measured, with names that are hard to draw."""

from __future__ import annotations

from dataclasses import replace

from rose_easyedit.evaluation.facts import Fact
from rose_easyedit.geometry.conflict import Conflict
from rose_easyedit.geometry.diagnosis import Diagnosis
from rose_easyedit.geometry.edits import EditGeometry, QueryGeometry
from rose_easyedit.geometry.radius import Radius
from rose_easyedit.geometry.settings import DiagnosisSettings
from rose_easyedit.geometry.similarity import KeySimilarity

# what a name may hold that a label could take for markup, or hide
AWKWARD = "_A$AP & <b>$\\frac"
NAMES = ("deviation", "radius", "certificate", "landscape", "keys", "spectrum", "conflict")


def edit_geometry(name: str, scale: float = 1.0) -> EditGeometry:
    queries = tuple(
        QueryGeometry(fact, form, "?", scale * (5.0 + 3 * fact), 40.0, 50.0, 30.0, radius, "", ok)
        for fact, radius, ok in ((0, 9.0, True), (1, 7.0, False))
        for form in ("statement", "question")
    )
    radii = (Radius(scale * 9.0, 3.0, 30.0, 0.0), Radius(scale * 7.0, 2.0, 30.0, 0.1))
    losses = ((2.0, 0.1, 3.0), (4.0, 0.1, 1.0))
    return EditGeometry(name, queries, radii, losses)


def some_diagnosis() -> Diagnosis:
    own = edit_geometry("hierarchical, protected")
    return Diagnosis(
        settings=DiagnosisSettings(),
        facts=(Fact(AWKWARD, "", AWKWARD, "x", ""), Fact(AWKWARD, "", f"{AWKWARD} is", "x", "")),
        # the last shares the first's targets
        edits=(own, edit_geometry("joint, protected", 2.0), replace(own, name="covariance")),
        conflicts=(Conflict(AWKWARD, 0, 1, 0.97),),
        similarity=KeySimilarity(
            cells=((AWKWARD, "statement"), ("Newton", "statement"), (AWKWARD, "question")),
            matrix=((1.0, 0.2, 0.9), (0.2, 1.0, 0.3), (0.9, 0.3, 0.8)),
            within=0.9,
            across=None,
        ),
        landscape_subject=AWKWARD,
        landscape_radii=(-1.0, 0.0, 1.0),
        spectra={7: (900.0, 3.0, 0.5), 8: (20.0, 10.0, 0.1)},
        log=(),
    )
