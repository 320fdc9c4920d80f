"""Settings as they are declared: what is allowed, and what is said of the rest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from random import Random
from typing import Any

import numpy as np
import pytest
from interrupting import interrupted, places_of

from rose_easyedit.config import reader
from rose_easyedit.config.checks import setting_faults
from rose_easyedit.config.hparams import (
    AlignmentHyperParams,
    HierarchyHyperParams,
    RoSEHyperParams,
    SelfCheckHyperParams,
)
from rose_easyedit.config.rules import setting
from rose_easyedit.evaluation.settings import EvaluationSettings
from rose_easyedit.geometry.settings import DiagnosisSettings

ALL = (
    RoSEHyperParams,
    HierarchyHyperParams,
    AlignmentHyperParams,
    SelfCheckHyperParams,
    EvaluationSettings,
    DiagnosisSettings,
)


@dataclass
class Some:
    share: float = setting(0.5, least=0, most=1)
    steps: int = setting(3, above=0, most=8)
    limit: int | None = setting(None, least=0, below=9)
    how: str = setting("fast", words=("fast", "slow"))
    free: float = 0.0
    part: float = setting(0.5, above=0, below=1)
    flag: bool = False
    said: str = ""
    texts: list[str] | None = None
    by_name: dict[str, Any] = field(default_factory=dict)
    anything: Any = None


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"share": 0, "steps": 8, "limit": 0, "how": "slow", "free": -5},
        {"share": 1.0, "steps": np.int64(1), "free": np.float32(0.5)},
        {"texts": [], "by_name": {"a": object()}, "anything": object()},
        {"texts": ("a", "b")},
    ],
)
def test_what_is_declared_is_allowed(values: dict[str, Any]) -> None:
    some = replace(Some(), **values)
    assert setting_faults(some) == []
    assert all(getattr(some, name) is value for name, value in values.items())


@pytest.mark.parametrize(
    ("name", "values", "wanted"),
    [
        ("share", (-0.01, 1.01, math.nan, "1", True, None), "give a number from 0 to 1"),
        ("steps", (0, 9, 1.0, True), "give a whole number from 1 to 8"),
        ("limit", (-1, 9, "2"), "give a whole number from 0 to 8, or null"),
        ("how", ("odd", 3, None), "choose one of fast, slow"),
        ("part", (0, 1.0), "give a number above 0 and below 1"),
        ("free", (math.inf, -math.inf, math.nan, "x"), "give a number"),
        ("flag", ("no", 1), "give true or false"),
        ("said", (3, None), "give text"),
        ("texts", ("ab", ["a", 3], 3), "give a list of texts, or null"),
        ("by_name", (3, {4: "a"}), "give values by name (`name: value`)"),
    ],
)
def test_a_fault_says_the_value_and_what_would_do(
    name: str, values: Sequence[Any], wanted: str
) -> None:
    for value in values:
        faults = setting_faults(replace(Some(), **{name: value}), "group.")
        assert faults == [f"group.{name} is {value!r}; {wanted}"]


def test_all_faults_are_told_together_in_the_order_of_the_settings() -> None:
    faults = setting_faults(Some(-1.0, "3", 9, "odd"))  # type: ignore[arg-type]
    assert [fault.split()[0] for fault in faults] == ["share", "steps", "limit", "how"]


def test_no_number_of_any_settings_may_be_unbound() -> None:
    for schema in ALL:
        for each in fields(schema):
            if str(each.type).partition(" | ")[0] == "float":
                made = schema()
                setattr(made, each.name, math.inf)
                assert setting_faults(made) != [], each.name


def test_an_interrupt_while_settings_are_first_read_is_one() -> None:
    """pydantic makes a fault of its own of whatever is raised while it builds a reader."""

    def first() -> None:
        reader._reader.cache_clear()
        assert setting_faults(Some()) == []

    first()
    total = places_of(first)
    assert total > 100
    for place in Random(0).sample(range(1, total + 1), 150):
        error = interrupted(first, place)
        assert isinstance(error, KeyboardInterrupt), (place, error)
        del error
