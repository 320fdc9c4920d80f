"""How stage 1 is run: what all groups of a run have in common, and what its levels differ in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from rose_easyedit.config.hparams import HierarchyHyperParams
from rose_easyedit.method.stage1.checkpoint import Checkpoint
from rose_easyedit.method.stage1.pieces import Group
from rose_easyedit.models.architectures import EditableModel


@dataclass(frozen=True)
class Level:
    """How a level is optimised.

    Attributes:
        steps: at the most.
        learning_rate: of Adam, in units of `Setting.unit`.
        smoothing_radius: largest random displacement, in the same units, root mean square.
        name: of what it optimises.
    """

    steps: int
    learning_rate: float
    smoothing_radius: float = 0.0
    name: str = "subjects"


class Unfinished(Protocol):
    """Where a chunk that an interrupt has cut off is kept, by its groups and where they began."""

    def load(self, setting: Setting, groups: Sequence[Group], start: Tensor) -> Checkpoint | None:
        """What is kept of a chunk, or None."""

    def save(
        self, setting: Setting, groups: Sequence[Group], start: Tensor, reached: Checkpoint
    ) -> None:
        """Keeps what a chunk has come to."""

    def drop(self, setting: Setting, groups: Sequence[Group], start: Tensor) -> None:
        """Lets go of what is kept of a chunk, which is finished."""


@dataclass(frozen=True)
class Setting:
    """What all groups of a run have in common.

    Attributes:
        editable: the model; frozen.
        layer: the target layer.
        unit: of each coordinate of a shift, [d] (`units.subject_unit`).
        hparams: weights of the loss terms, threshold and clamp.
        micro_batch: sequences run at once; fewer where the memory does not hold them.
        seed: of the random directions.
        autocast: a fresh precision context for each use.
        on_step: told how many steps of groups were done or saved since it was last told; less
            than 0 where they have to be done again.
        unfinished: where what an interrupt has cut off is kept; None keeps nothing.
    """

    editable: EditableModel
    layer: int
    unit: Tensor
    hparams: HierarchyHyperParams
    micro_batch: int
    seed: int
    autocast: Callable[[], AbstractContextManager[None]]
    on_step: Callable[[int], object] = lambda _groups: None
    unfinished: Unfinished | None = None
