"""Greedy answers of a model, in batches: what a user would read, not teacher forcing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from transformers import DynamicCache, GenerationConfig

from rose_easyedit.errors import RoSEError
from rose_easyedit.forward.shared_prefix import read_shared_prefix, sharable_prefix
from rose_easyedit.models.context import check_context
from rose_easyedit.models.lock import one_at_a_time
from rose_easyedit.models.modes import evaluation_mode
from rose_easyedit.models.offload import computing_device
from rose_easyedit.restoring import restoring
from rose_easyedit.text.chat import Arguments, own_turn, render_messages, render_turn
from rose_easyedit.text.token_ids import check_ids, n_embeddings, token_ids

Text = str | list[dict[str, str]]


@one_at_a_time
def generate_greedy(
    model: Any,
    tokenizer: Any,
    texts: Sequence[Text],
    *,
    chat: bool,
    special: bool | None = None,
    max_new_tokens: int = 24,
    batch_size: int = 32,
    autocast: torch.dtype | None = None,
    template_arguments: Arguments | None = None,
    progress: Callable[[int], object] | None = None,
) -> list[str]:
    """Continue each text greedily with a KV cache, up to the end-of-turn token.

    Rows of similar length share a batch, padded on the left; the answer of a row does not depend
    on its neighbours (up to float noise on exact ties). Tokens that open every row, such as the
    system prompt of a chat, are read once per batch.

    Args:
        model: A causal language model; the training mode of each module is restored.
        tokenizer: Its tokenizer; its padding side and padding token are not touched.
        texts: Prompts to continue, or user messages when `chat`.
        chat: Put each text into the tokenizer's chat template as one user message; a list of
            messages ("role", "content") goes in as it is.
        special: Whether the tokenizer adds its special tokens; None: without `chat`.
        max_new_tokens: Most tokens per answer.
        batch_size: Rows per batch.
        autocast: Data type of the matrix products, say `torch.bfloat16`; None keeps the weights'.
        template_arguments: What the chat template is told (`chat.arguments_used`).
        progress: Called with the number of rows finished after each batch.

    Returns:
        The decoded continuations, without special tokens, in the order of `texts`.

    Raises:
        RoSEError: As `encode`, a text with its answer is longer than the model's context, or it
            has tokens that the model does not have.
    """
    rows = encode(
        tokenizer, texts, chat=chat, special=special, template_arguments=template_arguments
    )
    new_tokens = continue_greedily(
        model,
        tokenizer,
        rows,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        autocast=autocast,
        progress=progress,
    )
    answers = [tokenizer.decode(row, skip_special_tokens=True) for row in new_tokens]
    return [own_turn(tokenizer, answer) for answer in answers] if chat else answers


@one_at_a_time
def continue_greedily(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    batch_size: int = 32,
    autocast: torch.dtype | None = None,
    progress: Callable[[int], object] | None = None,
) -> list[list[int]]:
    """As `generate_greedy`, of token ids.

    Returns:
        What follows each row, up to its stop token and what fills the batch behind that.

    Raises:
        RoSEError: A row with its answer is longer than the model's context, or has tokens that the
            model does not have.
    """
    check_ids(model, rows)
    check_context(model, rows, max_new_tokens)
    config = _greedy_config(model, tokenizer, max_new_tokens)
    found: list[list[int]] = [[] for _ in rows]
    for indices in length_batches(rows, batch_size):
        batch = [rows[i] for i in indices]
        shared_prefix = sharable_prefix(model, batch, max_new_tokens)
        inputs = pad_left(batch, config.pad_token_id, computing_device(model), shared_prefix)
        with inference(model, autocast), _no_settings_of_its_own(model):
            cache = DynamicCache(config=model.config)
            if shared_prefix:
                read_shared_prefix(model.base_model, batch[0][:shared_prefix], cache, len(batch))
            output = model.generate(**inputs, past_key_values=cache, generation_config=config)
        new_tokens = output[:, inputs["input_ids"].shape[1] :].tolist()
        for index, row in zip(indices, new_tokens, strict=True):
            found[index] = row
        if progress is not None:
            progress(len(indices))
    return found


def encode(
    tokenizer: Any,
    texts: Sequence[Text],
    *,
    chat: bool,
    special: bool | None = None,
    template_arguments: Arguments | None = None,
) -> list[list[int]]:
    """Token ids of each text, unpadded; a chat turn ends with the model's own turn opened.

    Raises:
        RoSEError: As `render`, or a text has no token.
    """
    # The template writes its own special tokens; a second BOS would change the answers.
    rendered = render(tokenizer, texts, chat=chat, template_arguments=template_arguments)
    special = not chat if special is None else special
    rows = [token_ids(tokenizer, text, special=special) for text in rendered]
    if empty := [i for i, row in enumerate(rows) if not row]:
        raise RoSEError(f"Texts {empty} have no token: give each query at least one character.")
    return rows


def render(
    tokenizer: Any,
    texts: Sequence[Text],
    *,
    chat: bool,
    template_arguments: Arguments | None = None,
) -> list[str]:
    """The texts as the model reads them: with `chat`, in the template with its own turn opened.

    Raises:
        RoSEError: As `chat.render_messages`, or messages are given without `chat`.
    """
    if not chat:
        return [_plain(text) for text in texts]
    return [
        render_turn(tokenizer, text, template_arguments)
        if isinstance(text, str)
        else render_messages(tokenizer, text, template_arguments)
        for text in texts
    ]


def length_batches(rows: Sequence[Sequence[int]], batch_size: int) -> Iterator[list[int]]:
    """Indices of rows in batches of similar length, the longest first (so memory peaks at once)."""
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def pad_left(
    rows: Sequence[Sequence[int]],
    pad_token_id: int,
    device: torch.device | str,
    shared_prefix: int = 0,
) -> dict[str, torch.Tensor]:
    """`input_ids` and `attention_mask`, both [rows, longest], padded behind the shared prefix."""
    width = max(len(row) for row in rows)
    ids, mask = [], []
    for row in rows:
        padding = width - len(row)
        ids.append([*row[:shared_prefix], *[pad_token_id] * padding, *row[shared_prefix:]])
        mask.append([1] * shared_prefix + [0] * padding + [1] * (len(row) - shared_prefix))
    return {
        "input_ids": torch.tensor(ids, device=device),
        "attention_mask": torch.tensor(mask, device=device),
    }


def filler(model: Any, tokenizer: Any) -> int:
    """What fills a row before its text and behind its end: a token that the model can read.

    In place of a padding token that the model lacks, one that is not shown in an answer.
    """
    end, special = stop_tokens(model, tokenizer), tokenizer.all_special_ids
    unseen = [token for token in end if token in special]
    candidates = (tokenizer.pad_token_id, *unseen, *special, *end, 0)
    found: int = next(t for t in candidates if t is not None and t < n_embeddings(model))
    return found


def stop_tokens(model: Any, tokenizer: Any) -> list[int]:
    """The tokens that end an answer: the model's own, else the tokenizer's; perhaps none."""
    end = model.generation_config.eos_token_id
    end = tokenizer.eos_token_id if end is None else end
    if end is None:
        return []
    return list(end) if isinstance(end, list | tuple) else [end]


@restoring
def inference(model: Any, autocast: torch.dtype | None) -> Iterator[None]:
    """No gradients, evaluation mode, optional autocast; each module's training mode is put back."""
    cast = (
        nullcontext()
        if autocast is None
        else torch.autocast(computing_device(model).type, autocast)
    )
    with evaluation_mode(model), torch.inference_mode(), cast:
        yield


@restoring
def _no_settings_of_its_own(model: Any) -> Iterator[None]:
    """The model without its generation settings, which would fill in what a plain one leaves open.

    Some models bring a repetition penalty or beams along, and would not be greedy any more.
    """
    own = model.generation_config
    try:
        model.generation_config = GenerationConfig()
        yield
    finally:
        model.generation_config = own


def _plain(text: Text) -> str:
    if isinstance(text, str):
        return text
    raise RoSEError(f"{text!r} is a list of messages, which only chat=True can put to a model.")


def _greedy_config(model: Any, tokenizer: Any, max_new_tokens: int) -> GenerationConfig:
    """A plain greedy configuration that keeps only the stop tokens of the model's own."""
    end = stop_tokens(model, tokenizer)
    return GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=end or None,
        pad_token_id=filler(model, tokenizer),
    )
