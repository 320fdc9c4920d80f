"""What an answer says, and how far two models' next-token distributions are apart."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from rose_easyedit.forward.generation import Text, encode, inference, length_batches
from rose_easyedit.forward.next_tokens import last_logits
from rose_easyedit.text.chat import Arguments
from rose_easyedit.text.names import Names, fold

# What may stand before an answer without being part of it: quotes, and Markdown's emphasis.
_WRAPPING = " \t\r\n\"'`*\u00ab\u00bb\u2018\u2019\u201a\u201c\u201d\u201e"


def contains_target(answer: str, target: str, aliases: Iterable[str] = ()) -> bool:
    """Whether the answer names the target or an alias as a whole word (`Names`).

    "Iran" is not found in "Tirana". In a script that puts no space between words a name is found
    wherever it stands.
    """
    return Names.of((target, *aliases)).are_in(answer)


def starts_with_target(answer: str, target: str, aliases: Iterable[str] = ()) -> bool:
    """Whether the answer begins with the target or an alias as a whole word.

    Space, quotes and emphasis before it do not count. Text is compared as in `contains_target`.
    """
    names = Names.of(fold(name).strip(_WRAPPING) for name in (target, *aliases))
    return names.begin(fold(answer).lstrip(_WRAPPING))


def next_token_logprobs(
    model: Any,
    tokenizer: Any,
    texts: Sequence[Text],
    *,
    chat: bool,
    batch_size: int = 32,
    autocast: torch.dtype | None = None,
    template_arguments: Arguments | None = None,
    progress: Callable[[int], object] | None = None,
) -> torch.Tensor:
    """Log-probabilities of the token that follows each text, float32 [texts, vocabulary], on CPU.

    Args:
        model: A causal language model; its training mode is restored.
        tokenizer: Its tokenizer.
        texts: Prompts, or user messages when `chat`.
        chat: Put each text into the chat template, with the model's turn opened.
        batch_size: Rows per batch.
        autocast: Data type of the matrix products; None keeps the weights'.
        template_arguments: What the chat template is told (`chat.arguments_used`).
        progress: Called with the number of rows finished after each batch.
    """
    rows = encode(tokenizer, texts, chat=chat, template_arguments=template_arguments)
    width = model.config.get_text_config().vocab_size
    result = torch.empty(len(rows), width, dtype=torch.float32, device="cpu")
    for indices in length_batches(rows, batch_size):
        with inference(model, autocast):
            logits = last_logits(model, [rows[i] for i in indices], [1] * len(indices))
            result[indices] = logits[:, -1].log_softmax(-1).cpu()
        if progress is not None:
            progress(len(indices))
    return result


def kl_divergence(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """KL(before || after) in nats of each row, from log-probabilities [rows, vocabulary]."""
    return torch.nn.functional.kl_div(after, before, reduction="none", log_target=True).sum(-1)


def top1_agreement(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """Whether the likeliest token of each row is the same, bool [rows]."""
    return before.argmax(-1) == after.argmax(-1)


def words_kept(before: str, after: str) -> float:
    """The share of the different words of one answer that come back in another, in any case.

    1 where the first has none. Words are runs of letters and digits.
    """
    old, new = (set(re.findall(r"\w+", fold(text))) for text in (before, after))
    return len(old & new) / len(old) if old else 1.0


def shared_beginning(before: Sequence[int], after: Sequence[int]) -> float:
    """Length of the common beginning of two token sequences over that of the longer one."""
    shared = 0
    for one, other in zip(before, after, strict=False):
        if one != other:
            break
        shared += 1
    return shared / max(len(before), len(after)) if before or after else 1.0
