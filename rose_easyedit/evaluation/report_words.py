"""Numbers as the tables and pages of an evaluation show them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

UNKNOWN = "\u2013"


def percent(value: float | None) -> str:
    """A rate."""
    return UNKNOWN if value is None else f"{value:.0%}"


def number(value: Any, digits: int = 3) -> str:
    """A number."""
    if value is None:
        return UNKNOWN
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def with_interval(rate: float | None, interval: Sequence[float] | None) -> str:
    """A rate and its interval, if it has one."""
    if rate is None or interval is None:
        return percent(rate)
    low, high = interval
    return f"{rate:.0%} [{100 * low:.0f}\u2013{100 * high:.0f}]"


def points(value: float | None) -> str:
    """A difference of rates in percentage points."""
    return UNKNOWN if value is None else f"{100 * value:+.0f}"
