"""Amounts in words: how many of what, and how long."""

from __future__ import annotations


def counted(number: int, thing: str, several: str = "") -> str:
    """A number with its noun: "1 job", "2 jobs".

    Args:
        number: how many there are.
        thing: the word for one.
        several: the word for others than one; `thing` with an s if empty.
    """
    return f"{number:,} {thing if number == 1 else several or thing + 's'}"


def duration(seconds: float) -> str:
    """A time as people say it: "4.3 s", "3 min 20 s", "2 h 5 min"; never less than nothing."""
    if seconds < 59.95:
        return f"{max(seconds, 0.0):.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, over = divmod(minutes, 60)
    if not hours:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    return f"{hours:,} h {over} min" if over else f"{hours:,} h"
