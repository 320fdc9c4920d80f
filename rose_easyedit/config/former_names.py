"""Settings under the names that they had a release ago."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# (group, former name) to the name that it has now; they go with the release after this one.
FORMER_NAMES = {("hierarchy", "context_turns"): "context_batches"}


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
    return present, told
