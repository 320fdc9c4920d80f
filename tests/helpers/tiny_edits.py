"""Random edits of tiny models."""

from __future__ import annotations

from typing import Any

import torch

from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.edits.factors import Factors
from rose_easyedit.models.fingerprint import weights_fingerprint

NAMES = {
    "llama-tied": [f"model.layers.{layer}.mlp.down_proj.weight" for layer in (1, 2)],
    "gpt2": [f"transformer.h.{layer}.mlp.c_proj.weight" for layer in (1, 2)],
}


REQUEST = {"prompt": "\u6771\u4eac is", "subject": "\u6771\u4eac", "target_new": "b"}


def make_delta(model: Any, name: str = "llama-tied", scale: float = 0.1) -> EditDelta:
    """A random edit of rank 3 and 2 that fits the model."""
    generator = torch.Generator().manual_seed(0)
    transposed = name == "gpt2"
    layers = {}
    for rank, weight_name in zip((3, 2), NAMES[name], strict=True):
        weight = model.get_parameter(weight_name)
        d, d_ff = weight.shape[::-1] if transposed else weight.shape
        layers[weight_name] = Factors(
            scale * torch.randn(d, rank, generator=generator),
            torch.randn(rank, d_ff, generator=generator),
            transposed,
        )
    base = weights_fingerprint((n, model.get_parameter(n)) for n in layers)
    return EditDelta(
        layers,
        base,
        {
            "requests": [REQUEST],
            "losses": [1e-9],
            "groups": [[0]],
            "architecture": model.config.model_type,
        },
        torch.randn(1, d, generator=generator),
    )
