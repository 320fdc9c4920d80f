"""Whether two sets of settings give the same edit of the same facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# Settings that say where an edit is computed, and not which one.
_INCIDENTAL = (
    *("model_name", "device", "model_parallel", "fp16"),
    *("batch_size", "max_length", "micro_batch", "tracking"),
)


def differences(kept: Mapping[str, Any], given: Mapping[str, Any]) -> Sequence[str]:
    """Settings that change an edit and differ, as text."""
    faults = []
    for name, value in kept.items():
        other = given.get(name)
        if name in _INCIDENTAL or value == other:
            continue
        pairs = {name: (value, other)}
        if isinstance(value, Mapping) and isinstance(other, Mapping):
            pairs = {f"{name}.{key}": (value[key], other.get(key)) for key in value}
        faults += [
            f"{n} is {old!r} there and {new!r} here"
            for n, (old, new) in pairs.items()
            if old != new
        ]
    return faults
