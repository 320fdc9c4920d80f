"""R: how far from its target a hidden state may be until a fact is no longer decoded.

    R(s, fact) = the largest r for which the fact is decoded with h_L(s) = z_s + r u,

over random unit directions u. Per direction it is found by bisection; a quantile over the
directions (the median, unless asked otherwise) is the fact's radius.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from rose_easyedit.geometry.suffix import Suffixes


@dataclass(frozen=True)
class Radius:
    """The tolerance of one fact's target.

    Attributes:
        radius: the quantile over directions; 0 where the fact is not decoded at its target.
        smallest: over the directions.
        norm: |h| of the unedited model at the statement's subject, the radius's natural unit.
        capped: share of the directions in which the fact was decoded as far as was asked.
    """

    radius: float
    smallest: float
    norm: float
    capped: float

    def as_dict(self) -> dict[str, Any]:
        """The numbers by name."""
        return asdict(self)


def largest_radii(decoded: Callable[[Tensor], Tensor], cap: Tensor, halvings: int) -> Tensor:
    """Bisection along N rays at once: the largest radius up to `cap` that is still decoded.

    A result is at most cap / 2**halvings too small, 0 where nothing is decoded at 0, and the cap
    where the point there is decoded. On a ray along which decoding is lost and found again, it is
    one of the places where it is lost.

    Args:
        decoded: from radii [N] to whether the point at that radius of each ray is decoded, [N].
        cap: the largest radius of interest, [N].
        halvings: of the interval.
    """
    low, high = torch.zeros_like(cap), cap
    decoded_at_all, decoded_at_cap = decoded(low), decoded(cap)
    for _ in range(halvings):
        middle = (low + high) / 2
        inside = decoded(middle)
        low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
    return torch.where(decoded_at_all, torch.where(decoded_at_cap, cap, low), torch.zeros_like(cap))


def radii_of_facts(
    suffixes: Suffixes,
    targets: Tensor,
    directions: Tensor,
    *,
    max_radius: float,
    halvings: int,
) -> Tensor:
    """The radius of every fact in every direction, measured through the unedited later layers.

    A halving is one batch of all facts and directions.

    Args:
        suffixes: of the unedited model, behind the statements of F facts.
        targets: z_s of each fact, [F, d].
        directions: unit directions, [U, d].
        max_radius: the largest radius asked for, in multiples of |h| at the statement's subject.
        halvings: of the bisection.

    Returns:
        Radii [F, U].
    """
    n_facts, n_directions = len(targets), len(directions)
    fact = torch.arange(n_facts, device="cpu").repeat_interleave(n_directions)
    centers, steps = targets.cpu().float()[fact], directions.repeat(n_facts, 1)

    def decoded(radius: Tensor) -> Tensor:
        found = suffixes.decoded(fact, centers + radius[:, None] * steps)
        bar.update()
        return found

    with tqdm(total=halvings + 2, desc="radii", unit="step", leave=False, disable=None) as bar:
        radii = largest_radii(decoded, max_radius * suffixes.norms[fact], halvings)
    return radii.view(n_facts, n_directions)


def summarise(radii: Tensor, norms: Tensor, *, quantile: float, max_radius: float) -> list[Radius]:
    """One `Radius` a fact, from radii [F, U] and norms |h| [F].

    Args:
        radii: of every fact in every direction.
        norms: of the hidden state at each fact's subject.
        quantile: over the directions; 0.5 is the median.
        max_radius: the cap that the radii were found with.
    """
    return [
        Radius(
            radius=float(row.quantile(quantile)),
            smallest=float(row.min()),
            norm=float(norm),
            capped=float((row >= max_radius * norm).float().mean()),
        )
        for row, norm in zip(radii, norms, strict=True)
    ]
