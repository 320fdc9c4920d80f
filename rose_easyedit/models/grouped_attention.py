"""Attention on a CPU in bfloat16: the heads that share a key side by side.

The model's own way repeats keys and values for every head of a group, and torch's plain kernel
computes in float32 then. For a few queries on many keys that is most of what a step costs; products
of whole groups take a third of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from rose_easyedit.restoring import restoring

_NAME = "rose_grouped"
_REPLACED = "sdpa"
# What changes the scores beyond scaling and mask is left to the model's own way.
_FURTHER = ("softcap", "position_bias", "s_aux")


@restoring
def grouped_attention(model: PreTrainedModel) -> Iterator[None]:
    """Lets a model that attends with torch's own function attend by groups; others as they do."""
    config = model.config.get_text_config()
    own = config._attn_implementation
    if own != _REPLACED:
        yield
        return
    AttentionInterface.register(_NAME, attend_by_groups)
    AttentionMaskInterface.register(_NAME, ALL_MASK_ATTENTION_FUNCTIONS[_REPLACED])
    try:
        config._attn_implementation = _NAME
        yield
    finally:
        config._attn_implementation = own


def attends_by_groups(model: PreTrainedModel) -> bool:
    """Whether a model is within `grouped_attention`."""
    return bool(model.config.get_text_config()._attn_implementation == _NAME)


def attend_by_groups(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **further: Any,
) -> tuple[Tensor, None]:
    """Softmax attention in the type of autocast, the softmax no narrower than float32.

    Args:
        module: the attention of a layer.
        query: [B, heads, S, d_head].
        key: [B, groups, K, d_head], one for each group of heads.
        value: [B, groups, K, d_value].
        attention_mask: true where a query may look, or what is added to its scores, [B, 1, S, K].
        scaling: of the scores; 1 / sqrt(d_head) if None.
        further: what else transformers passes.

    Returns:
        [B, S, heads, d_value], and no weights.
    """
    n_rows, heads, n_queries, width = query.shape
    groups, n_keys = key.shape[1:3]
    unmasked = attention_mask is None and n_queries > 1
    if unmasked or any(further.get(name) is not None for name in _FURTHER):
        usual = ALL_ATTENTION_FUNCTIONS[_REPLACED]
        result: tuple[Tensor, None] = usual(
            module, query, key, value, attention_mask, scaling=scaling, **further
        )
        return result
    scaling = width**-0.5 if scaling is None else scaling
    together = query.reshape(n_rows * groups, -1, width)  # the heads of a group, and their queries
    scores = together @ key.reshape(n_rows * groups, n_keys, width).mT
    wide = torch.promote_types(scores.dtype, torch.float32)
    scores = scores.view(n_rows, groups, -1, n_queries, n_keys).to(wide) * scaling
    if attention_mask is not None:
        mask = attention_mask[:, :, None, :, :n_keys]
        if mask.dtype == torch.bool:
            scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        else:
            scores = scores + mask
    weights = scores.softmax(-1).view(n_rows * groups, -1, n_keys).to(value.dtype)
    found = weights @ value.reshape(n_rows * groups, n_keys, -1)
    return found.view(n_rows, heads, n_queries, -1).transpose(1, 2), None
