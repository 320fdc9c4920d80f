"""Dataclasses read back from JSON, which may have been cut short or changed by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from rose_easyedit.errors import shown

_T = TypeVar("_T")


def from_json(kind: type[_T], values: Any) -> _T:
    """A dataclass of its values as plain data.

    The places of measured numbers take anything: who shows them leaves out what is none.

    Raises:
        TypeError: a field is missing, unknown, or of another type.
    """
    made = kind(**values)
    for name, hint in get_type_hints(kind).items():
        if not _fits(value := getattr(made, name), hint):
            raise TypeError(f"{name} is {shown(value)}")
    return made


def _fits(value: Any, hint: Any) -> bool:
    if get_origin(hint) is list:
        return isinstance(value, list) and all(_fits(item, *get_args(hint)) for item in value)
    if get_origin(hint) in (dict, Mapping):
        _, inner = get_args(hint)
        return isinstance(value, dict) and all(_fits(item, inner) for item in value.values())
    return hint not in (str, int, bool) or type(value) is hint
