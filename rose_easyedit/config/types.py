"""Of what type each setting is, which those that are built by hand are held to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from numbers import Integral, Real
from typing import Any

from rose_easyedit.errors import shown

# EasyEdit puts a model and its tokenizer in place of the name.
_OF_ANY_TYPE = ("model_name",)


def type_faults(settings: Any, prefix: str = "") -> list[str]:
    """Every setting of another type than its own, with its value and what would do.

    Args:
        settings: a group of settings; inner groups are not looked into.
        prefix: of the names.
    """
    faults = []
    for field in fields(settings):
        kind, _, none = str(field.type).partition(" | ")
        value = getattr(settings, field.name)
        if kind not in _KINDS or field.name in _OF_ANY_TYPE or (none and value is None):
            continue
        is_one, _ = _KINDS[kind]
        if not is_one(value):
            wanted = wanted_type(settings, field.name)
            faults.append(f"{prefix}{field.name} is {shown(value)}; give {wanted}")
    return faults


def wanted_type(schema: Any, name: str) -> str:
    """What a setting takes, as a message calls it."""
    kind, _, none = next(str(f.type) for f in fields(schema) if f.name == name).partition(" | ")
    wanted = _KINDS[kind][1] if kind in _KINDS else kind
    return wanted + (", or null" if none else "")


def is_series(value: Any) -> bool:
    """Whether a value is a list or the like, which text is not meant to be."""
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


# annotation: what is of that type, and how a message calls it
_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "int": (_is_whole, "a whole number"),
    "float": (_is_number, "a number"),
    "bool": (lambda value: isinstance(value, bool), "true or false"),
    "str": (_is_text, "text"),
    "list[int]": (
        lambda value: is_series(value) and all(map(_is_whole, value)),
        "a list of whole numbers",
    ),
    "dict[str, Any]": (
        lambda value: isinstance(value, Mapping) and all(map(_is_text, value)),
        "values by name (`name: value`)",
    ),
    "list[str]": (lambda value: is_series(value) and all(map(_is_text, value)), "a list of texts"),
}
