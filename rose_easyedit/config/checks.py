"""Which settings are not what they are declared to be."""

from __future__ import annotations

from typing import Any

from rose_easyedit.config.rules import setting_fault


def setting_faults(settings: Any, prefix: str = "") -> list[str]:
    """Every setting that is not what it is declared to be, with its value and what would do.

    Args:
        settings: a group of settings; inner groups are not looked into.
        prefix: of the names.
    """
    return [
        setting_fault(settings, name, getattr(settings, name), prefix) for name in unfit(settings)
    ]


def unfit(settings: Any) -> list[str]:
    """The names of the settings of one group with another type or value than declared."""
    # here, since its import takes as long as the rest of a command's start
    from rose_easyedit.config.reader import unfit_fields

    return unfit_fields(settings)
