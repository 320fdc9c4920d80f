"""Weights cast beforehand are those that autocast would cast at every use."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import build_model, same_weights, weights_of
from torch import Tensor

from rose_easyedit.forward.activations import frozen
from rose_easyedit.models.cast_weights import CastWeights
from rose_easyedit.models.precision import precision_context

IDS = torch.arange(3, 13).view(2, 5)


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(IDS).logits
    return found


@pytest.mark.parametrize("name", ["llama-tied", "qwen3", "gemma3_text", "gpt2", "phi3"])
def test_the_answers_are_the_same_to_the_bit(name: str) -> None:
    model = build_model(name)
    before, parameters = weights_of(model), dict(model.named_parameters())
    with frozen(model), torch.autocast("cpu", torch.bfloat16):
        cast_at_each_use = logits(model)
        weights = CastWeights(model, torch.bfloat16)
        for _ in range(2):
            with weights.in_place():
                assert any(p.dtype == torch.bfloat16 for p in model.parameters())
                assert torch.equal(logits(model), cast_at_each_use)
    assert all(parameters[name] is p for name, p in model.named_parameters())
    assert same_weights(model, before)


def test_embeddings_and_what_is_trained_stay_as_they_are() -> None:
    model = build_model("llama-tied")
    model.requires_grad_(False)
    trained = model.model.layers[0].mlp.up_proj.weight.requires_grad_(True)
    with CastWeights(model, torch.bfloat16).in_place():
        assert model.model.embed_tokens.weight.dtype == torch.float32
        assert model.lm_head.weight.dtype == torch.bfloat16  # tied to the embeddings outside
        assert model.model.layers[0].mlp.up_proj.weight is trained
        assert model.model.layers[1].mlp.up_proj.weight.dtype == torch.bfloat16
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_nothing_is_copied_that_has_the_type_already() -> None:
    model = build_model("llama-tied").to(torch.bfloat16).requires_grad_(False)
    parameters = dict(model.named_parameters())
    with CastWeights(model, torch.bfloat16).in_place():
        assert all(parameters[name] is p for name, p in model.named_parameters())


def test_whatever_happens_the_weights_are_back() -> None:
    model = build_model("llama-tied")
    parameters = dict(model.named_parameters())
    with pytest.raises(KeyboardInterrupt), frozen(model), precision_context("bfloat16", model)():
        assert model.model.layers[0].mlp.up_proj.weight.dtype == torch.bfloat16
        raise KeyboardInterrupt
    assert all(parameters[name] is p for name, p in model.named_parameters())
