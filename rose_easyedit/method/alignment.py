"""Stage 2, Isotropic Geometric Alignment: the closed form, and the constraint that shapes it.

An update dW of a down projection shall send each key k to its residual r:

    minimise |K dW^T - R|^2 + weight * tr(dW A dW^T)
    dW = R^T (K A^-1 K^T + weight * I)^-1 K A^-1            (an N x N solve)

A constraint is a choice of A (`constraints.py`); one solver serves all of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rose_easyedit.errors import RoSEError
from rose_easyedit.factors import Factors
from rose_easyedit.hparams import AlignmentHyperParams
from rose_easyedit.method.constraints import CONSTRAINTS, Spectrum


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
    constraint = CONSTRAINTS[hparams.constraint]
    if spectrum is None:
        free_keys = keys
    else:
        directions = spectrum.directions.double()
        exact = Spectrum(spectrum.eigenvalues.double(), directions)
        free_keys = constraint.freedom(exact, hparams).apply(keys, directions)
    energy = float((free_keys * keys).sum(1).mean())
    if not energy > 1e-12 * float(keys.square().sum(1).mean()):
        raise RoSEError(
            f"The constraint {hparams.constraint!r} leaves no direction to write these facts in; "
            f"protect fewer directions (protected_directions is {hparams.protected_directions}) "
            f"or raise null_space_threshold (it is {hparams.null_space_threshold})."
        )
    weight = hparams.strength * energy if constraint.relative else hparams.covariance_weight
    return solve(keys, residuals, free_keys, weight)
