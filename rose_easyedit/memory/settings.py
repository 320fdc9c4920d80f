"""The settings of a memory: fixed when it is begun, since its targets depend on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rose_easyedit.errors import RoSEError
from rose_easyedit.settings_compared import differences


def check_same(kept: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Refuses settings that would give other edits than those of the memory."""
    if faults := differences(kept, given):
        raise RoSEError.of(
            "The memory was begun with other settings; leave the settings out, or begin another "
            "memory:",
            faults,
        )
