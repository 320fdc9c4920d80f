"""Whether two sets of settings give the same edit of the same facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rose_easyedit.config.former_names import with_present_names

# Settings that say where an edit is computed and how it is judged, and not which one it is.
_INCIDENTAL = (
    *("model_name", "device", "model_parallel", "fp16"),
    *("batch_size", "max_length", "micro_batch", "tracking", "on_damage"),
)
# Settings that hold names of the user's own, and are one value.
_WHOLE = ("template_arguments",)
_INCIDENTAL_GROUP = "self_check."
_ABSENT = object()


def differences(kept: Mapping[str, Any], given: Mapping[str, Any]) -> Sequence[str]:
    """Settings that change an edit and differ, or that one of the two lacks, as text."""
    there, here = _telling(kept), _telling(given)
    return [
        f"{name} is {_shown(there, name)} there and {_shown(here, name)} here"
        for name in {**there, **here}
        if there.get(name, _ABSENT) != here.get(name, _ABSENT)
    ]


def missing_settings(kept: Mapping[str, Any]) -> Sequence[str]:
    """Settings of this version that change an edit, and that some from an earlier one lack."""
    from rose_easyedit.config.hparams import RoSEHyperParams

    own = _telling(kept)
    known = _telling(RoSEHyperParams(layers=[0]).as_dict())
    return [name for name in known if name not in own]


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings on one level, those of a group under `group.name`."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping) and name not in _WHOLE:
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def _telling(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that change an edit."""
    return {
        name: value
        for name, value in flat(with_present_names(settings)[0]).items()
        if name not in _INCIDENTAL and not name.startswith(_INCIDENTAL_GROUP)
    }


def _shown(settings: Mapping[str, Any], name: str) -> str:
    return repr(settings[name]) if name in settings else "missing"
