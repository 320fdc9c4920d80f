"""Word boundaries of answers, and distances between next-token distributions."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from rose_easyedit.evaluation.metrics import (
    contains_target,
    kl_divergence,
    next_token_logprobs,
    shared_beginning,
    starts_with_target,
    top1_agreement,
)


@pytest.mark.parametrize(
    ("answer", "target", "aliases", "expected"),
    [
        ("She lives in Tirana.", "Iran", (), False),
        ("She is from iran, I think.", "Iran", (), True),
        ("He was a German physicist", "Germany", (), False),
        ("He was a German physicist", "Germany", ("German",), True),
        ("Born in S\u00e3o Paulo.", "Sa\u0303o Paulo", (), True),
        ("\u00d6sterreich", "sterreich", (), False),
        ("It is written in C++.", "C++", (), True),
        ("The U.S. dollar", "U.S.", (), True),
        ("\u0647\u064a \u0645\u0635\u0631.", "\u0645\u0635\u0631", (), True),
        ("Stra\u00dfe", "STRASSE", (), True),
        ("anything", "", (), False),
        ("", "Paris", (), False),
        ("North-America", "America", (), True),
    ],
)  # fmt: skip
def test_contains_target(
    answer: str, target: str, aliases: tuple[str, ...], expected: bool
) -> None:
    assert contains_target(answer, target, aliases) is expected


@pytest.mark.parametrize(
    ("answer", "target", "aliases", "expected"),
    [
        (" Lisbon.", "Lisbon", (), True),
        ("lisbon is the capital", "Lisbon", (), True),
        ('  "Lisbon"', "Lisbon", (), True),
        ("**\u201cLisbon\u201d**", "Lisbon", (), True),
        ("Lisbonne", "Lisbon", (), False),
        ("The capital is Lisbon", "Lisbon", (), False),
        ("Portuguese, I think", "Portugal", ("Portuguese",), True),
        ("Sa\u0303o Paulo", "S\u00e3o Paulo", (), True),
        ("C++ it is", "C++", (), True),
        ("C++11", "C++", (), False),
        ("'s-Hertogenbosch", "'s-Hertogenbosch", (), True),
        ("anything", "", (), False),
        ("", "Lisbon", (), False),
    ],
)  # fmt: skip
def test_starts_with_target(
    answer: str, target: str, aliases: tuple[str, ...], expected: bool
) -> None:
    assert starts_with_target(answer, target, aliases) is expected


@pytest.mark.parametrize(
    ("before", "after", "share"),
    [
        ([1, 2, 3], [1, 2, 3], 1.0),
        ([1, 2, 3, 4], [1, 2, 5, 4], 0.5),
        ([1, 2], [1, 2, 3, 4], 0.5),
        ([1], [2], 0.0),
        ([], [1], 0.0),
        ([], [], 1.0),
    ],
)
def test_shared_beginning(before: list[int], after: list[int], share: float) -> None:
    assert shared_beginning(before, after) == share


def test_kl_of_known_distributions() -> None:
    before = torch.tensor([[0.5, 0.5], [0.8, 0.2]]).log()
    after = torch.tensor([[0.25, 0.75], [0.5, 0.5]]).log()
    expected = [0.5 * math.log(2) + 0.5 * math.log(2 / 3)]
    expected.append(0.8 * math.log(1.6) + 0.2 * math.log(0.4))
    assert kl_divergence(before, after).tolist() == pytest.approx(expected)
    assert kl_divergence(after[:1], after[:1]).item() == 0.0


def test_top1_agreement() -> None:
    before = torch.tensor([[0.6, 0.4], [0.6, 0.4]]).log()
    after = torch.tensor([[0.9, 0.1], [0.3, 0.7]]).log()
    assert top1_agreement(before, after).tolist() == [True, False]


@pytest.mark.parametrize("chat", [False, True])
def test_logprobs_of_a_batch_are_those_of_single_rows(
    tiny_llama: Any, tiny_tokenizer: Any, chat: bool
) -> None:
    texts = ["Marie Curie was born in", "Paris", "Who is Ada Lovelace? Tell me, please."]
    batch = next_token_logprobs(tiny_llama, tiny_tokenizer, texts, chat=chat, batch_size=2)
    for row, text in zip(batch, texts, strict=True):
        (alone,) = next_token_logprobs(tiny_llama, tiny_tokenizer, [text], chat=chat)
        torch.testing.assert_close(row, alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(batch.exp().sum(-1), torch.ones(3))
    assert not torch.allclose(batch[0], batch[1], atol=1e-3)
