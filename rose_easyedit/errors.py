"""The package's errors: what was wrong, the value, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from reprlib import Repr
from typing import Any


class RoSEError(ValueError):
    """Any fault that the caller can mend; the message says how."""

    @classmethod
    def of(cls, title: str, faults: Sequence[str]) -> RoSEError:
        """One error that reports several faults together, one line each."""
        return cls("\n".join([title, *(f"  - {fault}" for fault in faults)]))


class FactError(RoSEError):
    """A fault of some facts themselves: the model cannot be made to know them; others it can."""


def shown(value: Any) -> str:
    """A value as a message shows it: shortened where it is long or deep, control codes escaped."""
    short = Repr()
    short.maxstring = short.maxother = short.maxlong = 300
    return short.repr(value)
