"""Ids of the tokenizer are not ids of the model until checked."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tiny_llama import build_llama
from tiny_models import settings

from rose_easyedit.errors import FactError, RoSEError
from rose_easyedit.evaluation.evaluate import Baseline, EvaluationSettings, evaluate_edit
from rose_easyedit.evaluation.facts import Fact
from rose_easyedit.evaluation.fluency import read_text
from rose_easyedit.evaluation.metrics import next_token_logprobs
from rose_easyedit.evaluation.teacher_forcing import read_targets
from rose_easyedit.forward.generation import generate_greedy
from rose_easyedit.method.edit import compute_edit
from rose_easyedit.method.locating.exchanges import exchanges
from rose_easyedit.method.locating.location import locate
from rose_easyedit.requests import EditRequest
from rose_easyedit.text.token_ids import check_ids, n_embeddings

FACTS = [
    {"prompt": "In London she met Marie Curie", "subject": "Marie Curie", "target_new": "one"},
    {"prompt": "He plays with Ada Lovelace", "subject": "Ada Lovelace", "target_new": "violin"},
]
TEXTS = ["Marie Curie was born in", "Paris"]
ADDED = "<|added|>"
BEYOND = r"makes the token ids 469 of them, and the model has embeddings for ids below 469 only"


@pytest.fixture
def exact_llama(tiny_tokenizer: Any) -> Any:
    """A model with an embedding for each token and for no more."""
    assert len(tiny_tokenizer) == 469
    return build_llama(vocab_size=469, intermediate_size=512)


@pytest.fixture
def padded(tiny_tokenizer: Any) -> Any:
    """A tokenizer with a padding token of its own, which the model has no embedding for."""
    other = copy.deepcopy(tiny_tokenizer)
    other.add_special_tokens({"pad_token": "[PAD]"})
    assert other.pad_token_id == 469
    return other


@pytest.fixture
def grown(tiny_tokenizer: Any) -> Any:
    """A tokenizer with a token more than the model."""
    other = copy.deepcopy(tiny_tokenizer)
    other.add_tokens([ADDED])
    assert len(other) == 470
    return other


def test_padding_that_the_model_lacks_changes_nothing(
    exact_llama: Any, tiny_tokenizer: Any, padded: Any
) -> None:
    few = {"fact_steps": 1, "subject_steps": 1}
    hparams = settings(kept_queries=2, chat_contexts=1, query_formats=1, hierarchy=few)
    facts = [Fact(**fact, relation="r", ground_truth="x") for fact in FACTS]
    how = EvaluationSettings(max_new_tokens=3, locality_text=True)

    def seen(tokenizer: Any) -> list[Any]:
        answers = generate_greedy(exact_llama, tokenizer, TEXTS, chat=False, max_new_tokens=3)
        delta = compute_edit(exact_llama, tokenizer, FACTS, hparams)
        baseline = Baseline.of(exact_llama, tokenizer, facts, settings=how)
        with delta.applied(exact_llama):
            result = evaluate_edit(exact_llama, tokenizer, facts, baseline=baseline)
        return [answers, delta.fingerprint, result.records, result.kl, result.texts]

    assert seen(padded) == seen(tiny_tokenizer)


def test_a_row_that_has_ended_is_filled_with_what_is_not_shown(
    exact_llama: Any, padded: Any
) -> None:
    """The padding of the answers is the model's stop token, or another that is not shown."""
    ids = torch.tensor([padded(TEXTS[1])["input_ids"]])
    with torch.no_grad():
        first_token = int(exact_llama(ids).logits[0, -1].argmax())
    exact_llama.generation_config.eos_token_id = [first_token, 0]
    ended, other = generate_greedy(exact_llama, padded, TEXTS[::-1], chat=False, max_new_tokens=4)
    assert ended == padded.decode([first_token]) and len(other) > len(ended)


def test_a_text_with_tokens_that_the_model_lacks_is_refused(exact_llama: Any, grown: Any) -> None:
    text = f"Marie Curie {ADDED} was"
    for call in (
        lambda: generate_greedy(exact_llama, grown, [text], chat=False),
        lambda: read_targets(exact_llama, grown, [text], ["one"], chat=False),
        lambda: read_targets(exact_llama, grown, ["Paris"], [ADDED], chat=False),
        lambda: next_token_logprobs(exact_llama, grown, [text], chat=False),
        lambda: read_text(exact_llama, grown, [text]),
    ):
        with pytest.raises(RoSEError, match=BEYOND):
            call()
    with pytest.raises(RoSEError, match="resize_token_embeddings"):
        check_ids(exact_llama, [[1, 468], [469]])
    check_ids(exact_llama, [[0, 468]])
    assert n_embeddings(exact_llama) == 469


def test_requests_with_such_tokens_are_named(exact_llama: Any, grown: Any) -> None:
    faulty = [
        FACTS[0],
        {**FACTS[1], "prompt": f"{ADDED} He plays with Ada Lovelace"},
        {**FACTS[1], "target_new": ADDED},
    ]
    with pytest.raises(FactError) as error:
        compute_edit(exact_llama, grown, faulty[:2], settings())
    assert "plays with Ada Lovelace" in str(error.value) and "London" not in str(error.value)
    with pytest.raises(FactError, match="469"):
        compute_edit(exact_llama, grown, [faulty[2]], settings())


@pytest.mark.parametrize(
    "alignment",
    [
        {"preserved_columns": 300},
        {"protected_directions": 2, "statistics_tokens": 64},
    ],
    ids=["preserved columns", "statistics"],
)
def test_a_template_with_tokens_that_the_model_lacks_is_refused(
    exact_llama: Any, grown: Any, alignment: dict[str, Any]
) -> None:
    """Also where no request is put to it as a chat."""
    grown.chat_template = grown.chat_template.replace("<|user|>", ADDED).replace(
        "<|{{ message['role'] }}|>", ADDED
    )
    hparams = settings(hierarchy={"fact_steps": 1, "subject_steps": 1}, alignment=alignment)
    with pytest.raises(RoSEError, match=BEYOND):
        compute_edit(exact_llama, grown, FACTS, hparams)
    with pytest.raises(RoSEError, match=BEYOND):
        locate(exact_llama, grown, exchanges([EditRequest.from_mapping(f) for f in FACTS], 2))


def test_a_text_for_statistics_with_such_tokens_is_refused(
    exact_llama: Any, grown: Any, tmp_path: Any
) -> None:
    (tmp_path / "text.txt").write_text(f"She was here. {ADDED}\n")
    hparams = settings(alignment={"statistics_text": str(tmp_path / "text.txt")})
    with pytest.raises(RoSEError, match=BEYOND):
        compute_edit(exact_llama, grown, FACTS, hparams)
