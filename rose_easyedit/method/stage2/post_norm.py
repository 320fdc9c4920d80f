"""Norms behind the down projection (Gemma 2 and 3, OLMo 2): what the projection must gain.

Such a layer adds gain * s to the residual stream, with s = v / rms(v) of the down projection's
output v. So it gives only what some s with rms(s) = 1 gives, however long v is, and a change of v
is worth what it does to its direction alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

# The multiplier that puts s on its sphere is found to float64's precision.
_HALVINGS = 100


def nearest_on_sphere(gain: Tensor, goal: Tensor, scale: Tensor) -> Tensor:
    """The s with rms(s) = 1 whose gain * s is nearest to a goal, [N, d], float64.

    Minimises |(gain * s - goal) / scale|^2, which is s = gain * goal / (gain^2 + mu * scale^2),
    with the one mu above -min(gain^2 / scale^2) that gives s its length.

    Args:
        gain: of each coordinate, [d]; not all zero.
        goal: [N, d]; rows that are not all zero where the gain is not.
        scale: of each coordinate, above 0, [d].
    """
    slope = (gain / scale).double()  # of s in units of the scale
    goal = (goal / scale).double()
    pull = slope * goal  # [N, d]
    curvature = slope.square()  # [d]
    target = goal.shape[1] ** 0.5

    def at(mu: Tensor) -> Tensor:
        return pull / (curvature + mu[:, None])

    # |s| falls from infinity to 0 as mu grows: no more than |pull| / |s| is needed
    low = -curvature[pull.abs().amax(0) > 0].min().expand(len(goal)).clone()
    high = low + pull.norm(dim=1) / target
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        longer = at(middle).norm(dim=1) > target
        low, high = torch.where(longer, middle, low), torch.where(longer, high, middle)
    return at(high)


def gain_before_norm(gain: Tensor, outputs: Tensor, wanted: Tensor, scale: Tensor) -> Tensor:
    """What the down projection must gain for the layer to gain `wanted`, or come near it, [N, d].

    Args:
        gain: of the norm, [d].
        outputs: v, what the down projection gives now, [N, d].
        wanted: what the residual stream shall gain, [N, d].
        scale: by which a miss in each coordinate counts, [d].
    """
    rms = outputs.double().square().mean(1, keepdim=True).sqrt()  # [N, 1]
    now = outputs.double() / rms
    then = nearest_on_sphere(gain, gain * now + wanted.double(), scale)
    return ((then - now) * rms).to(wanted.dtype)
