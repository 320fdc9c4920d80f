"""Entropy of n-grams with known answers, and perplexity by hand."""

from __future__ import annotations

import math
from importlib import resources
from typing import Any

import pytest
import torch

from rose_easyedit.evaluation.fluency import generic_sentences, ngram_entropy, read_text


@pytest.mark.parametrize(
    ("text", "entropy"),
    [
        # 4 different bigrams, 3 different trigrams
        ("one two three four five", (2 / 3 * 2 + 4 / 3 * math.log2(3)) / 2),
        # bigrams ab, ba, ab; trigrams aba, bab
        ("a b a b", (2 / 3 * (2 / 3 * math.log2(1.5) + 1 / 3 * math.log2(3)) + 4 / 3) / 2),
        ("no no no no no no", 0.0),
        ("yes, yes", (2 / 3 * 1 + 4 / 3 * 0) / 2),  # the comma is a token
        ("one", 0.0),
        ("", 0.0),
    ],
)
def test_ngram_entropy(text: str, entropy: float) -> None:
    assert ngram_entropy(text) == pytest.approx(entropy)


def test_perplexity_is_that_of_each_sentence_by_itself(
    tiny_llama: Any, tiny_tokenizer: Any
) -> None:
    texts = ["Marie Curie was born in Warsaw.", "Paris is a city", "Who is Ada Lovelace?"]
    reading = read_text(tiny_llama, tiny_tokenizer, texts, max_tokens=6, batch_size=3)
    losses = []
    for text in texts:
        ids = torch.tensor(tiny_tokenizer(text)["input_ids"][:7])
        with torch.no_grad():
            logprobs = tiny_llama(ids[None]).logits[0, :-1].log_softmax(-1)
        losses.append(-logprobs.gather(-1, ids[1:, None])[:, 0])
    assert len(set(map(len, losses))) > 1  # the batch has padding
    assert len(reading.tokens) == sum(map(len, losses)) < 18
    assert reading.perplexity == pytest.approx(float(torch.cat(losses).mean().exp()), rel=1e-4)


def test_generic_sentences_are_not_those_that_the_method_reads() -> None:
    sentences = generic_sentences()
    assert len(sentences) == len(set(sentences)) >= 8
    read = (resources.files("rose_easyedit.method") / "data" / "generic_text.txt").read_text()
    assert all(sentence.strip() and sentence not in read for sentence in sentences)
