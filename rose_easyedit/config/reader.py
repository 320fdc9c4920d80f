"""Which settings are not what they are declared to be, as pydantic finds it."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from numbers import Integral, Real
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    StrictBool,
    StrictStr,
    ValidationError,
    create_model,
)

from rose_easyedit.config.rules import BOUNDS, WORDS, is_series
from rose_easyedit.restoring import uninterrupted

# EasyEdit puts a model and its tokenizer in place of the name.
_OF_ANY_TYPE = ("model_name",)


def unfit_fields(settings: Any) -> list[str]:
    """The names of the settings of one group with another type or value than declared."""
    schema: Any = type(settings)
    reader = _reader(schema)
    try:
        reader.model_validate({name: getattr(settings, name) for name in reader.model_fields})
    except ValidationError as error:
        return list(dict.fromkeys(str(each["loc"][0]) for each in error.errors()))
    return []


@functools.cache
def _reader(schema: Any) -> type[BaseModel]:
    """What reads a group of settings; types that are none of `_TYPES` are left out."""
    read: dict[str, Any] = {}
    for declared in fields(schema):
        kind, _, none = str(declared.type).partition(" | ")
        if kind not in _TYPES or declared.name in _OF_ANY_TYPE:
            continue
        words = declared.metadata.get(WORDS)
        of = Literal[words] if words else _TYPES[kind]
        of = Annotated[of, Field(**declared.metadata.get(BOUNDS, {}))]
        read[declared.name] = (of | None if none else of, ...)
    made: list[type[BaseModel]] = []
    # an interrupt within would come out of pydantic as a fault of the schema
    uninterrupted(lambda: made.append(create_model(schema.__name__, **read)))
    return made[0]


def _whole(value: Any) -> Any:
    # numpy's are whole numbers, too, and true and false are none here
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise ValueError
    return value


def _number(value: Any) -> Any:
    if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError
    return value


def _series(value: Any) -> Any:
    if not is_series(value):
        raise ValueError
    return value


_Whole = Annotated[Any, AfterValidator(_whole)]
_TYPES: Mapping[str, Any] = {
    "int": _Whole,
    "float": Annotated[Any, AfterValidator(_number)],
    "bool": StrictBool,
    "str": StrictStr,
    "list[int]": Annotated[Sequence[_Whole], BeforeValidator(_series)],
    "list[str]": Annotated[Sequence[StrictStr], BeforeValidator(_series)],
    "dict[str, Any]": dict[StrictStr, Any],
}
