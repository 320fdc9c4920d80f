"""Tokens that open every row of a batch, such as a chat's system prompt, are read once for all."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeVar

import torch
from transformers import DynamicCache

from rose_easyedit.models.offload import computing_device

Row = TypeVar("Row")

# What a pass costs besides its tokens, in tokens: its calls, and reading every matrix once more. A
# GPU is through with the tokens long before it is through with the calls.
_PASS_ON_A_CPU = 64
_PASS_ON_A_GPU = 512


def price_of_a_pass(device: torch.device) -> int:
    """What one more pass costs on a device, in tokens run."""
    return _PASS_ON_A_CPU if device.type == "cpu" else _PASS_ON_A_GPU


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


@dataclass
class _Family:
    """Rows that open alike, but for those that families of their own take away.

    Attributes:
        members: their places among the sorted rows.
        opening: how many first tokens they share.
        within: the family that they were taken from.
    """

    members: list[int]
    opening: int
    within: _Family | None

    @property
    def saved(self) -> int:
        """Tokens that need not be run, since these rows are apart from the others."""
        before = 0 if self.within is None else self.within.opening
        return (len(self.members) - 1) * (self.opening - before)


def families(rows: Sequence[Sequence[int]], price: int) -> list[list[int]]:
    """Indices of the rows, those apart that share so many tokens that it pays to read them once.

    Args:
        rows: token ids.
        price: of a pass, in tokens; a family has two of its own, of its opening and of the rest.

    Returns:
        The families, each in ascending order; the one of those that share nothing comes last.
    """
    order = sorted(range(len(rows)), key=lambda i: tuple(rows[i]))
    ordered = [rows[i] for i in order]
    found = [_Family(list(range(len(rows))), 0, None)]
    for family in found:  # which grows by what is found within each
        places, family.members = [(family.members, family.opening)], []
        while places:
            some, depth = places.pop()
            for group in _going_on_alike(ordered, some, depth):
                opening = common_opening([ordered[group[0]], ordered[group[-1]]])
                inner = _Family(group, opening, family)
                if len(group) == 1:
                    family.members += group
                elif inner.saved >= 2 * price:
                    found.append(inner)
                else:
                    places.append((group, max(opening, depth + 1)))
    for family in reversed(found):
        if family.within is not None and family.saved < 2 * price:  # others took too many away
            family.within.members += family.members
            family.members = []
    chosen = [sorted(order[i] for i in family.members) for family in found if family.members]
    return [*sorted(chosen[1:]), chosen[0]] if found[0].members else sorted(chosen)


def _going_on_alike(
    ordered: Sequence[Sequence[int]], some: Sequence[int], depth: int
) -> Iterator[list[int]]:
    """Sorted rows by their token at a depth; one by one those that have none there."""
    for token, group in groupby(some, lambda i: tuple(ordered[i][depth : depth + 1])):
        if token:
            yield list(group)
        else:
            yield from ([i] for i in group)


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
