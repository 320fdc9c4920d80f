"""What an edit has to know of a model that it was applied to, so that it can come off again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rose_easyedit.models.fingerprint import weights_fingerprint


@dataclass(frozen=True)
class AppliedEdit:
    """What `EditDelta.apply` found and what it left.

    Attributes:
        originals: weight name to its numbers before.
        edited: weight name to the SHA-256 of its numbers after.
    """

    originals: dict[str, Tensor]
    edited: dict[str, str]

    def is_original(self, name: str, weight: Tensor) -> bool:
        """Whether a weight is as `apply` found it."""
        return torch.equal(weight, self.originals[name])

    def is_edited(self, name: str, weight: Tensor) -> bool:
        """Whether a weight is as `apply` left it; both, where the edit was rounded away."""
        return weights_fingerprint([(name, weight)]) == self.edited[name]

    def is_undone(self, weights: Mapping[str, Tensor]) -> bool:
        """Whether the weights, by name, are all as `apply` found them."""
        return all(
            self.is_original(name, weight) and not self.is_edited(name, weight)
            for name, weight in weights.items()
        )
