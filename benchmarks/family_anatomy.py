"""What of a trained model makes an edit hard: its norms, and what hidden states share."""

from __future__ import annotations

from typing import Any

import torch
from family_models import Trained, gain, is_norm
from torch import Tensor, nn

from rose_easyedit.models.architectures import first_tensor, read_architecture


def anatomy(trained: Trained, layer: int) -> dict[str, Any]:
    """Gains and hidden states of a model.

    Args:
        trained: The model.
        layer: After which hidden states are read, at the last token of "It is well known that X".

    Returns:
        `gains`: of all norms; `post_gains`: of those behind a down projection, None if it has
        none; `hidden`: mean |h|; `strongest`: share of the strongest coordinate in the energy of
        h; `own`: |h - mean over subjects| / |h|.
    """
    editable = read_architecture(trained.model)
    norms = [module for module in trained.model.modules() if is_norm(module)]
    behind = [norm for norm in editable.post_norms if norm is not None]
    hidden = _states(trained, editable.layers[layer])
    energy = hidden.square()
    apart = (hidden - hidden.mean(0)).norm(dim=1)
    return {
        "gains": _gains(norms),
        "post_gains": _gains(behind) if behind else None,
        "hidden": float(hidden.norm(dim=1).mean()),
        "strongest": float(energy.mean(0).max() / energy.mean(0).sum()),
        "own": float((apart / hidden.norm(dim=1)).mean()),
    }


def _gains(norms: list[nn.Module]) -> dict[str, float]:
    gains = torch.cat([gain(norm).abs() for norm in norms])
    return {
        "rms": float(gains.square().mean().sqrt()),
        "least": float(gains.quantile(0.05)),
        "most": float(gains.quantile(0.95)),
    }


def _states(trained: Trained, layer: nn.Module) -> Tensor:
    """Hidden states after a layer at the last token of each silent person's name, [n, d]."""
    found = []
    hook = layer.register_forward_hook(lambda _m, _i, out: found.append(first_tensor(out)[0, -1]))
    with torch.no_grad():
        for person in trained.silent:
            text = f"It is well known that {person.name}"
            trained.model(**trained.tokenizer(text, return_tensors="pt"), use_cache=False)
    hook.remove()
    return torch.stack(found)
