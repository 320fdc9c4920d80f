"""What the unedited model answers by itself: the bound of what an edit of it can show.

A model that knows a true fact may still not answer a question about it; an edit cannot show there
either. The rates are measured on true facts by `benchmarks/native_consistency.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

from rose_easyedit.evaluation.facts import CORE
from rose_easyedit.models.fingerprint import model_fingerprint

# (relation, form) to the fraction of known facts that the unedited model answers in that form.
NativeRates = Mapping[tuple[str, str], float]

# Below this a relation is not one that the model can be asked about in that form.
LEAST_RATE = 0.5


_FILES = {"core": "native_consistency.json", "wide": "native_consistency_wide.json"}


def bundled_native_rates(model: Any, name: str = CORE) -> NativeRates | None:
    """The rates of a bundled set's relations, if they were measured on this very model."""
    path = resources.files("rose_easyedit.evaluation") / "data" / _FILES[name]
    measured = json.loads(path.read_text(encoding="utf-8"))
    if model_fingerprint(model) != measured["model_fingerprint"]:
        return None
    return {
        (relation, form): rate
        for relation, rates in measured["rates"].items()
        for form, rate in rates.items()
    }
