"""Stage 2, Isotropic Geometric Alignment: the closed form, and the constraint that shapes it.

An update dW of a down projection shall send each key k to its residual r:

    minimise |K dW^T - R|^2 + weight * tr(dW A dW^T)
    dW = R^T (K A^-1 K^T + weight * I)^-1 K A^-1            (an N x N solve)

A constraint is a choice of A, and each A here is a function of the spectrum of generic keys: it
keeps their eigenvectors and maps their eigenvalues. So one solver serves all of them, and adding
a constraint is writing one function that says how freely each direction may be used.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rose_easyedit.errors import RoSEError
from rose_easyedit.factors import Factors
from rose_easyedit.hparams import AlignmentHyperParams

# Below this fraction of the mean, an eigenvalue estimated from few tokens is noise, not freedom.
_EIGENVALUE_FLOOR = 1e-3


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


@dataclass(frozen=True)
class Freedom:
    """A^-1 along the directions of a spectrum: 0 forbids a direction, more is freer.

    Attributes:
        along: for each direction of the spectrum, [r].
        elsewhere: for every direction orthogonal to those.
    """

    along: Tensor
    elsewhere: float

    def apply(self, keys: Tensor, directions: Tensor) -> Tensor:
        """K A^-1, [N, d_ff], for keys [N, d_ff] and directions [r, d_ff]."""
        special = self.along != self.elsewhere
        along, directions = self.along[special], directions[special]
        if not bool(along.all()):
            # A key may lie in a forbidden direction a thousand times over: the rounding of stored
            # directions to float32 must not let it through.
            directions = torch.linalg.qr(directions.T).Q.T
        components = keys @ directions.T  # [N, r]
        return self.elsewhere * keys + (components * (along - self.elsewhere)) @ directions


def isotropic(spectrum: Spectrum, protected_directions: int = 0) -> Freedom:
    """A = I, with an infinite penalty on the top directions of generic keys, if any."""
    along = torch.ones_like(spectrum.eigenvalues)
    along[:protected_directions] = 0.0
    return Freedom(along, 1.0)


def shrinkage(spectrum: Spectrum, gamma: float) -> Freedom:
    """A = (1 - gamma) C + gamma * mean(C) * I (Ledoit and Wolf's form): covariance at 0."""
    identity = max(gamma, _EIGENVALUE_FLOOR) * spectrum.mean
    return Freedom(1.0 / ((1.0 - gamma) * spectrum.eigenvalues + identity), 1.0 / identity)


def covariance(spectrum: Spectrum) -> Freedom:
    """A = C (MEMIT), plus a thousandth of its mean eigenvalue so that it has an inverse."""
    return shrinkage(spectrum, 0.0)


def null_space(spectrum: Spectrum, threshold: float) -> Freedom:
    """A = I on directions with an eigenvalue up to the threshold, else forbidden (AlphaEdit)."""
    return Freedom((spectrum.eigenvalues <= threshold).to(spectrum.eigenvalues.dtype), 1.0)


def solve(keys: Tensor, residuals: Tensor, free_keys: Tensor, weight: float) -> Factors:
    """The closed form at the head of this file.

    Args:
        keys: K, [N, d_ff].
        residuals: R, [N, d].
        free_keys: K A^-1, [N, d_ff].
        weight: of the constraint.

    Returns:
        left [d, N] and right [N, d_ff] with dW = left @ right, in the precision given.
    """
    gram = free_keys @ keys.T  # [N, N]
    gram.diagonal().add_(weight)
    left = torch.linalg.solve(gram, residuals)  # [N, d]; the system is symmetric
    return Factors(left.T.contiguous(), free_keys)


def align(
    keys: Tensor, residuals: Tensor, spectrum: Spectrum | None, hparams: AlignmentHyperParams
) -> Factors:
    """The update of one layer under the constraint that the settings name, solved in float64.

    Args:
        keys: [N, d_ff].
        residuals: what each key's output has to gain, [N, d].
        spectrum: of the generic keys of this layer; may be None for the plain identity.
        hparams: the constraint and its weight.

    Raises:
        RoSEError: the constraint leaves the keys no direction to use.
    """
    keys, residuals = keys.double(), residuals.double()
    if spectrum is None:
        free_keys = keys
    else:
        directions = spectrum.directions.double()
        freedom = _freedom(Spectrum(spectrum.eigenvalues.double(), directions), hparams)
        free_keys = freedom.apply(keys, directions)
    energy = float((free_keys * keys).sum(1).mean())
    if not energy > 1e-12 * float(keys.square().sum(1).mean()):
        raise RoSEError(
            f"The constraint {hparams.constraint!r} leaves no direction to write these facts in; "
            f"protect fewer directions (protected_directions is {hparams.protected_directions}) "
            f"or raise null_space_threshold (it is {hparams.null_space_threshold})."
        )
    relative = hparams.constraint in ("isotropic", "null_space")
    weight = hparams.strength * energy if relative else hparams.covariance_weight
    return solve(keys, residuals, free_keys, weight)


def _freedom(spectrum: Spectrum, hparams: AlignmentHyperParams) -> Freedom:
    match hparams.constraint:
        case "isotropic":
            return isotropic(spectrum, hparams.protected_directions)
        case "shrinkage":
            return shrinkage(spectrum, hparams.shrinkage)
        case "covariance":
            return covariance(spectrum)
        case _:
            return null_space(spectrum, hparams.null_space_threshold)
