"""Records of any origin as the types that they are declared with, and their faults in words.

A record is a dataclass whose fields have the types below: none of them makes a number of a text, or
of true and false. pydantic reads them; what it finds wrong is told as the other errors are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import GetPydanticSchema, PlainValidator, Strict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from rose_easyedit.errors import RoSEError, shown
from rose_easyedit.files.records import shorten_faults

_T = TypeVar("_T")
# An integer that JSON may hold can be too large to be shown or computed with.
_LARGEST = 10**9
_LONGEST_NAME = 50
_UNLIKE = "unlike"
_WANTED = {
    "string_type": "text",
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "dataclass_type": "a mapping",
    "is_instance_of": "a list",
    "sequence_str": "a list",
}


def unlike(wanted: str) -> PydanticCustomError:
    """What a validator raises for a value that is not what is wanted, in words: "a number"."""
    return PydanticCustomError(_UNLIKE, "{wanted}", {"wanted": wanted})


def _whole(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _LARGEST:
        return value
    raise unlike("a whole number")


def _number(value: Any) -> float:
    if isinstance(value, float):
        return value
    try:
        return _whole(value)
    except PydanticCustomError:
        raise unlike("a number") from None


# A number stays what it is: one that was written as an integer is written as one again. Floats need
# not be finite.
Number = Annotated[float, PlainValidator(_number)]
Whole = Annotated[int, PlainValidator(_whole)]
Text = Annotated[str, Strict()]
Flag = Annotated[bool, Strict()]


def read_as(kind: Any) -> GetPydanticSchema:
    """Of a field that is a mapping for its users: what it must hold, as a `TypedDict`."""
    return GetPydanticSchema(lambda _, schema_of: schema_of(kind))


def validated(reader: TypeAdapter[_T], value: Any, title: str, context: Any = None) -> _T:
    """A value as a declared type.

    Args:
        reader: of the type.
        value: plain data.
        title: of the error.
        context: what validators compare it with (`ValidationInfo.context`).

    Raises:
        RoSEError: with everything that is wrong with it.
    """
    try:
        return reader.validate_python(value, context=context)
    except ValidationError as error:
        faults = [fault for each in error.errors(include_url=False) for fault in _in_words(each)]
        raise RoSEError.of(title, shorten_faults(faults)) from None


def _in_words(error: ErrorDetails) -> list[str]:
    """What pydantic says of one place; several faults where they are of what stands there."""
    place, kind, value = _place(error["loc"]), error["type"], shown(error["input"])
    context: Mapping[str, Any] = error.get("ctx", {})
    if kind == "missing":
        return [f"{place} is missing"]
    if kind == "extra_forbidden":
        return [f"{place} is {value}, and nothing of that name is known"]
    cause = context.get("error")
    if isinstance(cause, RoSEError):
        return [f"{place}: {fault}" for fault in cause.faults or [str(cause)]]
    wanted = context["wanted"] if kind == _UNLIKE else _WANTED.get(kind, "what belongs there")
    return [f"{place} is {value}, not {wanted}"]


def _place(path: tuple[int | str, ...]) -> str:
    """A place as code names it: `layers[0].residual`."""
    parts = [f".{part}" if _is_name(part) else f"[{shown(part)}]" for part in path]
    return "".join(parts).removeprefix(".") or "it"


def _is_name(part: int | str) -> bool:
    return isinstance(part, str) and part.isidentifier() and len(part) <= _LONGEST_NAME
