"""Columns advanced through the edited layers are what reading the whole model gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import MODELS, build_model, same_weights, weights_of
from transformers.cache_utils import Cache

from rose_easyedit.edits.factors import Factors
from rose_easyedit.forward.activations import (
    SubjectStates,
    frozen,
    read_subject_states,
    with_updates,
)
from rose_easyedit.forward.layerwise import Stack
from rose_easyedit.models.architectures import read_architecture
from rose_easyedit.text.locate_subject import TokenQuery

SYSTEM = tuple(range(100, 120)) * 7  # so long that it pays to read it once
OTHER = tuple(range(200, 217)) * 8
TEXTS = [
    (*SYSTEM, 7, 8, 9),
    (5, 6),
    (*OTHER, 3),
    (*SYSTEM, 7),
    (11, 12, 13, 14),
    (*OTHER, 4, 5),
    (*SYSTEM, 3, 4),
    (9,),
]
QUERIES = [TokenQuery((*ids, 1, 2), len(ids) - 1, 0) for ids in TEXTS]
LAYERS = (0, 1, 3)
LAST = 3


def random_update(editable: Any, layer: int) -> Factors:
    generator = torch.Generator().manual_seed(layer)
    transposed = editable.is_transposed(layer)
    shape = editable.weight(layer).shape
    d, d_ff = reversed(shape) if transposed else shape
    left = torch.randn(d, 2, generator=generator)
    right = torch.randn(2, d_ff, generator=generator)
    return Factors(left, right, transposed)


def whole_model(editable: Any, key_layer: int, hidden_layer: int) -> SubjectStates:
    return read_subject_states(
        editable, QUERIES, key_layer=key_layer, hidden_layer=hidden_layer, batch=3
    )


def assert_close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found, wanted, atol=2e-4, rtol=2e-4)


def assert_same_states(found: SubjectStates, wanted: SubjectStates) -> None:
    for field in ("keys", "outputs", "hidden"):
        assert_close(getattr(found, field), getattr(wanted, field))


@pytest.mark.parametrize("name", MODELS)
def test_each_layer_is_read_under_the_updates_before_it(name: str) -> None:
    model = build_model(name)
    editable = read_architecture(model)
    updates: dict[int, Factors] = {}
    with frozen(model):
        stack, unedited = Stack.before(editable, QUERIES, LAYERS[0], LAST, batch=3)
        assert_same_states(unedited, whole_model(editable, LAYERS[0], LAST))
        for layer in LAYERS:
            with with_updates(editable, updates):
                stack = stack.advanced(layer)
                found, keys = stack.read(), stack.read_keys()
                wanted = whole_model(editable, layer, LAST)
            assert_same_states(found, wanted)
            assert_close(keys, wanted.keys)
            updates[layer] = random_update(editable, layer)
    # or the comparison would not have seen an update
    assert (found.hidden - unedited.hidden).abs().max() > 0.1


def test_a_key_is_read_without_what_comes_after_it() -> None:
    model = build_model("llama-tied")
    editable = read_architecture(model)
    with frozen(model):
        stack, _ = Stack.before(editable, QUERIES, 1, LAST, batch=8)
        seen: list[str] = []
        for layer in (1, 2, 3):
            editable.layers[layer].register_forward_pre_hook(
                lambda *_, name=f"layer {layer}": seen.append(name)
            )
            editable.down_projections[layer].register_forward_hook(
                lambda *_, name=f"down {layer}": seen.append(name)
            )
        stack.advanced(2).read_keys()
    # of three batches the first two have an shared prefix, which goes through the whole layer
    assert seen == (["layer 1", "down 1"] * 2) * 2 + ["layer 1", "down 1"] + (
        ["layer 2", "down 2", "layer 2"] * 2 + ["layer 2"]
    )


def test_reading_leaves_nothing_behind() -> None:
    model = build_model("llama-tied")
    before = weights_of(model)
    with frozen(model):
        stack, _ = Stack.before(read_architecture(model), QUERIES, 1, 2, batch=8)
        first = stack.read()
        again = stack.read()
        stack.advanced(2).read()
        stack.read_keys()
        assert torch.equal(first.keys, again.keys) and torch.equal(first.hidden, again.hidden)
        assert torch.equal(stack.read().keys, first.keys)
    assert same_weights(model, before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_what_was_cached_is_not_kept() -> None:
    model = build_model("llama-tied")
    with frozen(model):
        stack, _ = Stack.before(read_architecture(model), QUERIES, 1, 2, batch=8)
    rows = [
        rows for part in stack.parts for rows in (part.shared_prefix, part.rows) if rows is not None
    ]
    arguments = [
        value for each in rows for args, kwargs in each.calls for value in (*args, *kwargs.values())
    ]
    caches = [value for value in arguments if isinstance(value, Cache)]
    assert caches
    assert [cache.get_seq_length(layer) for cache in caches for layer in (0, 1, 2)] == [0] * (
        3 * len(caches)
    )
