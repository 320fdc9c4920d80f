"""The curves of an optimisation: what they say, and that chunks and turns do not blur it."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import FACTS, build_model, settings
from tiny_tokenizers import build_tokenizer

from rose_easyedit.config.hparams import HierarchyHyperParams
from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.forward.activations import frozen
from rose_easyedit.method.edit import compute_edit
from rose_easyedit.method.stage1.integration import Group, Shifts, optimise
from rose_easyedit.method.stage1.setting import Level, Setting
from rose_easyedit.method.stage1.trajectory import Totals, Trajectory, curve_of
from rose_easyedit.models.architectures import read_architecture
from rose_easyedit.text.locate_subject import TokenQuery

MEASURES = ["loss", "drift", "norm", "groups", "facts"]


def group(name: str, first: int, n_facts: int = 1, n_queries: int = 2) -> Group:
    """Facts of a subject token, each said in several ways and with one target."""
    subject = first
    facts = tuple(
        tuple(
            TokenQuery((first + 30 + 5 * fact + way, subject, first + 60), 1, 1)
            for way in range(n_queries)
        )
        for fact in range(n_facts)
    )
    return Group(name, facts, (TokenQuery((first + 90, subject, 9), 1, 0),))


GROUPS = [group("a", 100), group("b", 200, n_facts=2), group("c", 300)]


def run(level: Level, *, micro_batch: int = 64, **hparams: Any) -> Shifts:
    model = build_model("llama-untied")
    with torch.no_grad():
        model.lm_head.weight *= 4  # large enough for a target to become certain
    setting = Setting(
        editable=read_architecture(model),
        layer=1,
        unit=torch.full((32,), 2.0),
        hparams=HierarchyHyperParams(**{"weight_decay": 0.01, "context_batches": 1, **hparams}),
        micro_batch=micro_batch,
        seed=0,
        autocast=nullcontext,
    )
    with frozen(model):
        return optimise(setting, GROUPS, torch.zeros(len(GROUPS), 32), level)


def test_a_curve_has_an_entry_per_step_and_the_name_of_its_level() -> None:
    found = run(Level(6, 0.1, name="facts"), loss_threshold=0.0)
    assert list(found.curves) == ["facts"]
    curve = found.curves["facts"]
    assert list(curve) == MEASURES
    assert {len(values) for values in curve.values()} == {6}
    assert curve["groups"] == [3] * 6 and curve["facts"] == [4] * 6


def test_the_last_loss_is_the_mean_of_those_on_record() -> None:
    found = run(Level(6, 0.1), loss_threshold=0.0)
    losses = [loss for of_group in found.losses for loss in of_group]
    curve = found.curves["subjects"]
    assert curve["loss"][-1] == pytest.approx(sum(losses) / len(losses), rel=1e-4)
    assert curve["loss"][-1] < curve["loss"][0]  # type: ignore[operator]


def test_a_shift_begins_at_zero_and_the_essence_undisturbed() -> None:
    curve = run(Level(6, 0.1), loss_threshold=0.0).curves["subjects"]
    assert curve["norm"][0] == 0.0 and curve["norm"][1] > 0.0  # type: ignore[operator]
    assert curve["drift"][0] == pytest.approx(0.0, abs=1e-4)
    assert curve["drift"][-1] > 1e-3  # type: ignore[operator]


def test_groups_that_have_converged_are_not_counted() -> None:
    found = run(Level(40, 0.1), loss_threshold=0.5, micro_batch=1)
    curve = found.curves["subjects"]
    for step, active in enumerate(curve["groups"]):
        # a group that takes n steps is looked at n + 1 times: at the last it has converged
        assert active == sum(taken + 1 > step for taken in found.steps)
    assert len(curve["groups"]) == max(found.steps) + 1 < 40
    assert len(set(found.steps)) > 1


@pytest.mark.parametrize("turns", [1, 2])
def test_the_micro_batch_does_not_matter(turns: int) -> None:
    whole = run(Level(8, 0.1), context_batches=turns, loss_threshold=0.0).curves["subjects"]
    split = run(Level(8, 0.1), context_batches=turns, loss_threshold=0.0, micro_batch=1).curves[
        "subjects"
    ]
    for measure in MEASURES:
        assert [v is None for v in split[measure]] == [v is None for v in whole[measure]]
        present = [v for v in whole[measure] if v is not None]
        found = [v for v in split[measure] if v is not None]
        assert found == pytest.approx(present, rel=1e-2, abs=1e-3), measure


def test_a_turn_without_essences_says_nothing_of_their_drift() -> None:
    curve = run(Level(4, 0.1), context_batches=2, loss_threshold=0.0).curves["subjects"]
    assert [drift is None for drift in curve["drift"]] == [False, True, False, True]
    one = run(Level(1, 0.1), context_batches=1, loss_threshold=0.0).curves["subjects"]
    # each turn sees one of two contexts; over all of them, the two give the whole loss
    both = run(Level(2, 1e-9), context_batches=2, loss_threshold=0.0).curves["subjects"]
    assert sum(both["loss"]) / 2 == pytest.approx(one["loss"][0], rel=1e-3)  # type: ignore[arg-type]


def test_the_mean_is_over_facts_and_groups_not_over_chunks() -> None:
    long = [Totals(3, 6.0, 2, 1.0, 4.0, 2.0), Totals(3, 3.0, 2, 1.0)]
    short = [Totals(1, 6.0, 1, 2.0, 5.0, 1.0)]
    assert curve_of([short, long]) == {
        "loss": [3.0, 1.0],
        "drift": [3.0, None],
        "norm": [1.0, 0.5],
        "groups": [3, 2],
        "facts": [4, 3],
    }
    assert Trajectory().totals() == []


@pytest.mark.parametrize(
    ("how", "levels"),
    [
        ("hierarchical", ["facts", "subjects"]),
        ("joint", ["subjects"]),
        ("independent", ["facts"]),
    ],
)
def test_an_edit_keeps_the_curves_of_its_levels(
    how: str, levels: list[str], tmp_path: Path
) -> None:
    hparams = settings(hierarchy={"integration": how})
    delta = compute_edit(build_model("llama-untied"), build_tokenizer("byte-level"), FACTS, hparams)
    curves = delta.provenance.curves
    assert list(curves) == levels
    assert [curves[level]["groups"][0] for level in levels] == [
        3 if level == "facts" else 2 for level in levels
    ]
    assert json.loads(json.dumps(curves)) == curves
    loaded = EditDelta.load(delta.save(tmp_path / "edit.safetensors"))
    assert loaded.provenance.curves == curves
