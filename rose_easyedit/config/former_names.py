"""Settings under the names that they had a release ago."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# (group, former name) to the name that it has now; they go with the release after this one.
FORMER_NAMES = {("hierarchy", "context_turns"): "context_batches"}

_FORMER_CONSTRAINT = "isotropic"


def with_present_names(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Settings under the names of this release, and what was renamed, in words.

    A setting that is given under both names is left under both, and so refused as unknown.

    Args:
        values: nested settings, as a file or an earlier edit has them.
    """
    present, told = dict(values), []
    for (group, former), name in FORMER_NAMES.items():
        inner = present.get(group)
        if isinstance(inner, Mapping) and former in inner and name not in inner:
            present[group] = {name if key == former else key: of for key, of in inner.items()}
            told.append(f"{group}.{former} is {group}.{name} now")
    alignment = present.get("alignment")
    if isinstance(alignment, Mapping) and alignment.get("constraint") == _FORMER_CONSTRAINT:
        name = _present_constraint(alignment)
        present["alignment"] = {**alignment, "constraint": name}
        told.append(f"alignment.constraint {_FORMER_CONSTRAINT} is {name} now")
    return present, told


def _present_constraint(alignment: Mapping[str, Any]) -> str:
    """It protected some directions, or none."""
    number = alignment.get("protected_directions")
    none = number == 0 or (number is None and alignment.get("protected_share") == 0)
    return "identity" if none else "protected"
