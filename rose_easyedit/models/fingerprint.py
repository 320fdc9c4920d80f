"""Fingerprints of weights: which model an edit or a cached result belongs to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rose_easyedit.models.offload import stored_state

_SAMPLES = 1024
_ORIGIN = ("_name_or_path", "transformers_version")
_WHOLE_NUMBERS = (torch.int64, torch.int32, torch.int16, torch.int8)


def weights_fingerprint(weights: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 over names, shapes, types and every byte of some weights, in whatever order."""
    digest = hashlib.sha256()
    for name, weight in sorted(weights, key=itemgetter(0)):
        digest.update(_header(name, weight))
        digest.update(_bytes(weight))
    return digest.hexdigest()


def model_fingerprint(model: nn.Module) -> str:
    """SHA-256 over names, shapes, types, samples and the sum of every row of all weights.

    The sums are of the numbers' bits, so that any one that changes changes its row's. It takes as
    long as reading the weights once; it does not prove that two models are equal.
    """
    digest = hashlib.sha256()
    for name, weight in stored_state(model):
        flat = weight.detach().reshape(-1)
        digest.update(_header(name, weight))
        digest.update(_bytes(flat[:: max(1, flat.numel() // _SAMPLES)]))
        digest.update(_bytes(_row_sums(weight)))
    return digest.hexdigest()


def computation_fingerprint(model: PreTrainedModel) -> str:
    """SHA-256 over `model_fingerprint` and the model's configuration: what its answers depend on.

    Equal weights compute something else with another rotation, window or activation. Where a model
    was loaded from, and by which version, does not count.
    """
    config = json.dumps(_without_origin(model.config.to_dict()), sort_keys=True, default=str)
    return hashlib.sha256(f"{model_fingerprint(model)}:{config}".encode()).hexdigest()


def _without_origin(config: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _without_origin(value) if isinstance(value, dict) else value
        for name, value in config.items()
        if name not in _ORIGIN
    }


def _header(name: str, weight: Tensor) -> bytes:
    return f"{name}:{tuple(weight.shape)}:{weight.dtype}".encode()


def _row_sums(weight: Tensor) -> Tensor:
    """The sum of the bits of each row, wrapped around, which no order of adding changes."""
    rows = weight.detach().reshape(len(weight) if weight.dim() > 1 else 1, -1).contiguous()
    length = rows.shape[1] * rows.element_size()
    kind = next(kind for kind in _WHOLE_NUMBERS if length % kind.itemsize == 0)  # wide is fast
    return rows.view(torch.uint8).view(kind).sum(1, dtype=torch.int64)


def _bytes(weight: Tensor) -> bytes:
    return weight.detach().contiguous().cpu().reshape(-1).view(torch.uint8).numpy().tobytes()
