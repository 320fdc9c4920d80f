"""The settings of a memory: fixed when it is begun, since its targets depend on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rose_easyedit.errors import RoSEError

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


def check_same(kept: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Refuses settings that would give other edits than those of the memory."""
    if faults := differences(kept, given):
        raise RoSEError.of(
            "The memory was begun with other settings; leave the settings out, or begin another "
            "memory:",
            faults,
        )
