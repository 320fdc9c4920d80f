"""A low-rank update of a weight, multiplied out only where it must be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rose_easyedit.errors import RoSEError


@dataclass(frozen=True)
class Factors:
    """A low-rank update dW = left @ right of a weight [d, d_ff].

    Attributes:
        left: [d, r].
        right: [r, d_ff].
        transposed: whether the weight is stored as [d_ff, d].
    """

    left: Tensor
    right: Tensor
    transposed: bool = False

    @property
    def rank(self) -> int:
        """Inner size r of the two factors."""
        return self.left.shape[1]

    @property
    def is_finite(self) -> bool:
        """Whether all its numbers are."""
        return bool(self.left.isfinite().all()) and bool(self.right.isfinite().all())

    def dense(self) -> Tensor:
        """The update as the weight is stored, in float64."""
        update = self.left.double() @ self.right.double()
        return update.T if self.transposed else update

    def padded(self, rank: int) -> Factors:
        """The same update with a larger inner size, the columns added zero."""
        pad = torch.nn.functional.pad
        more = rank - self.rank
        return Factors(pad(self.left, (0, more)), pad(self.right, (0, 0, 0, more)), self.transposed)

    def compressed(self) -> Factors:
        """The same update with as few columns as its numerical rank, in float32.

        Singular values below 1e-7 of the largest are beneath what float32 can hold.
        """
        left_q, left_r = torch.linalg.qr(self.left.double())
        right_q, right_r = torch.linalg.qr(self.right.double().T)
        # An SVD by its left vectors alone, in a fraction of its time. What they leave of the inner
        # matrix has rows as long as the singular values, more exactly than the roots would be.
        inner = left_r @ right_r.T
        vectors = torch.linalg.eigh(inner @ inner.T).eigenvectors.flip(1)  # the largest first
        rest = vectors.T @ inner
        lengths = rest.norm(dim=1)
        kept = lengths > lengths.max() * 1e-7
        kept[0] = True
        root = lengths[kept].sqrt().clamp(min=torch.finfo(lengths.dtype).tiny)
        left = (left_q @ vectors[:, kept]) * root
        right = (rest[kept] / root[:, None]) @ right_q.T
        return Factors(left.float().contiguous(), right.float().contiguous(), self.transposed)


# A few numbers are padded to whatever they need, many to a few times as many.
_PADDED_NUMBERS, _PADDED_TIMES = 1 << 26, 16


def common_rank(layers: Mapping[str, Factors]) -> int:
    """The largest rank, to which forms with one rank for all weights pad the others.

    Raises:
        RoSEError: the padded factors would be of another size altogether than the edit; nothing
            has been allocated.
    """
    rank = max(factors.rank for factors in layers.values())
    ends = sum(factors.left.shape[0] + factors.right.shape[1] for factors in layers.values())
    own = sum(factors.left.numel() + factors.right.numel() for factors in layers.values())
    if rank * ends > max(_PADDED_NUMBERS, _PADDED_TIMES * own):
        ranks = [factors.rank for factors in layers.values()]
        raise RoSEError(
            f"The ranks of this edit's weights go from {min(ranks):,} to {rank:,}; an adapter has "
            f"one rank for all, and would take {4e-9 * rank * ends:,.0f} GB. Apply the edit "
            "instead (`rose-edit apply`, `save_merged`)."
        )
    return rank


_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def factor_faults(layers: Mapping[str, Factors]) -> list[str]:
    """What is wrong with the factors that were read from a file, by name."""
    faults = []
    if not layers:
        faults.append("it has no layer")
    for name, factors in layers.items():
        left, right = factors.left, factors.right
        if left.dim() != 2 or right.dim() != 2 or left.shape[1] != right.shape[0]:
            faults.append(
                f"{name}: factors {tuple(left.shape)} and {tuple(right.shape)} do not match"
            )
        elif not (left.numel() and right.numel()):
            faults.append(f"{name}: factors {tuple(left.shape)} and {tuple(right.shape)} are empty")
        elif left.dtype not in _DTYPES or right.dtype not in _DTYPES:
            faults.append(f"{name}: factors of type {left.dtype} and {right.dtype}")
        elif not factors.is_finite:
            faults.append(f"{name}: numbers that are not finite")
    return faults
