"""What comes before the subject of each query, read once: keys and values that no shift changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from rose_easyedit.architectures import EditableModel
from rose_easyedit.method.precision import autocast_dtype
from rose_easyedit.opening import common_opening, families, read_opening


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


def prefix_cache(
    editable: EditableModel, rows: Sequence[Sequence[int]]
) -> tuple[Cache | None, Tensor]:
    """What comes before the last token of each row, which is the subject's.

    Rows that open alike are read together, whatever they are replayed beside.

    Returns:
        Keys and values [B, heads, before, d_head] of each layer, None if nothing comes before; and
        the mask of real tokens, [B, before]. Padding is not last.
    """
    before = max(map(len, rows)) - 1
    mask = torch.zeros(len(rows), before, dtype=torch.long, device=editable.device)
    layers: list[tuple[Tensor, Tensor]] = []
    for family in families(rows):
        members = [rows[i] for i in family]
        width = max(map(len, members)) - 1
        if width == 0:
            continue
        cache, mask[family, before - width :] = _read_prefixes(editable, members, width)
        found = [(layer.keys, layer.values) for layer in cache.layers]
        layers = layers or [
            (
                keys.new_zeros(len(rows), keys.shape[1], before, keys.shape[3]),
                values.new_zeros(len(rows), values.shape[1], before, values.shape[3]),
            )
            for keys, values in found
        ]
        # Padding attends to nothing and may hold NaN, which a weight of zero would not remove.
        padding = ~mask[family, None, before - width :, None].bool()
        for (keys, values), (of_keys, of_values) in zip(layers, found, strict=True):
            keys[family, :, before - width :] = of_keys.masked_fill(padding, 0.0)
            values[family, :, before - width :] = of_values.masked_fill(padding, 0.0)
    if not layers:
        return None, mask
    # as attention reads them in the end, so that they are not cast again at each step
    dtype = autocast_dtype(editable.device)
    stored = [tuple(each.to(dtype or each.dtype) for each in pair) for pair in layers]
    return Cache(layers=[FrozenLayer(keys, values) for keys, values in stored]), mask


def _read_prefixes(
    editable: EditableModel, rows: Sequence[Sequence[int]], width: int
) -> tuple[DynamicCache, Tensor]:
    """The cache of all but the last token of each row, `width` wide, and its mask.

    The opening that all rows share is first, read once; padding is between it and the rest.
    """
    opening = common_opening(rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for place, row in enumerate(rows):
        start = width - (len(row) - 1 - opening)
        ids[place, start:] = torch.tensor(row[opening:-1])
        mask[place, :opening] = mask[place, start:] = 1
    ids, mask = ids.to(editable.device), mask.to(editable.device)
    cache = DynamicCache()
    if opening:
        read_opening(editable.model.base_model, rows[0][:opening], cache, len(rows))
    if width > opening:
        editable.model.base_model(
            input_ids=ids[:, opening:],
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0)[:, opening:],
            past_key_values=cache,
            use_cache=True,
        )
    return cache, mask
