"""Every family on trained weights: the default writes the statements and keeps the rest."""

from __future__ import annotations

import pytest
from families import asked_before, edited, edited_layers, facts_and_others
from family_models import FAMILIES, load_family

from rose_easyedit.evaluation.facts import FORMS

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("family", FAMILIES)
def test_the_default_writes_the_statements_and_keeps_the_rest(family):
    trained = load_family(family)
    assert min(trained.record["consistency"][form] for form in FORMS) >= 0.9
    layers, traced = edited_layers(trained)
    assert traced
    facts, others = facts_and_others(trained, subjects=4, facts_each=2)
    result, _ = edited(trained, "rose", layers, facts, asked_before(trained, facts, others))
    summary = result.summary()
    assert result.success("statement") >= 0.9
    assert result.success("question", "instruction") >= 0.5
    assert summary["locality"]["all"]["top1"] >= 0.8
    assert summary["r_specificity"]["kept"] >= 0.5
