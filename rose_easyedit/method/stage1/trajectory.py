"""The trajectory of an optimisation: what all groups of a level did at each step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from rose_easyedit.errors import shown

# One list per measure, one entry per step; see `curve_of`.
Curve = dict[str, list[float | None]]


@dataclass
class Trajectory:
    """What one chunk of groups did, step by step, left where it was computed until it is read.

    Attributes:
        facts: per step, the loss of each fact that went on (nats per target token), on the CPU.
        going_on: per step, which of the n groups went on, [n], on the CPU.
        drifts: per step, the summed drift of what the groups keep (nats) and the weight of what of
            it was run, [2], on the model's device; None where nothing was.
        norms: per step, |delta| / |h| of each group before it, [n], on the model's device.
    """

    facts: list[Tensor] = field(default_factory=list)
    going_on: list[Tensor] = field(default_factory=list)
    drifts: list[Tensor | None] = field(default_factory=list)
    norms: list[Tensor] = field(default_factory=list)

    def add(
        self, *, facts: Tensor, going_on: Tensor, drifts: Sequence[Tensor], norms: Tensor
    ) -> None:
        """Adds a step; `drifts` has a drift and a weight for each piece with what is kept."""
        self.facts.append(facts)
        self.going_on.append(going_on)
        self.drifts.append(torch.stack(list(drifts)).sum(0) if drifts else None)
        self.norms.append(norms)

    def totals(self, most: int | None = None) -> list[Totals]:
        """The sums of each step, or of so many; the one moment at which a device is waited for."""
        if not self.norms[:most]:
            return []
        norms = torch.stack(self.norms[:most]).cpu()
        found = []
        for facts, going_on, drift, norm in zip(
            self.facts[:most], self.going_on[:most], self.drifts[:most], norms, strict=True
        ):
            groups = int(going_on.sum())
            found.append(
                Totals(
                    facts=len(facts),
                    loss=float(facts.sum()),
                    groups=groups,
                    norm=float(norm[going_on].sum()),
                    drift=0.0 if drift is None else float(drift[0]),
                    kept=0.0 if drift is None else float(drift[1]),
                )
            )
        return found


@dataclass(frozen=True)
class Totals:
    """The sums of a step over some groups, and how many terms each has."""

    facts: int = 0
    loss: float = 0.0
    groups: int = 0
    norm: float = 0.0
    drift: float = 0.0
    kept: float = 0.0

    @classmethod
    def from_json(cls, values: Any) -> Totals:
        """What `asdict` gave, of a file that may hold anything.

        Raises:
            TypeError: it is none.
        """
        made = cls(**values)
        counts, sums = (made.facts, made.groups), (made.loss, made.norm, made.drift, made.kept)
        if not {type(n) for n in counts} <= {int} or not {type(x) for x in sums} <= {float}:
            raise TypeError(f"the sums of a step are {shown(values)}")
        return made


def curve_of(chunks: Iterable[list[Totals]]) -> Curve:
    """The means over the groups that go on, whatever chunks they were optimised in.

    Returns:
        Per step: `loss`, the mean over facts of the loss that the step minimises (nats per target
        token, in the contexts of the step's turn); `drift`, the mean KL of what is kept (nats),
        None at steps whose turn has none of it or where it is not finite; `norm`, the mean
        |delta| / |h| before the step; `groups` and `facts`, how many went on. Six significant
        digits.
    """
    curve: Curve = {name: [] for name in ("loss", "drift", "norm", "groups", "facts")}
    for steps in zip_longest(*chunks, fillvalue=Totals()):
        facts, groups = sum(s.facts for s in steps), sum(s.groups for s in steps)
        curve["loss"].append(_mean(sum(s.loss for s in steps), facts))
        curve["drift"].append(_mean(sum(s.drift for s in steps), sum(s.kept for s in steps)))
        curve["norm"].append(_mean(sum(s.norm for s in steps), groups))
        curve["groups"].append(groups)
        curve["facts"].append(facts)
    return curve


def _mean(total: float, count: float) -> float | None:
    return float(f"{total / count:.6g}") if count and isfinite(total) else None
