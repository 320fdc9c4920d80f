"""The loss of a subject's facts around its target, along random directions."""

from __future__ import annotations

import torch
from torch import Tensor

from rose_easyedit.geometry.suffix import Suffixes


def losses_around(
    suffixes: Suffixes, facts: Tensor, targets: Tensor, directions: Tensor, radii: Tensor
) -> Tensor:
    """Mean loss over a subject's facts with h_L(s) = z_s + r u, for each u and r.

    Args:
        suffixes: of the unedited model, behind each fact's statement.
        facts: which of them are the subject's, [n].
        targets: z_s, once per fact, [n, d].
        directions: unit directions u, [U, d].
        radii: r, negative ones for the opposite direction, [P].

    Returns:
        Nats per target token, [U, P], on the CPU.
    """
    targets, away = targets.cpu().float(), radii != 0
    steps = (directions[:, None] * radii[away, None]).flatten(0, 1)  # [U * P', d]
    points = torch.cat([torch.zeros_like(steps[:1]), steps])  # all directions share the target
    hidden = (targets + points[:, None]).flatten(0, 1)
    losses = suffixes.losses(facts.repeat(len(points)), hidden).view(-1, len(facts)).mean(1)
    found = losses[0].repeat(len(directions), len(radii))
    found[:, away] = losses[1:].view(len(directions), -1)
    return found
