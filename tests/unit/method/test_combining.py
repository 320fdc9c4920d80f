"""Several edits as one: solved together as one batch would be, or added."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_extending import BATCHES, assert_alike, hparams, requests
from tiny_models import build_model, same_weights, weights_of

from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.edits.factors import Factors
from rose_easyedit.errors import RoSEError
from rose_easyedit.method.combine import add, combine
from rose_easyedit.method.edit import compute_edit
from rose_easyedit.method.extend import update, without
from rose_easyedit.method.stage1 import targets as targets_module

COUNTED_ONCE = "an edit that has no other facts was added, and is counted once"
NAMES = [f"model.layers.{layer}.mlp.down_proj.weight" for layer in (0, 1)]


@pytest.fixture(scope="module")
def pair(tiny_tokenizer: Any) -> tuple[Any, Any]:
    return build_model("llama-tied"), tiny_tokenizer


@pytest.fixture(scope="module")
def edits(pair: tuple[Any, Any]) -> list[EditDelta]:
    """One for each of the first three batches; the first and the third share Marie Curie."""
    return [compute_edit(*pair, requests(batch), hparams()) for batch in BATCHES[:3]]


def made_up(subject: str, seed: int, **hparams: Any) -> EditDelta:
    """An edit of one fact with random updates in float64."""
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    return EditDelta(
        {name: Factors(normal(8, 2 + n), normal(2 + n, 16)) for n, name in enumerate(NAMES)},
        "base",
        {
            "requests": [{"prompt": f"{subject} is", "subject": subject, "target_new": "x"}],
            "hparams": {"layers": [0, 1], "hierarchy": {"fact_steps": 3}, **hparams},
            "groups": [[0]],
            "losses": [float(seed)],
            "steps": [seed],
            "log": [f"log of {subject}"],
        },
        torch.full((1, 8), float(seed)),
    )


def dense(delta: EditDelta) -> torch.Tensor:
    """All updates, [layers, d, d_ff], in float64."""
    return torch.stack([delta.layers[name].dense() for name in NAMES])


def assert_equal(one: EditDelta, other: EditDelta) -> None:
    torch.testing.assert_close(dense(one), dense(other), rtol=1e-5, atol=1e-5)


def test_a_sum_is_the_sum_of_the_updates_and_keeps_both_archives() -> None:
    one, other = made_up("Japan", 1), made_up("Peru", 2)
    both = add(one, other)
    wanted = dense(one) + dense(other)
    torch.testing.assert_close(dense(both), wanted, rtol=1e-5, atol=1e-5)
    assert both.base == "base"
    assert [r["subject"] for r in both.provenance.requests] == ["Japan", "Peru"]
    assert both.provenance.groups == [[0], [1]]
    assert both.provenance.losses == [1.0, 2.0] and both.provenance.steps == [1, 2]
    assert both.provenance.log[:2] == ["log of Japan", "log of Peru"]
    assert "neither solved against the keys of the other" in both.provenance.log[2]
    assert both.targets is not None and both.targets[:, 0].tolist() == [1.0, 2.0]
    assert [r["subject"] for r in one.provenance.requests] == ["Japan"]


def test_sums_commute_and_associate() -> None:
    a, b, c = (made_up(name, seed) for seed, name in enumerate(("Japan", "Peru", "Chad"), 1))
    assert_equal(add(a, b), add(b, a))
    assert_equal(add(add(a, b), c), add(a, add(b, c)))
    torch.testing.assert_close(
        dense(add(add(a, b), c)), dense(a) + dense(b) + dense(c), rtol=1e-5, atol=1e-5
    )
    assert add(add(a, b), c).provenance.groups == [[0], [1], [2]]


def test_the_same_facts_count_once() -> None:
    a, b = made_up("Japan", 1), made_up("Peru", 2)
    both = add(a, b)
    for again in (add(a, made_up("Japan", 1)), add(made_up("Japan", 1), a)):
        assert_equal(again, a)
        assert again.provenance.requests == a.provenance.requests
        assert again.provenance.log == [*a.provenance.log, COUNTED_ONCE]
    assert a.provenance.log == ["log of Japan"]
    assert_equal(add(both, a), both)
    assert_equal(add(b, both), both)


def test_a_sum_of_other_targets_or_of_shared_subjects_is_refused() -> None:
    a, rival = made_up("Japan", 1), made_up("Japan", 2)
    rival.provenance.requests[0]["target_new"] = "y"
    with pytest.raises(RoSEError, match="'Japan': 'Japan is' is 'x' in edit 1 and 'y' in edit 2"):
        add(a, rival)
    more = made_up("Japan", 3)
    more.provenance.requests[0]["prompt"] = "Who rules Japan"
    with pytest.raises(RoSEError, match=r"would write twice; combine them .*\n  - 'Japan'"):
        add(a, more)
    with pytest.raises(RoSEError, match="- 'Japan'"):
        add(add(a, made_up("Peru", 2)), add(a, made_up("Chad", 3)))


def test_a_sum_of_unlike_edits_is_refused_with_every_reason() -> None:
    one, other = made_up("Japan", 1), made_up("Peru", 2, hierarchy={"fact_steps": 4}, device="x")
    other.base = "another"
    with pytest.raises(RoSEError) as caught:
        add(one, other)
    assert "different weights" in str(caught.value)
    assert "hierarchy.fact_steps is 3 there and 4 here" in str(caught.value)
    assert "device" not in str(caught.value)  # says where an edit was computed, not which
    other.layers.popitem()
    with pytest.raises(RoSEError, match=f"edit 2 changes {NAMES[0]};"):
        add(one, other)
    with pytest.raises(RoSEError, match="lacks targets"):
        add(one, EditDelta(one.layers, one.base, one.provenance))


@pytest.mark.parametrize("what", ["left", "right", "targets"])
def test_a_file_that_lies_about_its_base_is_not_added(what: str) -> None:
    one, forged = made_up("Japan", 1), made_up("Peru", 2)
    left, right = forged.layers[NAMES[1]].left, forged.layers[NAMES[1]].right
    if what == "targets":
        forged.targets = torch.zeros(1, 9)
    else:
        shorter = Factors(left[1:], right) if what == "left" else Factors(left, right[:, 1:])
        forged.layers[NAMES[1]] = shorter
    with pytest.raises(RoSEError, match="different weights"):
        add(one, forged)


def test_a_combination_is_one_batch_of_all(
    pair: tuple[Any, Any], edits: list[EditDelta], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = compute_edit(*pair, requests(BATCHES[0] + BATCHES[1]), hparams())
    before = weights_of(pair[0])
    # every target is there, so nothing may be optimised
    monkeypatch.setattr(targets_module, "optimise", None)
    combined = combine(*pair, edits[0], edits[1])
    assert_alike(combined, wanted, tolerance=1e-4)
    assert same_weights(pair[0], before)
    turned = combine(*pair, edits[1], edits[0])
    torch.testing.assert_close(dense(turned), dense(combined), rtol=1e-3, atol=1e-4)


def test_a_combination_is_not_the_sum_but_a_sum_can_be_solved(
    pair: tuple[Any, Any], edits: list[EditDelta], tmp_path: Path
) -> None:
    combined = combine(*pair, edits[0], edits[1])
    total = add(edits[0], edits[1])
    torch.testing.assert_close(dense(total), dense(edits[0]) + dense(edits[1]))
    assert float((dense(total) - dense(combined)).norm() / dense(combined).norm()) > 1e-3
    loaded = EditDelta.load(total.save(tmp_path / "sum.safetensors"))
    assert_alike(combine(*pair, loaded), combined, tolerance=1e-4)
    left = without(*pair, loaded, "Isaac Newton")
    assert_alike(left, edits[0], tolerance=1e-4)


def test_combinations_associate_and_count_facts_once(
    pair: tuple[Any, Any], edits: list[EditDelta]
) -> None:
    grown = combine(*pair, edits[0], edits[1])
    for again in (combine(*pair, grown, edits[0]), combine(*pair, grown, *edits[:2])):
        assert_alike(again, grown, tolerance=1e-4)
    by_two = combine(*pair, grown, edits[2])
    at_once = combine(*pair, edits[0], edits[1], edits[2])
    one_batch = compute_edit(*pair, requests(BATCHES[0] + BATCHES[1] + BATCHES[2]), hparams())
    # Marie Curie is in two of them: optimised anew, with all her facts
    assert_alike(by_two, at_once, tolerance=1e-4)
    assert_alike(at_once, one_batch, tolerance=1e-4)


def test_contradicting_edits_are_not_combined(
    pair: tuple[Any, Any], edits: list[EditDelta]
) -> None:
    rival = update(*pair, edits[0], [{**requests(BATCHES[0])[0], "target_new": "Spanish"}])
    with pytest.raises(RoSEError, match="is 'Polish' in edit 2 and 'Spanish' in edit 3"):
        combine(*pair, edits[1], edits[0], rival)
    with edits[0].applied(pair[0]), pytest.raises(RoSEError, match="not the one that the edit"):
        combine(*pair, edits[1], edits[0])
    with pytest.raises(RoSEError, match="no edit to combine"):
        combine(*pair)
