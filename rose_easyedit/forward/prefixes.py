"""What comes before the subject of each query, read once: keys and values that no shift changes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from rose_easyedit.forward.activations import run_batch
from rose_easyedit.forward.batches import Batch, batches
from rose_easyedit.models.architectures import EditableModel
from rose_easyedit.models.precision import autocast_dtype


class FrozenLayer(DynamicLayer):
    """Keys and values of the tokens before the subject; later tokens are joined, never stored."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.keys, self.values = keys, values
        self.dtype, self.device = keys.dtype, keys.device
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *_args: Any, **_kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """The stored and the new keys and values, [B, heads, P + S, d_head]."""
        return (
            torch.cat([self.keys, key_states.to(self.keys.dtype)], dim=-2),
            torch.cat([self.values, value_states.to(self.values.dtype)], dim=-2),
        )


@dataclass(frozen=True)
class Prefixes:
    """What comes before the subject's last token, of P different texts.

    Attributes:
        places: each text, without that token, and its row.
        layers: keys and values [P, heads, width, d_head] of each layer; none if nothing comes
            before.
        mask: of real tokens, [P, width]; padding is first.
    """

    places: dict[tuple[int, ...], int]
    layers: Sequence[tuple[Tensor, Tensor]]
    mask: Tensor

    @classmethod
    def read(
        cls, editable: EditableModel, rows: Iterable[Sequence[int]], batch: int | None = None
    ) -> Prefixes:
        """The prefixes of some rows, each read once, however many rows have it.

        Args:
            editable: the model.
            rows: tokens up to the subject's last.
            batch: most rows to read at once; None takes all.
        """
        places: dict[tuple[int, ...], int] = {}
        for row in rows:
            places.setdefault(tuple(row[:-1]), len(places))
        width = max(map(len, places))
        mask = torch.zeros(len(places), width, dtype=torch.long, device=editable.device)
        layers: list[tuple[Tensor, Tensor]] = []
        texts = [text for text in places if text]
        for part in batches(texts, batch or len(places), editable.device):
            at = [places[texts[i]] for i in part.indices]
            found, real = _read(editable, part)
            in_order = real.argsort(dim=1, stable=True)  # padding first
            real = real.gather(1, in_order)
            start = width - real.shape[1]
            mask[at, start:] = real
            layers = layers or [
                (_zeros_like(keys, len(places), width), _zeros_like(values, len(places), width))
                for keys, values in found
            ]
            # What padding holds may be NaN, which a weight of zero would not remove.
            padding = ~real[:, None, :, None].bool()
            for stored, pair in zip(layers, found, strict=True):
                for into, each in zip(stored, pair, strict=True):
                    aligned = each.gather(2, in_order[:, None, :, None].expand_as(each))
                    into[at, :, start:] = aligned.masked_fill(padding, 0.0)
        return cls(places, layers, mask)

    def of(self, rows: Sequence[Sequence[int]]) -> tuple[Cache | None, Tensor]:
        """What comes before the last token of each of B rows, whose prefixes have been read.

        Returns:
            Keys and values [B, heads, before, d_head] of each layer, None if nothing comes before;
            and the mask of real tokens, [B, before].
        """
        places = torch.tensor(
            [self.places[tuple(row[:-1])] for row in rows], device=self.mask.device
        )
        before = max(map(len, rows)) - 1
        start = self.mask.shape[1] - before
        mask = self.mask[places, start:]
        if not before:
            return None, mask
        layers = [
            FrozenLayer(keys[places, :, start:], values[places, :, start:])
            for keys, values in self.layers
        ]
        return Cache(layers=layers), mask


def _read(editable: EditableModel, part: Batch) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
    """Keys and values [B, heads, width, d_head] of each layer, and the mask [B, width].

    They are as attention reads them in the end, so that they are not cast again at each step.
    """
    cache = DynamicCache()
    mask = run_batch(editable, part, cache)
    dtype = autocast_dtype(editable.device)
    found = [
        (layer.keys.to(dtype or layer.keys.dtype), layer.values.to(dtype or layer.values.dtype))
        for layer in cache.layers
    ]
    return found, mask


def _zeros_like(each: Tensor, n: int, width: int) -> Tensor:
    """Zeros [n, heads, width, d_head] for what is [B, heads, T, d_head]."""
    return each.new_zeros(n, each.shape[1], width, each.shape[3])
