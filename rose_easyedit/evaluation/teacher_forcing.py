"""Teacher forcing: how the model reads a target that is put behind a query for it.

Most of the literature reports this. It is easier than an answer of the model's own, which has to
come to the target by itself; the two are shown side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rose_easyedit.errors import RoSEError
from rose_easyedit.forward.generation import Text, inference, length_batches, render
from rose_easyedit.forward.next_tokens import last_logits
from rose_easyedit.text.chat import Arguments
from rose_easyedit.text.names import joint
from rose_easyedit.text.token_ids import continuation_ids, token_ids


@dataclass(frozen=True)
class TargetReading:
    """What a model makes of a given target.

    Attributes:
        accuracy: Fraction of the target's tokens that are the likeliest ones where they stand.
        logprob: Mean natural log-probability of a target token.
    """

    accuracy: float
    logprob: float


def read_targets(
    model: Any,
    tokenizer: Any,
    texts: Sequence[Text],
    targets: Sequence[str],
    *,
    chat: bool,
    batch_size: int = 32,
    autocast: torch.dtype | None = None,
    template_arguments: Arguments | None = None,
    progress: Callable[[int], object] | None = None,
) -> list[TargetReading]:
    """Reads each target behind its text; in a chat, at the beginning of the model's turn.

    Args:
        model: A causal language model; its training mode is restored.
        tokenizer: Its tokenizer; it may pad on either side.
        texts: Prompts, or user messages when `chat`.
        targets: One per text; between it and a prompt stands what `names.joint` says.
        chat: Put each text into the chat template.
        batch_size: Rows per batch.
        autocast: Data type of the matrix products; None keeps the weights'.
        template_arguments: What the chat template is told (`chat.arguments_used`).
        progress: Called with the number of rows finished after each batch.

    Raises:
        RoSEError: If a target is empty.
    """
    if empty := [i for i, target in enumerate(targets) if not target.strip()]:
        raise RoSEError(f"Targets {empty} are empty: give each at least one character.")
    rendered = render(tokenizer, texts, chat=chat, template_arguments=template_arguments)
    pairs = [
        with_target(tokenizer, text, target, chat=chat)
        for text, target in zip(rendered, targets, strict=True)
    ]
    readings: dict[int, TargetReading] = {}
    for indices in length_batches([row for row, _ in pairs], batch_size):
        rows = [pairs[i][0] for i in indices]
        lengths = [pairs[i][1] for i in indices]
        with inference(model, autocast):
            logits = last_logits(model, rows, [n + 1 for n in lengths])
        for index, row, n_target, of_row in zip(indices, rows, lengths, logits, strict=True):
            readings[index] = _reading(of_row[-n_target - 1 : -1], row[-n_target:])
        if progress is not None:
            progress(len(indices))
    return [readings[i] for i in range(len(pairs))]


def with_target(tokenizer: Any, text: str, target: str, *, chat: bool) -> tuple[list[int], int]:
    """Ids of a rendered text and the target behind it, and how many of the last are the target's.

    Where the tokenizer would merge across the border, the two are tokenised apart.
    """
    joined = target if chat else joint(text, target) + target
    ids = token_ids(tokenizer, text, special=not chat)
    whole = token_ids(tokenizer, text + joined, special=not chat)
    if whole[: len(ids)] != ids:
        whole = ids + continuation_ids(tokenizer, joined)
    return whole, len(whole) - len(ids)


def _reading(logits: torch.Tensor, target: Sequence[int]) -> TargetReading:
    """From logits [tokens, vocabulary] at the positions before each token of the target."""
    wanted = torch.tensor(target, device=logits.device)
    logprobs = logits.log_softmax(-1).gather(-1, wanted[:, None])[:, 0]
    hits = int((logits.argmax(-1) == wanted).sum())
    return TargetReading(hits / len(target), logprobs.mean().item())
