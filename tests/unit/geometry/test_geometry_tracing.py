"""Causal tracing: known answers where a patch must restore everything, or nothing."""

from __future__ import annotations

import pytest
import torch
from tiny_models import build_model

from rose_easyedit.forward.activations import frozen
from rose_easyedit.method.locating.tracing import Trace, trace_subject
from rose_easyedit.models.architectures import first_tensor, read_architecture
from rose_easyedit.text.locate_subject import TokenQuery


def prompts(*, behind: int) -> list[tuple[TokenQuery, TokenQuery]]:
    """Pairs whose subjects have `behind` tokens after them, and lengths of their own."""
    after = tuple(range(60, 60 + behind))
    pairs = []
    for start in (20, 30, 40):
        clean, other = (5, 6, start, start + 1), (5, 6, 7, start + 5)
        pairs.append(
            (
                TokenQuery((*clean, *after), len(clean) - 1, 0),
                TokenQuery((*other, *after, 99), len(other) - 1, 1),
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


@pytest.mark.parametrize("family", ["llama-tied", "gpt2", "gemma2", "mistral-sliding"])
def test_each_layer_gives_what_the_whole_model_gives_with_the_state_put_there(family):
    editable = read_architecture(build_model(family))
    pairs = prompts(behind=2)
    with torch.no_grad(), frozen(editable.model):
        trace = trace_subject(editable, pairs, batch=2)
        for row, (own, other) in enumerate(pairs):
            for layer in range(editable.n_layers):
                expected = whole_model(editable, layer, own, other)[trace.answers[row]]
                assert float(trace.patched[row, layer]) == pytest.approx(float(expected), abs=1e-5)


def whole_model(editable, layer, own, other):
    """Next-token probabilities of `other` with one state of `own`, by a hook in a full pass."""
    module = editable.layers[layer]
    states = []
    reading = module.register_forward_hook(
        lambda _module, _args, output: states.append(first_tensor(output)[0, own.subject].clone())
    )
    editable.model(torch.tensor([own.ids]))
    reading.remove()

    def put(_module, _args, output):
        first_tensor(output)[0, other.subject] = states[0]

    putting = module.register_forward_hook(put)
    logits = editable.model(torch.tensor([other.ids[:-1]])).logits
    putting.remove()
    return logits[0, -1].softmax(0)


def test_progress_is_told_batch_by_batch():
    editable, finished = read_architecture(build_model("llama-tied")), []
    with frozen(editable.model):
        trace_subject(editable, prompts(behind=1), batch=2, progress=finished.append)
    assert finished == [0, 2, 1]


def test_layers_are_traced_of_the_pairs_that_tell_something():
    editable, asked, finished = read_architecture(build_model("llama-tied")), [], []

    def telling(answers, lost):
        asked.append((answers, lost))
        return torch.tensor([False, True, False])

    with frozen(editable.model):
        whole = trace_subject(editable, prompts(behind=2))
        some = trace_subject(editable, prompts(behind=2), progress=finished.append, telling=telling)
    ((answers, lost),) = asked
    assert answers.equal(whole.answers)
    torch.testing.assert_close(lost, whole.clean - whole.exchanged)
    torch.testing.assert_close(some.patched[1], whole.patched[1])
    assert some.patched[[0, 2]].isnan().all()
    assert finished == [2, 1]


def test_the_clean_run_is_the_model_and_no_hook_stays():
    editable = read_architecture(build_model("llama-tied"))
    pairs = prompts(behind=1)
    with torch.no_grad(), frozen(editable.model):
        trace = trace_subject(editable, pairs)
        expected = editable.model(torch.tensor([pairs[0][0].ids])).logits[0, -1].softmax(0)
    assert int(trace.answers[0]) == int(expected.argmax())
    assert float(trace.clean[0]) == pytest.approx(float(expected.max()), abs=1e-5)


def test_the_band_is_where_enough_of_what_was_lost_comes_back():
    trace = Trace(
        answers=torch.tensor([3, 4]),
        clean=torch.tensor([0.9, 0.7]),
        exchanged=torch.tensor([0.1, 0.1]),
        patched=torch.tensor([[0.9, 0.5, 0.1], [0.7, 0.4, 0.2]]),
    )
    assert torch.allclose(trace.restored, torch.tensor([1.0, 0.5, 0.1 / 1.4]))
    assert trace.band(0.4) == [0, 1]
