"""Fingerprints of weights: which model an edit or a cached result belongs to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from operator import itemgetter

import torch
from torch import Tensor, nn

from rose_easyedit.offload import stored_state

_SAMPLES = 1024


def weights_fingerprint(weights: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 over names, shapes, types and every byte of some weights, in whatever order."""
    digest = hashlib.sha256()
    for name, weight in sorted(weights, key=itemgetter(0)):
        digest.update(_header(name, weight))
        digest.update(_bytes(weight))
    return digest.hexdigest()


def model_fingerprint(model: nn.Module) -> str:
    """SHA-256 over names, shapes, types and evenly spaced samples of all weights: milliseconds.

    Any edit, fine-tuning or change of type moves nearly every number of some matrix, so samples
    tell models apart; they do not prove that two are equal.
    """
    digest = hashlib.sha256()
    for name, weight in stored_state(model):
        flat = weight.detach().reshape(-1)
        digest.update(_header(name, weight))
        digest.update(_bytes(flat[:: max(1, flat.numel() // _SAMPLES)]))
    return digest.hexdigest()


def _header(name: str, weight: Tensor) -> bytes:
    return f"{name}:{tuple(weight.shape)}:{weight.dtype}".encode()


def _bytes(weight: Tensor) -> bytes:
    return weight.detach().contiguous().cpu().reshape(-1).view(torch.uint8).numpy().tobytes()
