"""The logits of a batch's last positions; a shared prefix that all rows share is read once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from transformers import DynamicCache

from rose_easyedit.forward.generation import pad_left
from rose_easyedit.forward.shared_prefix import read_shared_prefix, sharable_prefix
from rose_easyedit.models.offload import computing_device
from rose_easyedit.text.token_ids import check_ids


def last_logits(model: Any, rows: Sequence[Sequence[int]], wanted: Sequence[int]) -> Tensor:
    """Logits at the last positions of each row, which end where the row ends.

    Args:
        model: A causal language model; call inside `generation.inference`.
        rows: Token ids, unpadded.
        wanted: How many last positions of each row are needed, at least one and at most its
            length.

    Returns:
        float32 [rows, max(wanted), vocabulary]; what is before a row's own `wanted` is of no use.

    Raises:
        RoSEError: A row has tokens that the model does not have.
    """
    check_ids(model, rows)
    own = min(len(row) - n for row, n in zip(rows, wanted, strict=True))
    shared_prefix = min(sharable_prefix(model, rows), own)
    inputs = pad_left(rows, 0, computing_device(model), shared_prefix)
    mask = inputs["attention_mask"]
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    cache = None
    if shared_prefix:
        cache = DynamicCache(config=model.config)
        read_shared_prefix(model.base_model, rows[0][:shared_prefix], cache, len(rows))
    output = model(
        input_ids=inputs["input_ids"][:, shared_prefix:],
        attention_mask=mask,
        position_ids=positions[:, shared_prefix:],
        past_key_values=cache,
        use_cache=cache is not None,
        logits_to_keep=max(wanted),
    )
    found: Tensor = output.logits.float()
    return found
