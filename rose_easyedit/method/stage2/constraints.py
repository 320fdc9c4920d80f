"""The constraints of stage 2: how freely an update may use each direction of the generic keys.

A constraint is a choice of A, and each A here keeps the eigenvectors of the generic keys' second
moment and maps their eigenvalues. So one solver serves all of them (`closed_form.py`), and adding a
constraint is writing one function here, and its row in `CONSTRAINTS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from rose_easyedit.config.hparams import AlignmentHyperParams

# Below this fraction of the mean, an eigenvalue estimated from few tokens is noise, not freedom.
EIGENVALUE_FLOOR = 1e-3


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues and eigenvectors of the second moment of generic keys, C = E[k k^T].

    Attributes:
        eigenvalues: in descending order, [r].
        directions: unit eigenvectors, [r, d_ff]; the other directions have eigenvalue 0.
    """

    eigenvalues: Tensor
    directions: Tensor

    @property
    def mean(self) -> float:
        """Mean eigenvalue over all d_ff directions."""
        return float(self.eigenvalues.sum()) / self.directions.shape[1]

    def first(self, number: int | None) -> Spectrum:
        """The directions of the largest eigenvalues, so many of them; None is all.

        Of the others nothing is known then: `mean` is not that of all directions.
        """
        return Spectrum(self.eigenvalues[:number], self.directions[:number])


@dataclass(frozen=True)
class InversePenalty:
    """A^-1 along the directions of a spectrum: 0 forbids a direction, more is freer.

    Attributes:
        along: for each direction of the spectrum, [r].
        elsewhere: for every direction orthogonal to those.
    """

    along: Tensor
    elsewhere: float

    def root(self) -> InversePenalty:
        """A^-1/2, which has the same eigenvectors."""
        return InversePenalty(self.along.sqrt(), self.elsewhere**0.5)

    def apply(self, keys: Tensor, directions: Tensor) -> Tensor:
        """K A^-1, [N, d_ff], for keys [N, d_ff] and directions [r, d_ff]."""
        import torch

        special = self.along != self.elsewhere
        along, directions = self.along[special], directions[special]
        if not bool(along.all()):
            # A key may lie in a forbidden direction a thousand times over: the rounding of stored
            # directions to float32 must not let it through.
            directions = torch.linalg.qr(directions.T).Q.T
        components = keys @ directions.T  # [N, r]
        return self.elsewhere * keys + (components * (along - self.elsewhere)) @ directions


def protected(spectrum: Spectrum, directions: int = 0) -> InversePenalty:
    """A = I, with an infinite penalty on the top directions of generic keys, if any."""
    along = spectrum.eigenvalues.new_ones(len(spectrum.eigenvalues))
    along[:directions] = 0.0
    return InversePenalty(along, 1.0)


def shrinkage(spectrum: Spectrum, gamma: float) -> InversePenalty:
    """A = (1 - gamma) C + gamma * mean(C) * I (Ledoit and Wolf's form): covariance at 0."""
    identity = max(gamma, EIGENVALUE_FLOOR) * spectrum.mean
    return InversePenalty(1.0 / ((1.0 - gamma) * spectrum.eigenvalues + identity), 1.0 / identity)


def covariance(spectrum: Spectrum) -> InversePenalty:
    """A = C (MEMIT), plus a thousandth of its mean eigenvalue so that it has an inverse."""
    return shrinkage(spectrum, 0.0)


def null_space(spectrum: Spectrum, threshold: float) -> InversePenalty:
    """A = I on directions with an eigenvalue up to the threshold, else forbidden (AlphaEdit)."""
    return InversePenalty((spectrum.eigenvalues <= threshold).to(spectrum.eigenvalues.dtype), 1.0)


@dataclass(frozen=True)
class Constraint:
    """What a name in the settings stands for.

    Attributes:
        inverse_penalty: A^-1, of a spectrum under the settings.
        relative: whether its weight is `strength`, relative to the keys being written, or
            `covariance_weight`, in MEMIT's units.
        leading: how many directions of the spectrum of keys [d_ff], those of the largest
            eigenvalues, it looks at, without `mean`; None is all of them.
    """

    inverse_penalty: Callable[[Spectrum, AlignmentHyperParams], InversePenalty]
    relative: bool
    leading: Callable[[AlignmentHyperParams, int], int | None] = lambda _settings, _width: None


CONSTRAINTS: dict[str, Constraint] = {
    "protected": Constraint(
        lambda s, h: protected(s, h.protected(s.directions.shape[1])),
        relative=True,
        leading=lambda h, width: h.protected(width),
    ),
    "identity": Constraint(
        lambda s, h: protected(s), relative=True, leading=lambda _settings, _width: 0
    ),
    "shrinkage": Constraint(lambda s, h: shrinkage(s, h.shrinkage), relative=False),
    "covariance": Constraint(lambda s, h: covariance(s), relative=False),
    "null_space": Constraint(lambda s, h: null_space(s, h.null_space_threshold), relative=True),
}
