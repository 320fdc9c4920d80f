"""Edits that are damaged on purpose, in a model that was trained: none passes in silence."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch

from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.errors import DamageError
from rose_easyedit.evaluation.laboratory import load_laboratory
from rose_easyedit.method.edit import compute_edit

FAST = {"fact_learning_rate": 100.0, "subject_learning_rate": 100.0}
SLOW = {"fact_learning_rate": 1e-6, "subject_learning_rate": 1e-6}
UNBOUNDED = {"clamp_norm": 100.0, "smoothing_radius": 0.0}


@pytest.fixture(scope="module")
def laboratory() -> Any:
    return load_laboratory()


def edited(laboratory: Any, people: int, facts: int, **overrides: Any) -> EditDelta:
    """An edit of so many people, and facts about each."""
    requests = [fact.to_request() for fact in laboratory.facts(people, facts)]
    hparams = laboratory.hparams(precision="weights", **overrides)
    return compute_edit(laboratory.model, laboratory.tokenizer, requests, hparams)


def test_a_sound_edit_is_not_warned_of(laboratory: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        checked = edited(laboratory, 1, 1).provenance.self_check
    assert checked.warnings == []
    assert not caplog.messages
    assert checked.facts[0]["answered"] and checked.facts[0]["reached"] > 0.9


def test_the_default_moves_nothing_else(laboratory: Any) -> None:
    warnings = edited(laboratory, 4, 2).provenance.self_check.warnings
    assert not any("the edit moves" in text for text in warnings)


# with what has to be said of it, beside what else may be
DAMAGED: list[tuple[dict[str, Any], str]] = [
    ({"layers": [5]}, "8 of 8 facts not learned"),  # nothing reads the subject after the last layer
    ({"hierarchy": SLOW}, "8 of 8 facts not learned"),
    ({"hierarchy": {"fact_steps": 1, "subject_steps": 1}}, "8 of 8 facts not learned"),
    ({"alignment": {"strength": 1e4}}, "not reached"),
    ({"alignment": {"strength": 1e-9, "protected_directions": 0}}, "other subjects by"),
    ({"hierarchy": {**FAST, **UNBOUNDED}}, "generic texts by"),
    ({"hierarchy": FAST}, "other subjects by"),
    (
        {"alignment": {"constraint": "covariance", "covariance_weight": 1e-7}},
        "other subjects by",
    ),
]


@pytest.mark.parametrize(("overrides", "wanted"), DAMAGED)
def test_a_damaged_edit_is_warned_of(
    laboratory: Any, overrides: dict[str, Any], wanted: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        warnings = edited(laboratory, 4, 2, **overrides).provenance.self_check.warnings
    assert any(wanted in text for text in warnings), warnings
    assert all(text in caplog.messages for text in warnings)


def test_a_damaged_edit_can_be_refused(laboratory: Any) -> None:
    before = {name: value.clone() for name, value in laboratory.model.state_dict().items()}
    with pytest.raises(DamageError, match="not learned"):
        edited(laboratory, 1, 1, layers=[5], on_damage="refuse")
    now = laboratory.model.state_dict()
    assert all(torch.equal(now[name], value) for name, value in before.items())
