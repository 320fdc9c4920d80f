"""Edits that are damaged on purpose, in models that were trained: none passes in silence."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from rose_easyedit.errors import DamageError
from rose_easyedit.evaluation.laboratory import MINUTE, load_laboratory
from rose_easyedit.method.edit import solve_edit
from rose_easyedit.method.targets import compute_targets

FAST = {"fact_learning_rate": 100.0, "subject_learning_rate": 100.0}
UNBOUNDED = {"clamp_norm": 100.0, "smoothing_radius": 0.0}


@pytest.fixture(scope="module")
def edit() -> Any:
    """Computes an edit of the laboratory, of so many people and facts about each."""
    laboratory = load_laboratory(MINUTE)

    def compute(people: int, facts: int, **overrides: Any) -> Any:
        requests = [fact.to_request() for fact in laboratory.facts(people, facts)]
        hparams = laboratory.hparams(precision="weights", **overrides)
        model, tokenizer = laboratory.model, laboratory.tokenizer
        targets = compute_targets(model, tokenizer, requests, hparams)
        return solve_edit(model, tokenizer, targets, hparams)

    return compute
