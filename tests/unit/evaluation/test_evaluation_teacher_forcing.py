"""A target read behind its query: by hand, in batches, in chats, and across token borders."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_tokenizers import ending_texts

from rose_easyedit.errors import RoSEError
from rose_easyedit.evaluation.facts import Fact
from rose_easyedit.evaluation.measure import Questions
from rose_easyedit.evaluation.settings import EvaluationSettings
from rose_easyedit.evaluation.teacher_forcing import (
    TargetReading,
    read_targets,
    with_target,
)
from rose_easyedit.forward.generation import encode
from rose_easyedit.forward.next_tokens import last_logits
from rose_easyedit.requests import EditRequest

TEXTS = ["Marie Curie was born in", "Who is Ada Lovelace? She lived in", "Paris"]
TARGETS = ["London, England", "Warsaw", "is in Switzerland"]


def by_hand(model: Any, ids: list[int], target: list[int]) -> TargetReading:
    """Token after token without a batch."""
    hits, total = 0, 0.0
    for i, token in enumerate(target):
        with torch.no_grad():
            logits = model(torch.tensor([ids + target[:i]])).logits[0, -1]
        hits += int(logits.argmax()) == token
        total += float(logits.log_softmax(-1)[token])
    return TargetReading(hits / len(target), total / len(target))


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_batch_reads_like_a_model_by_hand(
    tiny_llama: Any, tiny_tokenizer: Any, chat: bool, batch_size: int
) -> None:
    readings = read_targets(
        tiny_llama, tiny_tokenizer, TEXTS, TARGETS, chat=chat, batch_size=batch_size
    )
    for text, target, reading in zip(TEXTS, TARGETS, readings, strict=True):
        (ids,) = encode(tiny_tokenizer, [text], chat=chat)
        joined = target if chat else f" {target}"
        target_ids = tiny_tokenizer(joined, add_special_tokens=False)["input_ids"]
        expected = by_hand(tiny_llama, ids, target_ids)
        assert reading.accuracy == expected.accuracy
        assert reading.logprob == pytest.approx(expected.logprob, abs=1e-4)


def test_a_tokenizer_that_ends_each_text_ends_no_query(tiny_tokenizer: Any) -> None:
    ending = ending_texts(tiny_tokenizer)
    for text, target in zip(TEXTS, TARGETS, strict=True):
        wanted = with_target(tiny_tokenizer, text, target, chat=False)
        assert with_target(ending, text, target, chat=False) == wanted


@pytest.mark.parametrize(
    ("text", "target", "chat", "joined"),
    [
        ("Paris", "London", False, "Paris London"),
        ("Paris ", "London", False, "Paris London"),
        ("<|assistant|>", "London", True, "<|assistant|>London"),
    ],
)
def test_one_space_goes_between_a_prompt_and_its_target(
    tiny_tokenizer: Any, text: str, target: str, chat: bool, joined: str
) -> None:
    ids, n_target = with_target(tiny_tokenizer, text, target, chat=chat)
    assert tiny_tokenizer.decode(ids) == joined
    assert tiny_tokenizer.decode(ids[:-n_target]) == text
    assert n_target > 0


def test_rows_that_differ_at_the_end_only_share_no_position_that_is_wanted(
    tiny_llama: Any,
) -> None:
    rows = [[5, 6, 7, 8, 9, 10], [5, 6, 7, 8, 9, 11]]
    wanted = [3, 6]
    with torch.no_grad():
        batch = last_logits(tiny_llama, rows, wanted)
        for row, n, logits in zip(rows, wanted, batch, strict=True):
            alone = tiny_llama(torch.tensor([row])).logits[0, -n:]
            torch.testing.assert_close(logits[-n:], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("chat", [False, True])
def test_an_empty_target_is_refused_by_its_index(
    tiny_llama: Any, tiny_tokenizer: Any, chat: bool
) -> None:
    with pytest.raises(RoSEError, match=r"\[1\]"):
        read_targets(tiny_llama, tiny_tokenizer, ["Paris", "Rome"], ["is", " "], chat=chat)


def test_nothing_is_left_changed(tiny_llama: Any, tiny_tokenizer: Any) -> None:
    tiny_llama.train()
    side = tiny_tokenizer.padding_side
    weights = {name: value.clone() for name, value in tiny_llama.state_dict().items()}
    read_targets(tiny_llama, tiny_tokenizer, TEXTS, TARGETS, chat=False)
    assert tiny_llama.training and tiny_tokenizer.padding_side == side
    assert all(torch.equal(value, weights[name]) for name, value in tiny_llama.state_dict().items())


def test_a_target_of_a_fact_has_no_space_of_its_own() -> None:
    fact = Fact(" Japan", "", "The capital of Japan is ", " Madrid\n", "")
    assert (fact.subject, fact.prompt, fact.target_new) == (
        "Japan", "The capital of Japan is", "Madrid",
    )  # fmt: skip
    (read,) = Questions.of([fact], [], EvaluationSettings()).targets
    assert read == (fact.queries[0], "Madrid")
    assert fact.to_request() == EditRequest.from_mapping(fact.to_request().as_dict())
