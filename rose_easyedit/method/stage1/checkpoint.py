"""An optimisation between two of its steps: all that it takes to go on as if nothing had been."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from rose_easyedit.method.stage1.trajectory import Totals


@dataclass(frozen=True)
class Checkpoint:
    """Where n groups that are optimised together have come to, on the CPU.

    Attributes:
        point: the shifts, in units of `Setting.unit`, [n, d].
        moments: Adam's two running means, [2, n, d].
        losses: of each fact in each turn, [turns, facts].
        steps: that each group took, [n].
        converged: which groups go on no more, [n].
        totals: the sums of each step that was done.
        draws: how many displacements each row has had, by its name.
    """

    point: Tensor
    moments: Tensor
    losses: Tensor
    steps: Tensor
    converged: Tensor
    totals: list[Totals]
    draws: Mapping[str, int]

    def fits(self, point: Tensor, losses: Tensor, steps: int) -> bool:
        """Whether it can be one of an optimisation of so many steps, [n, d] and [turns, facts].

        Its content may be any: what goes on from another one would be no optimum, or never end.
        """
        n, done = len(point), len(self.totals)
        kinds = [
            (self.point, torch.float32, point.shape),
            (self.moments, torch.float32, (2, *point.shape)),
            (self.losses, torch.float32, losses.shape),
            (self.steps, torch.long, (n,)),
            (self.converged, torch.bool, (n,)),
        ]
        return (
            all(tensor.dtype == dtype and tensor.shape == shape for tensor, dtype, shape in kinds)
            and bool(self.point.isfinite().all())
            # a fact that has failed leaves what is not finite in its own group's
            and bool(self.moments[:, ~self.converged].isfinite().all())
            and bool(((self.steps >= 0) & (self.steps <= done)).all())
            and 0 < done <= steps
            and all(type(n_had) is int and 0 <= n_had <= done for n_had in self.draws.values())
        )

    def as_tensors(self) -> dict[str, Tensor]:
        """What is written to a file."""
        rest = {"totals": [asdict(step) for step in self.totals], "draws": dict(self.draws)}
        record = torch.frombuffer(bytearray(json.dumps(rest).encode()), dtype=torch.uint8)
        return {
            "point": self.point,
            "moments": self.moments,
            "losses": self.losses,
            "steps": self.steps,
            "converged": self.converged,
            "record": record,
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Checkpoint:
        """What `as_tensors` gave."""
        rest = json.loads(tensors["record"].numpy().tobytes())
        return cls(
            point=tensors["point"],
            moments=tensors["moments"],
            losses=tensors["losses"],
            steps=tensors["steps"],
            converged=tensors["converged"],
            totals=[Totals.from_json(step) for step in rest["totals"]],
            draws=dict(rest["draws"]),
        )
