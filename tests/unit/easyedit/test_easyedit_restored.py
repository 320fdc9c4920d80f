"""A model that is given away comes back as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_models import same_weights, weights_of
from torch import nn

from rose_easyedit.easyedit.restored import attributes_left_as_they_were, model_left_as_it_was
from rose_easyedit.errors import RoSEError


def _in_place(model: Any) -> None:
    model.lm_head.weight.data += 1.0


def _in_half(model: Any) -> None:
    model.half()


def _another_module(model: Any) -> None:
    model.model.layers[1].mlp.down_proj = nn.Identity()


def _an_adapter(model: Any) -> None:
    from peft import LoraConfig, get_peft_model

    model.activation_checkpointing_enable()
    model.enable_input_require_grads()
    get_peft_model(model, LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
    model.config.use_cache = False


def _flags(model: Any) -> None:
    model.train()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
        parameter.grad = torch.ones_like(parameter)
    model.model.register_forward_hook(lambda *_: None)
    model.something = 1


def _another_weight(model: Any) -> None:
    model.model.norm.weight = nn.Parameter(torch.zeros(3))


@pytest.mark.parametrize(
    "change", [_in_place, _in_half, _another_module, _an_adapter, _flags, _another_weight]
)
def test_whatever_was_done_is_undone(change: Callable[[Any], None], tiny_llama: Any) -> None:
    def state() -> list[Any]:
        return [
            [
                (n, type(m), m.training, len(m._forward_hooks))
                for n, m in tiny_llama.named_modules()
            ],
            [
                (n, id(p), p.dtype, p.requires_grad, p.grad)
                for n, p in tiny_llama.named_parameters()
            ],
            tiny_llama.config.to_dict(),
            sorted(vars(tiny_llama)),
        ]

    before, weights = state(), weights_of(tiny_llama)
    with model_left_as_it_was(tiny_llama):
        change(tiny_llama)
    assert state() == before and same_weights(tiny_llama, weights)
    with pytest.raises(KeyError), model_left_as_it_was(tiny_llama):
        change(tiny_llama)
        raise KeyError
    assert state() == before and same_weights(tiny_llama, weights)


def test_a_hook_from_before_can_be_removed_afterwards(tiny_llama: Any) -> None:
    calls: list[int] = []
    handle = tiny_llama.model.norm.register_forward_hook(lambda *_: calls.append(1))
    with model_left_as_it_was(tiny_llama):
        tiny_llama.model.norm._forward_hooks.clear()
    tiny_llama(torch.tensor([[1, 2]]))
    handle.remove()
    tiny_llama(torch.tensor([[1, 2]]))
    assert calls == [1]


def test_weights_that_did_not_come_back_are_told(
    tiny_llama: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rose_easyedit.easyedit import restored

    monkeypatch.setattr(restored._Tensor, "put_back", lambda self: None)
    with pytest.raises(RoSEError, match="not as they were"), model_left_as_it_was(tiny_llama):
        _in_place(tiny_llama)


def test_attributes_are_put_back() -> None:
    class Thing:
        pass

    thing = Thing()
    thing.a, thing.b = 1, {"x": 1}  # type: ignore[attr-defined]
    with attributes_left_as_they_were(thing, None):
        thing.a = 2  # type: ignore[attr-defined]
        thing.b["y"] = 2  # type: ignore[attr-defined]
        thing.c = 3  # type: ignore[attr-defined]
    assert vars(thing) == {"a": 1, "b": {"x": 1}}
