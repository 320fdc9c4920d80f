"""Attention by groups is attention."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import build_model
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from rose_easyedit.forward.activations import frozen
from rose_easyedit.forward.replay import capture
from rose_easyedit.models import grouped_attention as grouped_attention_module
from rose_easyedit.models.architectures import read_architecture
from rose_easyedit.models.grouped_attention import (
    attend_by_groups,
    attends_by_groups,
    grouped_attention,
)
from rose_easyedit.models.precision import precision_context
from rose_easyedit.text.locate_subject import TokenQuery

QUERIES = [TokenQuery((5, 6, 7, 8, 9, 10), 3, 2), TokenQuery((4, 5, 11, 12), 1, 1)]


def inputs(n_queries: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 6, n_queries, 4), (2, 2, 5, 4), (2, 2, 5, 4)]
    query, key, value = (torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)
    return query, key, value


def causal() -> Tensor:
    """Three queries at the end of five keys, the first of which is padding in the second row."""
    mask = torch.ones(3, 5, dtype=torch.bool).tril(2).repeat(2, 1, 1, 1)
    mask[1, :, :, 0] = False
    return mask


@pytest.mark.parametrize("scaling", [None, 0.3])
@pytest.mark.parametrize("additive", [False, True])
def test_it_is_attention_with_the_keys_repeated(scaling: float | None, additive: bool) -> None:
    query, key, value = inputs()
    mask = causal()
    if additive:
        mask = torch.zeros(mask.shape).double().masked_fill(~mask, -1e9)
    found, weights = attend_by_groups(nn.Module(), query, key, value, mask, scaling=scaling)
    wanted = scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=scaling, enable_gqa=True
    )
    assert weights is None
    torch.testing.assert_close(found.double(), wanted.transpose(1, 2), atol=1e-6, rtol=1e-6)


def test_one_query_needs_no_mask() -> None:
    query, key, value = inputs(1)
    found, _ = attend_by_groups(nn.Module(), query, key, value, None)
    wanted = scaled_dot_product_attention(query, key, value, enable_gqa=True)
    torch.testing.assert_close(found.double(), wanted.transpose(1, 2), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("further", [{}, {"softcap": 30.0}, {"s_aux": torch.zeros(6)}])
def test_what_it_does_not_know_is_left_to_the_usual_way(
    further: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, Any]] = []

    def usual(*_: Any, **named: Any) -> str:
        given.append(named)
        return "as usual"

    functions = {"sdpa": usual}
    monkeypatch.setattr(grouped_attention_module, "ALL_ATTENTION_FUNCTIONS", functions)
    query, key, value = inputs()
    mask = causal() if further else None  # several queries without a mask: who looks where?
    found: Any = attend_by_groups(nn.Module(), query, key, value, mask, scaling=0.5, **further)
    assert found == "as usual"
    assert given == [{"scaling": 0.5, **further}]


@pytest.mark.parametrize("name", ["llama-tied", "mistral-sliding", "qwen3", "gemma3_text", "gpt2"])
def test_a_step_and_its_gradient_are_those_of_the_usual_attention(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build_model(name)
    used: list[int] = []

    def counted(*args: Any, **kwargs: Any) -> Any:
        used.append(1)
        return attend_by_groups(*args, **kwargs)

    def step(attention: str) -> tuple[Tensor, Tensor]:
        model.config._attn_implementation = attention
        shift = torch.ones(len(QUERIES), 32, requires_grad=True)
        with frozen(model), precision_context("bfloat16", model)():
            replay = capture(read_architecture(model), QUERIES, 0)
            log_p = replay.log_probabilities(shift)
        log_p[:, 3].sum().backward()
        assert shift.grad is not None
        return log_p.detach(), shift.grad

    usual = step("eager")
    monkeypatch.setattr("rose_easyedit.models.grouped_attention.attend_by_groups", counted)
    by_groups = step("sdpa")
    assert used
    assert model.config._attn_implementation == "sdpa"
    for one, other in zip(by_groups, usual, strict=True):
        torch.testing.assert_close(one, other, atol=0.03, rtol=0.03)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_afterwards_a_model_attends_in_its_own_way(attention: str) -> None:
    model = build_model("llama-tied")
    model.config._attn_implementation = attention
    with pytest.raises(ZeroDivisionError), grouped_attention(model):
        assert attends_by_groups(model) == (attention == "sdpa")
        raise ZeroDivisionError
    assert not attends_by_groups(model)
    assert model.config._attn_implementation == attention
