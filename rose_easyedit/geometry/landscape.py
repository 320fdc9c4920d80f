"""The loss of a subject's facts around its target, along random directions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rose_easyedit.forward.replay import capture
from rose_easyedit.geometry.suffix import losses_at
from rose_easyedit.models.architectures import EditableModel
from rose_easyedit.text.locate_subject import TokenQuery


@torch.no_grad()
def losses_around(
    editable: EditableModel,
    statements: Sequence[TokenQuery],
    targets: Tensor,
    directions: Tensor,
    radii: Tensor,
    *,
    layer: int,
) -> Tensor:
    """Mean loss over a subject's facts with h_L(s) = z_s + r u, for each u and r.

    Args:
        editable: the unedited model; call inside `activations.frozen`.
        statements: of the subject's n facts, each with its target behind it.
        targets: z_s, once per fact, [n, d].
        directions: unit directions u, [U, d].
        radii: r, negative ones for the opposite direction, [P].
        layer: the target layer.

    Returns:
        Nats per target token, [U, P], on the CPU.
    """
    replay = capture(editable, statements, layer)
    center = targets.to(replay.hidden.device).float()
    steps = (directions[:, None] * radii[:, None]).to(center)  # [U, P, d]
    rows = [[float(losses_at(replay, center + s).mean()) for s in along] for along in steps]
    return torch.tensor(rows, dtype=torch.float32, device="cpu")
