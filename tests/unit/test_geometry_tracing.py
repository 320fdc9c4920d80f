"""Causal tracing: known answers where a patch must restore everything, or nothing."""

from __future__ import annotations

import pytest
import torch
from tiny_models import build_model

from rose_easyedit.architectures import read_architecture
from rose_easyedit.geometry.tracing import Trace, trace_subject
from rose_easyedit.method.activations import frozen
from rose_easyedit.method.tokens import Query


def prompts(*, behind: int) -> list[tuple[Query, Query]]:
    """Pairs whose subjects have `behind` tokens after them, and lengths of their own."""
    after = tuple(range(60, 60 + behind))
    pairs = []
    for start in (20, 30, 40):
        clean, other = (5, 6, start, start + 1), (5, 6, 7, start + 5)
        pairs.append(
            (
                Query((*clean, *after), len(clean) - 1, 0),
                Query((*other, *after, 99), len(other) - 1, 1),
            )
        )
    return pairs


@pytest.mark.parametrize("family", ["llama-tied", "gpt2", "gemma2"])
def test_where_the_subject_ends_the_prompt_the_last_layer_restores_all(family):
    editable = read_architecture(build_model(family))
    with frozen(editable.model):
        trace = trace_subject(editable, prompts(behind=0), batch=2)
    assert torch.allclose(trace.patched[:, -1], trace.clean, atol=1e-6)
    assert trace.restored[-1] == pytest.approx(1.0, abs=1e-3)
    assert not torch.allclose(trace.exchanged, trace.clean)


def test_behind_the_subject_the_last_layer_restores_nothing():
    editable = read_architecture(build_model("llama-tied"))
    with frozen(editable.model):
        trace = trace_subject(editable, prompts(behind=2))
    assert torch.allclose(trace.patched[:, -1], trace.exchanged, atol=1e-6)
    assert not torch.allclose(trace.patched[:, 0], trace.exchanged, atol=1e-6)


def test_the_clean_run_is_the_model_and_no_hook_stays():
    editable = read_architecture(build_model("llama-tied"))
    pairs = prompts(behind=1)
    with torch.no_grad(), frozen(editable.model):
        trace = trace_subject(editable, pairs)
        expected = editable.model(torch.tensor([pairs[0][0].ids])).logits[0, -1].softmax(0)
    assert float(trace.clean[0]) == pytest.approx(float(expected.max()), abs=1e-5)


def test_the_band_is_where_enough_of_what_was_lost_comes_back():
    trace = Trace(
        clean=torch.tensor([0.9, 0.7]),
        exchanged=torch.tensor([0.1, 0.1]),
        patched=torch.tensor([[0.9, 0.5, 0.1], [0.7, 0.4, 0.2]]),
    )
    assert torch.allclose(trace.restored, torch.tensor([1.0, 0.5, 0.1 / 1.4]))
    assert trace.band(0.4) == [0, 1]
