"""Whether a model can still write: repetition in its answers, and its view of ordinary text."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import torch
from torch import Tensor

from rose_easyedit.forward.generation import encode, inference, length_batches
from rose_easyedit.forward.next_tokens import last_logits

GENERIC_TOKENS = 16


def ngram_entropy(text: str) -> float:
    """Weighted entropy of the text's 2- and 3-grams in bits, low when it repeats itself.

    (2/3 H_2 + 4/3 H_3) / 2 with H_n = -sum f log2 f over the frequencies f of the n-grams: the
    "fluency" (generation entropy) of ROME (Meng et al., 2022, arXiv:2202.05262) and MEMIT, as
    their code computes it. Tokens are words and signs. It grows with length, so compare texts of
    one limit only. A text of fewer than three tokens has the entropy of what n-grams it has.
    """
    words = re.findall(r"\w+|[^\w\s]", text)
    return (2 / 3 * _entropy(words, 2) + 4 / 3 * _entropy(words, 3)) / 2


def _entropy(words: Sequence[str], n: int) -> float:
    counts = Counter(zip(*(words[i:] for i in range(n)), strict=False))
    total = counts.total()
    return -sum(c / total * math.log2(c / total) for c in counts.values()) if total else 0.0


def generic_sentences() -> list[str]:
    """Ordinary sentences of no concern to any edit, and none of those that a method reads."""
    path = resources.files("rose_easyedit.evaluation") / "data" / "generic_sentences.txt"
    return path.read_text(encoding="utf-8").splitlines()


@dataclass(frozen=True)
class TextReading:
    """A model's next-token log-probabilities in running text.

    Attributes:
        logprobs: float32 [positions, vocabulary], on CPU.
        tokens: The tokens that came, [positions].
    """

    logprobs: Tensor
    tokens: Tensor

    @property
    def perplexity(self) -> float:
        """The exponential of the mean negative log-probability of the tokens that came."""
        return self.logprobs.gather(-1, self.tokens[:, None]).mean().neg().exp().item()


def read_text(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str],
    *,
    max_tokens: int = GENERIC_TOKENS,
    batch_size: int = 32,
    autocast: torch.dtype | None = None,
) -> TextReading:
    """Reads the first tokens of each text, but for the very first, which nothing predicts.

    Args:
        model: A causal language model; its training mode is restored.
        tokenizer: Its tokenizer.
        texts: Texts of two tokens or more.
        max_tokens: Most predicted tokens per text.
        batch_size: Rows per batch.
        autocast: Data type of the matrix products; None keeps the weights'.
    """
    rows = [row[: max_tokens + 1] for row in encode(tokenizer, texts, chat=False)]
    parts: dict[int, Tensor] = {}
    for indices in length_batches(rows, batch_size):
        batch = [rows[i][:-1] for i in indices]
        with inference(model, autocast):
            logprobs = last_logits(model, batch, [len(row) for row in batch]).log_softmax(-1)
        for index, of_row in zip(indices, logprobs, strict=True):
            parts[index] = of_row[-len(rows[index]) + 1 :].cpu()
    tokens = [token for row in rows for token in row[1:]]
    logprobs = torch.cat([parts[i] for i in range(len(rows))])
    return TextReading(logprobs, torch.tensor(tokens, dtype=torch.long, device="cpu"))
