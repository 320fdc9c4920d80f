"""What values a setting takes, where it is declared: its type, bounds, or a choice of words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field, fields
from typing import Any

from rose_easyedit.errors import shown

# In a field's metadata: pydantic's names of the bounds, and the words that there are.
BOUNDS, WORDS = "bounds", "words"


def setting(
    default: Any,
    *,
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
    most: float | None = None,
    words: Sequence[str] = (),
) -> Any:
    """A dataclass's field with a default, and what it may be beside its type.

    Args:
        default: the value where none is given.
        above: the value is greater.
        least: it is no smaller.
        below: it is smaller.
        most: it is no greater.
        words: it is one of them.
    """
    bounds = {"gt": above, "ge": least, "lt": below, "le": most}
    known = {name: bound for name, bound in bounds.items() if bound is not None}
    return field(default=default, metadata={BOUNDS: known, WORDS: tuple(words)})


def setting_fault(schema: Any, name: str, value: Any, prefix: str = "") -> str:
    """What is said of a value that is not what a setting is declared to be."""
    declared = next(each for each in fields(schema) if each.name == name)
    kind, _, none = str(declared.type).partition(" | ")
    if words := declared.metadata.get(WORDS):
        wanted = f"choose one of {', '.join(words)}"
    else:
        bounds = declared.metadata.get(BOUNDS, {})
        told = _of_whole_numbers(bounds) if kind == "int" else _told(bounds)
        wanted = f"give {_NAMES.get(kind, kind)} {told}".rstrip()
    return f"{prefix}{name} is {shown(value)}; {wanted}{', or null' if none else ''}"


def is_series(value: Any) -> bool:
    """Whether a value is a list or the like, which text is not meant to be."""
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _told(bounds: Mapping[str, float]) -> str:
    """The bounds in words, if there are any: "from 0 to 1", "above 0"."""
    if {"ge", "le"} <= bounds.keys():
        return f"from {bounds['ge']} to {bounds['le']}"
    said = {"gt": "above {}", "ge": "of {} or more", "lt": "below {}", "le": "of {} at the most"}
    return " and ".join(said[name].format(bound) for name, bound in bounds.items())


def _of_whole_numbers(bounds: Mapping[str, float]) -> str:
    nearest = {"gt": ("ge", 1), "lt": ("le", -1)}
    within = {}
    for name, bound in bounds.items():
        closed, step = nearest.get(name, (name, 0))
        within[closed] = bound + step
    return _told(within)


_NAMES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "list[int]": "a list of whole numbers",
    "list[str]": "a list of texts",
    "dict[str, Any]": "values by name (`name: value`)",
}
