"""What a run's `diagnosis.json` says in total, of the types that a page works with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rose_easyedit.files.plain import is_number
from rose_easyedit.files.reading import inside, read_json
from rose_easyedit.tracking.layout import DIAGNOSIS_FILE


@dataclass(frozen=True)
class RunGeometry:
    """The totals of a run's diagnosis; None is what there was nothing to measure for.

    Attributes:
        forms: form of a query to the mean deviation D of such queries.
        deviation: D over all queries.
        radius: R, the mean over facts.
        accuracy: how often D <= R tells whether a query is answered.
        conflict: of the facts of a subject, the mean over pairs.
        within: mean cosine of two keys of one subject.
        across: mean cosine of the keys of two subjects.
    """

    forms: Mapping[str, float | None]
    deviation: float | None
    radius: float | None
    accuracy: float | None
    conflict: float | None
    within: float | None
    across: float | None

    @classmethod
    def read(cls, folder: Path) -> RunGeometry | None:
        """Of the run in a folder; None if it has no diagnosis.

        Raises:
            OSError, ValueError, LookupError, TypeError, AttributeError: it is damaged.
        """
        path = inside(folder, folder / DIAGNOSIS_FILE)
        if not path.is_file():
            return None
        summary = read_json(path)["summary"]
        own, *_ = summary["edits"].values()
        return cls(
            forms={form: _number(of["deviation"]) for form, of in own["forms"].items()},
            deviation=_number(own["all"]["deviation"]),
            radius=_number(own["radius"]["mean"]),
            accuracy=_number(own["all"]["accuracy"]),
            conflict=_number(summary["conflict"]["mean"]),
            within=_number(summary["key_cosine"]["within"]),
            across=_number(summary["key_cosine"]["across"]),
        )


def _number(value: Any) -> float | None:
    if value is not None and not is_number(value):
        raise TypeError(f"{type(value).__name__} in place of a number")
    return None if value is None else float(value)
