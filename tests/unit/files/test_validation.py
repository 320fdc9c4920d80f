"""Records as declared types: what is no number, and what is wrong told in words, all of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator, ConfigDict, TypeAdapter, with_config
from typing_extensions import TypedDict

from rose_easyedit.errors import RoSEError
from rose_easyedit.files.validation import Flag, Number, Text, Whole, read_as, unlike, validated

TITLE = "It cannot be read:"


@with_config(ConfigDict(extra="allow"))
class _Open(TypedDict):
    share: Number


@with_config(ConfigDict(extra="forbid"))
class _Closed(TypedDict, total=False):
    share: Number


def _even(value: int) -> int:
    if value % 2:
        raise unlike("an even number")
    return value


def _mended(value: str) -> str:
    raise RoSEError.of("title", ["the first fault", "the second fault"])


@dataclass(frozen=True)
class _Part:
    count: Whole
    flag: Flag | None = None


@dataclass(frozen=True)
class _Record:
    number: Number = 0
    name: Text | None = None
    parts: Sequence[_Part] = field(default_factory=list)
    even: Annotated[Whole, AfterValidator(_even)] = 0
    mended: Annotated[Text, AfterValidator(_mended)] = ""
    opened: Annotated[Mapping[str, Any], read_as(_Open)] = field(default_factory=dict)
    closed: Annotated[Mapping[str, Any], read_as(_Closed)] = field(default_factory=dict)


READER = TypeAdapter(_Record)


def faults_of(value: Any) -> list[str]:
    with pytest.raises(RoSEError) as error:
        validated(READER, value, TITLE)
    assert str(error.value).startswith(TITLE) and "pydantic" not in str(error.value)
    assert error.value.__suppress_context__
    return list(error.value.faults)


def test_what_is_right_stays_what_it_is() -> None:
    opened = {"share": 1, "note": [1, "a"]}
    read = validated(
        READER, {"number": 1, "parts": [{"count": 2, "flag": True}], "opened": opened}, TITLE
    )
    assert read == _Record(number=1, parts=[_Part(2, True)], opened=opened)
    # an integer is written as one again
    assert type(read.number) is int and type(read.opened["share"]) is int
    assert math.isnan(validated(READER, {"number": math.nan}, TITLE).number)


@pytest.mark.parametrize(
    ("record", "fault"),
    [
        ({"number": "1"}, "number is '1', not a number"),
        ({"number": True}, "number is True, not a number"),
        ({"number": 10**400}, "not a number"),
        ({"even": 1.0}, "even is 1.0, not a whole number"),
        ({"even": False}, "even is False, not a whole number"),
        ({"even": 10**10}, "even is 10000000000, not a whole number"),
        ({"even": 3}, "even is 3, not an even number"),
        ({"name": 3}, "name is 3, not text"),
        ({"name": b"a"}, "name is b'a', not text"),
        ({"parts": 3}, "parts is 3, not a list"),
        ({"parts": "ab"}, "parts is 'ab', not a list"),
        ({"parts": [3]}, "parts[0] is 3, not a mapping"),
        ({"parts": [{"count": 1}, {}]}, "parts[1].count is missing"),
        ({"parts": [{"count": 1, "flag": 1}]}, "parts[0].flag is 1, not true or false"),
        ({"opened": []}, "opened is [], not a mapping"),
        ({"opened": {}}, "opened.share is missing"),
        ({"closed": {"other": 1}}, "closed.other is 1, and nothing of that name is known"),
        ({"closed": {"a\x1b.b": 1}}, "closed['a\\x1b.b'] is 1, and nothing of that name is known"),
        (3, "it is 3, not a mapping"),
        ({"name": "\x1b" * 9000, "number": "\x1b" * 9000}, "not a number"),
    ],
)
def test_a_fault_names_the_place_the_value_and_what_would_do(record: Any, fault: str) -> None:
    (found,) = faults_of(record)
    assert fault in found and len(found) < 1_000 and "\x1b" not in found


def test_all_faults_are_told_together() -> None:
    assert faults_of({"number": "a", "name": 1, "parts": [{"count": "b"}], "mended": "c"}) == [
        "number is 'a', not a number",
        "name is 1, not text",
        "parts[0].count is 'b', not a whole number",
        "mended: the first fault",
        "mended: the second fault",
    ]


def test_of_very_many_faults_the_first_are_told() -> None:
    faults = faults_of({"parts": [{}] * 1000})
    assert len(faults) == 21 and faults[-1] == "... and 980 more"


def test_a_long_name_is_shortened() -> None:
    (fault,) = faults_of({"closed": {"x" * 9000: 1}})
    assert len(fault) < 1_000


def test_of_what_no_word_is_known_for_nothing_foreign_is_told() -> None:
    with pytest.raises(RoSEError, match="it is 'a', not what belongs there"):
        validated(TypeAdapter(complex), "a", TITLE)
