"""Rules of settings: what they allow, and what is said of the rest."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import pytest

from rose_easyedit.config.hparams import (
    AlignmentHyperParams,
    HierarchyHyperParams,
    RoSEHyperParams,
    SelfCheckHyperParams,
)
from rose_easyedit.config.rules import Rule, rule_faults, setting

ALL = (RoSEHyperParams, HierarchyHyperParams, AlignmentHyperParams, SelfCheckHyperParams)


@dataclass
class Some:
    share: float = setting(0.5, least=0, most=1)
    steps: int = setting(3, above=0)
    limit: int | None = setting(None, least=0, below=9)
    how: str = setting("fast", words=("fast", "slow"))
    free: float = 0.0


@pytest.mark.parametrize(
    ("rule", "allowed", "refused", "words"),
    [
        (Rule(above=0), (1e-9, 5), (0, -1, math.nan), "above 0"),
        (Rule(least=0), (0, 5), (-1e-9, math.nan), "0 or more"),
        (Rule(least=0, below=1), (0, 0.99), (1, -0.1), "0 or more and below 1"),
        (Rule(least=0, most=1), (0, 1), (1.01, -0.01), "between 0 and 1"),
        (Rule(above=0, most=8), (1, 8), (0, 9), "above 0 and 8 at the most"),
    ],
)
def test_a_rule_says_what_it_allows(rule: Rule, allowed: Any, refused: Any, words: str) -> None:
    assert all(rule.allows(value) for value in allowed)
    assert not any(rule.allows(value) for value in refused)
    assert rule.in_words() == words


def test_every_fault_is_told_with_its_value_and_what_would_do() -> None:
    assert list(rule_faults(Some(limit=0))) == []
    faults = list(rule_faults(Some(-1.0, 0, 9, "odd", math.inf), "group."))
    assert faults == [
        "group.share is -1.0; it must be between 0 and 1",
        "group.steps is 0; it must be above 0",
        "group.limit is 9; it must be 0 or more and below 9, or null",
        "group.how is 'odd'; choose one of fast, slow",
        "group.free is inf; give a number",
    ]


def test_every_number_of_an_edit_has_a_rule() -> None:
    """A NaN compares with nothing, so that any rule refuses it."""
    for schema in ALL:
        for each in fields(schema):
            if str(each.type).partition(" | ")[0] in ("int", "float") and each.name != "z_layer":
                assert not each.metadata["rule"].allows(math.nan), each.name
