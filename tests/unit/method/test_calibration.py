"""An edit scaled to a locality budget."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from tiny_models import FACTS, build_model, same_weights, settings, weights_of

from rose_easyedit.errors import RoSEError
from rose_easyedit.method.edit import compute_edit
from rose_easyedit.method.neighbourhood import held_out_queries
from rose_easyedit.method.stage2.calibration import within_budget
from rose_easyedit.requests import as_requests


def test_bisection_finds_the_largest_scale_within_the_budget() -> None:
    found = within_budget(lambda scale: scale**2, 0.25)
    assert 0.5 - 1 / 64 <= found.scale <= 0.5
    assert found.scaled_drift == found.scale**2
    assert (found.budget, found.drift) == (0.25, 1.0)


def test_an_edit_within_its_budget_stays_whole() -> None:
    assert within_budget(lambda scale: scale / 10, 0.1).scale == 1.0


def test_a_budget_that_lets_nothing_through_gives_no_edit() -> None:
    found = within_budget(lambda scale: 1.0 if scale else 0.0, 0.5)
    assert (found.scale, found.scaled_drift) == (0.0, 0.0)


def drift(model: Any, tokenizer: Any, delta: Any, hparams: Any) -> float:
    """The drift of the edit, by running the whole model on each prompt alone."""
    queries = held_out_queries(tokenizer, as_requests(FACTS), hparams, 160, 256)

    def read() -> torch.Tensor:
        with torch.no_grad():
            rows = [model(torch.tensor([query.ids])).logits[0, -1] for query in queries]
        return torch.stack(rows).log_softmax(-1)

    before = read()
    with delta.applied(model):
        after = read()
    return float((before.exp() * (before - after)).sum(-1).mean())


@pytest.mark.parametrize("name", ["llama-untied", "gemma2"])
def test_an_edit_drifts_as_far_as_it_says_and_no_further_than_it_may(
    name: str, tiny_tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    model = build_model(name)
    before = weights_of(model)
    whole = compute_edit(model, tiny_tokenizer, FACTS, settings())
    assert whole.provenance.calibration is None
    far = drift(model, tiny_tokenizer, whole, settings())
    hparams = settings(alignment={"locality_budget": far / 3})
    with caplog.at_level(logging.WARNING):
        delta = compute_edit(model, tiny_tokenizer, FACTS, hparams)
    found = delta.provenance.calibration
    assert found["drift"] == pytest.approx(far, rel=1e-3)
    assert 0.0 < found["scale"] < 1.0
    now = drift(model, tiny_tokenizer, delta, hparams)
    assert now == pytest.approx(found["scaled_drift"], rel=1e-3)
    assert far / 6 < now <= far / 3 * 1.001
    assert "its budget is" in caplog.text
    for layer, factors in delta.layers.items():
        torch.testing.assert_close(factors.dense(), whole.layers[layer].dense() * found["scale"])
    assert same_weights(model, before)


def test_a_wide_budget_changes_nothing(tiny_tokenizer: Any) -> None:
    model = build_model("llama-untied")
    whole = compute_edit(model, tiny_tokenizer, FACTS, settings())
    hparams = settings(alignment={"locality_budget": 1e6})
    delta = compute_edit(model, tiny_tokenizer, FACTS, hparams)
    assert delta.provenance.calibration["scale"] == 1.0
    for layer, factors in delta.layers.items():
        assert torch.equal(factors.left, whole.layers[layer].left)


@pytest.mark.parametrize("budget", [0.0, -1.0])
def test_a_budget_is_above_zero(budget: float) -> None:
    with pytest.raises(
        RoSEError, match=f"locality_budget is {budget}; give a number above 0, or null"
    ):
        settings(alignment={"locality_budget": budget})


def test_an_edit_reports_what_it_writes_and_not_what_it_would_have(tiny_tokenizer: Any) -> None:
    model = build_model("llama-untied")
    model.to(torch.bfloat16)
    whole = compute_edit(model, tiny_tokenizer, FACTS, settings())
    far = drift(model, tiny_tokenizer, whole, settings())
    hparams = settings(alignment={"locality_budget": far / 10})
    delta = compute_edit(model, tiny_tokenizer, FACTS, hparams)
    layers = zip(delta.layers.values(), delta.provenance.layers, strict=True)
    for factors, report in layers:
        assert report.update_norm == pytest.approx(float(factors.dense().norm()))
    before, after = (each.provenance.layers for each in (whole, delta))
    for of_whole, of_scaled in zip(before, after, strict=True):
        assert of_scaled.rounding_loss > of_whole.rounding_loss


def test_a_budget_that_lets_nothing_through_is_refused(tiny_tokenizer: Any) -> None:
    model = build_model("llama-untied")
    before = weights_of(model)
    hparams = settings(alignment={"locality_budget": 1e-9})
    with pytest.raises(RoSEError, match="locality_budget is 1e-09 nats, and even 1.6% of"):
        compute_edit(model, tiny_tokenizer, FACTS, hparams)
    assert same_weights(model, before)
