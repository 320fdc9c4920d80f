"""Rows of tokens in batches: those of like length together, what opens them alike read once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rose_easyedit.forward.shared_prefix import common_opening, families, price_of_a_pass


@dataclass(frozen=True)
class Batch:
    """B rows that run together.

    Attributes:
        indices: of the rows among all, [B].
        shared_prefix: the tokens that open every row.
        ids: the tokens behind them, padded on the right with 0, [B, T].
        mask: 1 at real tokens, [B, T].
    """

    indices: Sequence[int]
    shared_prefix: tuple[int, ...]
    ids: Tensor
    mask: Tensor


def batches(
    rows: Sequence[Sequence[int]], size: int, device: torch.device, *, share: bool = True
) -> Iterator[Batch]:
    """Rows of like length together, those that open alike in batches of their own.

    Args:
        rows: token ids.
        size: most rows of a batch.
        device: of the model.
        share: whether a shared prefix is read once; without, every token is in `ids`.
    """
    price = price_of_a_pass(device)
    together = [list(range(len(rows)))]
    for family in families(rows, price) if share else together:
        family = sorted(family, key=lambda i: len(rows[i]))
        for start in range(0, len(family), size):
            indices = family[start : start + size]
            members = [rows[i] for i in indices]
            shared = common_opening(members) if share else 0
            if (len(members) - 1) * shared < price:
                shared = 0
            ids, mask = pad_right([row[shared:] for row in members], device)
            yield Batch(indices, tuple(members[0][:shared]), ids, mask)


def places_in(parts: Sequence[Batch], device: torch.device) -> Tensor:
    """Where each row is among those of its batches, one batch after the other, [N]."""
    order = [index for part in parts for index in part.indices]
    return torch.tensor(order, device=device).argsort()


def pad_right(sequences: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids [B, T] padded on the right with 0, and the mask of real tokens [B, T]."""
    width = max(len(sequence) for sequence in sequences)
    ids = torch.zeros(len(sequences), width, dtype=torch.long, device="cpu")
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.tensor(list(sequence), device="cpu")
        mask[row, : len(sequence)] = 1
    return ids.to(device), mask.to(device)


def last_tokens(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column of the last real token of each row of a mask [B, T], each [B]."""
    last = mask.sum(1) - 1
    return torch.arange(len(last), device=last.device), last
