"""What stage 1 found: the shift of each group, put together from parts, and as plain tensors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor

from rose_easyedit.method.stage1.pieces import Group
from rose_easyedit.method.stage1.trajectory import Curve, Totals, curve_of


@dataclass
class Shifts:
    """What an optimisation found for n groups.

    Attributes:
        deltas: [n, d], float32.
        losses: per group, the last loss of each of its facts (nats per target token); NaN where
            it was not finite and the fact is to be left out.
        steps: per group, the steps it took.
        trajectories: the sums of each step, of every chunk of groups that were optimised together,
            by the name of the level, that of an earlier level first.
    """

    deltas: Tensor
    losses: list[list[float]] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    trajectories: dict[str, list[list[Totals]]] = field(default_factory=dict)

    @property
    def curves(self) -> dict[str, Curve]:
        """The trajectory of the optimisation, over all chunks, by the name of the level."""
        return {name: curve_of(chunks) for name, chunks in self.trajectories.items()}

    @classmethod
    def of_parts(cls, parts: Sequence[tuple[Sequence[int], Shifts]]) -> Shifts:
        """The shifts of n groups from those of some of them.

        Args:
            parts: at least one; which of the n groups it is of, and their shifts.
        """
        order = [group for groups, _ in parts for group in groups]
        back = sorted(range(len(order)), key=order.__getitem__)
        losses = [of_group for _, part in parts for of_group in part.losses]
        steps = [taken for _, part in parts for taken in part.steps]
        trajectories: dict[str, list[list[Totals]]] = {}
        for _, part in parts:
            for name, chunks in part.trajectories.items():
                trajectories.setdefault(name, []).extend(chunks)
        return cls(
            torch.cat([part.deltas for _, part in parts])[back],
            [losses[place] for place in back],
            [steps[place] for place in back],
            trajectories,
        )

    def as_tensors(self) -> dict[str, Tensor]:
        """The shifts as what is written to a file or sent to another process."""
        rest = {
            "losses": self.losses,
            "steps": self.steps,
            "trajectories": {
                name: [[asdict(step) for step in chunk] for chunk in chunks]
                for name, chunks in self.trajectories.items()
            },
        }
        record = torch.frombuffer(bytearray(json.dumps(rest).encode()), dtype=torch.uint8)
        return {"deltas": self.deltas.float().cpu().contiguous(), "record": record}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Shifts:
        """What `as_tensors` gave, on the CPU.

        Raises:
            KeyError, AttributeError, TypeError, ValueError, RuntimeError: it is something else.
        """
        rest = json.loads(tensors["record"].numpy().tobytes())
        lists = [rest["losses"], rest["steps"], *rest["losses"]]
        if not all(isinstance(values, list) for values in lists):
            raise TypeError("its losses or steps are no lists")
        trajectories = {
            name: [[Totals.from_json(step) for step in chunk] for chunk in chunks]
            for name, chunks in rest["trajectories"].items()
        }
        return cls(tensors["deltas"], rest["losses"], rest["steps"], trajectories)

    def fit(self, groups: Sequence[Group], start: Tensor) -> bool:
        """Whether they can be those of n groups that begin at `start`, [n, d]."""
        return (
            self.deltas.shape == start.shape
            and self.deltas.dtype == torch.float32
            and bool(self.deltas.isfinite().all())
            and [len(of_group) for of_group in self.losses] == [len(g.facts) for g in groups]
            and all(type(loss) is float for of_group in self.losses for loss in of_group)
            and [type(taken) for taken in self.steps] == [int] * len(groups)
        )

    @classmethod
    def none(cls, width: int) -> Shifts:
        """The shifts of no group."""
        return cls(torch.zeros(0, width, dtype=torch.float32, device="cpu"))
