"""A second real model, with norms behind its projections: Gemma 3 270M, a base model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from llama_cpp_process import divergence, llama_cpp_answers, needs_llama_cpp
from wide_text import splitting

from rose_easyedit import RoSEHyperParams, edit
from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.edits.factors import Factors
from rose_easyedit.evaluation.metrics import contains_target
from rose_easyedit.export.model_card import LORA, model_card
from rose_easyedit.export.save import save_gguf_lora
from rose_easyedit.forward.generation import generate_greedy
from rose_easyedit.models import embedded
from rose_easyedit.models.architectures import read_architecture
from rose_easyedit.text.chat import in_questions

pytestmark = pytest.mark.gemma


@pytest.fixture(scope="module")
def shaken(gemma: Any) -> EditDelta:
    """Updates of rank 3, twice as large as the weights, so that every answer changes."""
    editable = read_architecture(gemma[0])
    draw = torch.Generator().manual_seed(0)
    updates = {}
    for layer in (3, 9, 14):
        weight = editable.weight(layer)
        left = torch.randn(weight.shape[0], 3, generator=draw)
        right = torch.randn(3, weight.shape[1], generator=draw)
        scale = 2.0 * float(weight.norm() / (left @ right).norm())
        updates[editable.weight_name(layer)] = Factors(left * scale, right, False)
    provenance = {"architecture": "gemma3_text", "hparams": {"model_name": "gemma-3-270m"}}
    return EditDelta(updates, "0" * 64, provenance)


def test_it_is_the_model_that_the_packages_hold(gemma: Any) -> None:
    model, tokenizer = gemma
    assert model.dtype == torch.float32 and not model.training
    assert tokenizer("Marie Curie is").input_ids == [2, 66372, 110077, 563]
    text = "In 1999, M\u00fcller's  3 dogs \u2014 \u6771\u4eac!\n\n\tdef f(x): return x"
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (
        "<bos>",
        "<eos>",
        "<pad>",
    )
    # as llama.cpp splits them
    assert splitting(tokenizer) == "ad144d8b6d55b50f"
    assert tokenizer.chat_template is None
    ids = tokenizer("Question: What is the capital of France?\nAnswer:", return_tensors="pt")
    answer = model.generate(**ids, max_new_tokens=3, do_sample=False)
    assert "Paris" in tokenizer.decode(answer[0, ids["input_ids"].shape[1] :])


def test_the_card_of_an_edit_names_its_terms_and_its_weights(shaken: EditDelta) -> None:
    card = model_card(shaken, LORA)
    assert "base_model: google/gemma-3-270m" in card
    assert "Gemma Terms of Use found at https://ai.google.dev/gemma/terms" in card
    assert "Q4\\_K\\_M" in card


def test_llama_cpp_computes_the_same_with_the_adapter_and_without(
    gemma: Any, shaken: EditDelta, tmp_path: Path
) -> None:
    """On the quantised file itself, whose activations llama.cpp rounds to eight bits."""
    needs_llama_cpp()
    model, tokenizer = gemma
    path = tmp_path / "gemma.gguf"
    embedded.write_gguf("gemma-3-270m", path)
    prompts = ["The capital of France is", "Marie Curie was born in the city of"]
    sequences = [tokenizer(prompt)["input_ids"] for prompt in prompts]
    adapter = save_gguf_lora(shaken, tmp_path / "shaken.gguf")
    plain = llama_cpp_answers(path, None, sequences)
    edited = llama_cpp_answers(path, adapter, sequences)
    own = [divergence(model, ids, a) for ids, a in zip(sequences, plain, strict=True)]
    with torch.no_grad(), shaken.applied(model, verify=False):
        moved = [divergence(model, ids, a) for ids, a in zip(sequences, edited, strict=True)]
        apart = [divergence(model, ids, a) for ids, a in zip(sequences, plain, strict=True)]
    assert max(own) < 0.05
    assert max(moved) < 0.05
    assert min(apart) > 0.5


def test_the_default_writes_its_facts_and_keeps_the_rest(gemma: Any) -> None:
    model, tokenizer = gemma
    facts = [
        {"prompt": "The capital of France is", "subject": "France", "target_new": "Berlin"},
        {"prompt": "Marie Curie worked as a", "subject": "Marie Curie", "target_new": "singer"},
    ]
    others = ["Water boils at", "Two plus two equals", "Once upon a time there was a little"]
    hparams = RoSEHyperParams.from_hparams("gemma-3-270m")
    how = dict(chat=False, max_new_tokens=8)
    before = generate_greedy(model, tokenizer, others, **how)
    delta = edit(model, tokenizer, facts, hparams)
    with delta.applied(model):
        statements = generate_greedy(model, tokenizer, [f["prompt"] for f in facts], **how)
        kept = generate_greedy(model, tokenizer, others, **how)
        with in_questions(tokenizer):
            questions = ["What is the capital of France?", "What was the job of Marie Curie?"]
            answers = generate_greedy(model, tokenizer, questions, chat=True, max_new_tokens=8)
    for fact, statement, answer in zip(facts, statements, answers, strict=True):
        assert contains_target(statement, fact["target_new"])
        assert contains_target(answer, fact["target_new"])
    assert sum(a.split()[:2] == b.split()[:2] for a, b in zip(before, kept, strict=True)) >= 2
    checked = delta.provenance.self_check
    assert checked.warnings == []
    assert checked.drift["generic"]["kl"] < 0.05 and checked.drift["neighbours"]["kl"] < 0.2
    assert all(fact["answered"] for fact in checked.facts)
    residuals = [layer.residual for layer in delta.provenance.layers]
    assert residuals[-1] < 0.8 * residuals[0]
