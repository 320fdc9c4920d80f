"""Whether two sets of settings give the same edit of the same facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# Settings that say where an edit is computed, and not which one.
_INCIDENTAL = (
    *("model_name", "device", "model_parallel", "fp16"),
    *("batch_size", "max_length", "micro_batch", "tracking"),
)
_ABSENT = object()


def differences(kept: Mapping[str, Any], given: Mapping[str, Any]) -> Sequence[str]:
    """Settings that change an edit and differ, or that one of the two lacks, as text."""
    there, here = _flat(kept), _flat(given)
    return [
        f"{name} is {_shown(there, name)} there and {_shown(here, name)} here"
        for name in {**there, **here}
        if there.get(name, _ABSENT) != here.get(name, _ABSENT)
    ]


def missing_settings(kept: Mapping[str, Any]) -> Sequence[str]:
    """Settings of this version that change an edit, and that some from an earlier one lack."""
    from rose_easyedit.hparams import RoSEHyperParams

    own = _flat(kept)
    known = _flat(RoSEHyperParams(layers=[0]).as_dict())
    return [name for name in known if name not in own]


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that change an edit, those of a group under `group.name`."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= {f"{name}.{key}": inner for key, inner in value.items()}
        elif name not in _INCIDENTAL:
            found[name] = value
    return found


def _shown(settings: Mapping[str, Any], name: str) -> str:
    return repr(settings[name]) if name in settings else "missing"
