"""Tokens that open every row of a batch, such as a chat's system prompt, are read once for all."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import torch
from transformers import DynamicCache

from rose_easyedit.models.offload import computing_device

Row = TypeVar("Row")

# Fewer tokens than these are cheaper to read again than to handle apart.
_WORTH_SHARING = 16


def common_opening(rows: Sequence[Sequence[int]]) -> int:
    """How many first tokens all rows share, leaving each at least one token of its own."""
    shared = 0
    for column in zip(*(row[:-1] for row in rows), strict=False):
        if len(set(column)) > 1:
            break
        shared += 1
    return shared


def sharable_prefix(model: Any, rows: Sequence[Sequence[int]], n_more: int = 0) -> int:
    """How many first tokens are worth reading once where padding stands between them and the rest.

    None if a layer's attention slides over a window that the rows do not fit in: it would count
    the padding.

    Args:
        model: A causal language model.
        rows: Token ids, unpadded.
        n_more: How many tokens may follow a row.
    """
    window = getattr(model.config.get_text_config(), "sliding_window", None)
    if window is not None and max(map(len, rows)) + n_more > window:
        return 0
    return common_opening(rows)


def distinct(rows: Sequence[Row], key: Callable[[Row], Hashable]) -> tuple[list[Row], list[int]]:
    """The first row with each key, and which of them stands for each of the rows."""
    places: dict[Hashable, int] = {}
    first: list[Row] = []
    row_of: list[int] = []
    for row in rows:
        place = places.setdefault(key(row), len(first))
        if place == len(first):
            first.append(row)
        row_of.append(place)
    return first, row_of


def families(rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """Indices of the rows, those that open alike together; rows that do so with none come last."""
    by_prefix: dict[tuple[int, ...], list[int]] = {}
    for index, row in enumerate(rows):
        by_prefix.setdefault(tuple(row[:_WORTH_SHARING]), []).append(index)
    shared = [
        indices
        for shared_prefix, indices in by_prefix.items()
        if len(indices) > 1 and len(shared_prefix) == _WORTH_SHARING
    ]
    rest = sorted(set(range(len(rows))).difference(*shared))
    return [*shared, rest] if rest else shared


def read_shared_prefix(model: Any, tokens: Sequence[int], cache: DynamicCache, n_rows: int) -> None:
    """Fills a cache with the keys and values of the tokens, computed once, for each of the rows.

    Args:
        model: The model without its head.
        tokens: The shared prefix, at least one token.
        cache: An empty cache.
        n_rows: Rows of the batch that will follow.
    """
    ids = torch.tensor([list(tokens)], device=computing_device(model))
    model(input_ids=ids, past_key_values=cache, use_cache=True)
    cache.batch_repeat_interleave(n_rows)
