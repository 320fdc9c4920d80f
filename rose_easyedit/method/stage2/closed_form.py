"""Stage 2, Isotropic Geometric Alignment: the closed form, and the constraint that shapes it.

An update dW of a down projection shall send each key k to its residual r:

    minimise |K dW^T - R|^2 + weight * tr(dW A dW^T)
    dW = R^T (K A^-1 K^T + weight * I)^-1 K A^-1            (an N x N system)
       = R^T K' (K'^T K' + weight * I)^-1 A^-1/2            (d_ff x d_ff), with K' = K A^-1/2

The smaller of the two is solved, so that thousands of facts cost no more than their keys are wide.
A constraint is a choice of A (`constraints.py`), and one solver serves all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from rose_easyedit.config.hparams import AlignmentHyperParams
from rose_easyedit.edits.factors import Factors
from rose_easyedit.errors import RoSEError
from rose_easyedit.method.stage2.constraints import CONSTRAINTS, Spectrum

Root = Callable[[Tensor], Tensor]


def solve_rows(keys: Tensor, residuals: Tensor, free_keys: Tensor, weight: float) -> Factors:
    """The closed form at the head of this file, by a system as large as there are keys.

    Args:
        keys: K, [N, d_ff].
        residuals: R, [N, d].
        free_keys: K A^-1, [N, d_ff].
        weight: of the constraint.

    Returns:
        left [d, r] and right [r, d_ff] with dW = left @ right, in the precision given; r is the
        least of N, d and, if there are some, how many residuals are not zero.
    """
    gram = free_keys @ keys.T  # [N, N], symmetric
    gram.diagonal().add_(weight)
    places = residuals.any(dim=1).nonzero()[:, 0]  # M of them
    if not 0 < len(places) < min(residuals.shape):
        left = torch.linalg.solve(gram, residuals).T.contiguous()  # [d, N]
        return Factors(left, free_keys) if len(gram) <= len(left) else _whole(left @ free_keys)
    # dW = R^T S K A^-1, and of S = (K A^-1 K^T + weight * I)^-1 only the rows that R has.
    chosen = gram.new_zeros(len(gram), len(places))
    chosen[places, torch.arange(len(places), device=places.device)] = 1.0
    inner = torch.linalg.solve(gram, chosen)  # [N, M]
    return Factors(residuals[places].T.contiguous(), inner.T @ free_keys)


def solve_entries(half_keys: Tensor, residuals: Tensor, root: Root, weight: float) -> Factors:
    """The closed form at the head of this file, by a system as large as a key has entries.

    Args:
        half_keys: K A^-1/2, [N, d_ff].
        residuals: R, [N, d].
        root: multiplies rows [d, d_ff] by A^-1/2.
        weight: of the constraint.

    Returns:
        left [d, d], the identity, and right [d, d_ff] with dW = left @ right.
    """
    gram = half_keys.T @ half_keys  # [d_ff, d_ff]
    gram.diagonal().add_(weight)
    inner = torch.linalg.solve(gram, half_keys.T @ residuals)  # [d_ff, d]
    return _whole(root(inner.T))


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
    free, root = _identity, _identity
    if spectrum is not None:
        directions = spectrum.directions.double()
        exact = Spectrum(spectrum.eigenvalues.double(), directions)
        penalty = constraint.inverse_penalty(exact, hparams)
        free = partial(penalty.apply, directions=directions)
        root = partial(penalty.root().apply, directions=directions)
    free_keys = free(keys)
    energies = (free_keys * keys).sum(1)  # [N]
    written = residuals.any(dim=1)  # the others are preserved
    least = 1e-12 * keys[written].square().sum(1).mean()
    if written.any() and not energies[written].mean() > least:
        raise RoSEError(
            f"The constraint {hparams.constraint!r} leaves no direction to write these facts in; "
            f"protect fewer directions (protected_directions is {hparams.protected_directions}, "
            f"protected_share {hparams.protected_share:g}) "
            f"or raise null_space_threshold (it is {hparams.null_space_threshold})."
        )
    weight = hparams.covariance_weight
    if constraint.relative:
        weight = hparams.strength * float(energies.mean())
    n_keys, width = keys.shape
    if n_keys <= width:
        return solve_rows(keys, residuals, free_keys, weight)
    return solve_entries(root(keys), residuals, root, weight)


def _whole(update: Tensor) -> Factors:
    """An update [d, d_ff] as factors, of which the left one is the identity."""
    return Factors(torch.eye(len(update), dtype=update.dtype, device=update.device), update)


def _identity(rows: Tensor) -> Tensor:
    return rows
