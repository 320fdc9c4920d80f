"""The closed form of every constraint, against dense references and by its properties."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float
from shapes import having, shaped, shapes_held
from torch import Tensor

from rose_easyedit.config.hparams import AlignmentHyperParams
from rose_easyedit.errors import RoSEError
from rose_easyedit.method.stage2 import closed_form, constraints
from rose_easyedit.method.stage2.constraints import InversePenalty, Spectrum

KEYS, RESIDUALS = Float[Tensor, "N d_ff"], Float[Tensor, "N d"]
FACTORS = having(left=Float[Tensor, "d rank"], right=Float[Tensor, "rank d_ff"])
SPECTRUM = having(eigenvalues=Float[Tensor, "r"], directions=Float[Tensor, "r d_ff"])
PENALTY = having(along=Float[Tensor, "r"])
SOLVERS: dict[str, dict[str, Any]] = {
    "solve_rows": dict(keys=KEYS, residuals=RESIDUALS, free_keys=KEYS, returns=FACTORS),
    "solve_entries": dict(half_keys=KEYS, residuals=RESIDUALS, returns=FACTORS),
    "align": dict(keys=KEYS, residuals=RESIDUALS, spectrum=SPECTRUM, returns=FACTORS),
}
PENALTIES: dict[str, dict[str, Any]] = {
    name: dict(spectrum=SPECTRUM, returns=PENALTY)
    for name in ("protected", "shrinkage", "covariance", "null_space")
}
APPLY: dict[str, Any] = dict(
    self=PENALTY, keys=KEYS, directions=Float[Tensor, "r d_ff"], returns=KEYS
)

align, solve_rows = (
    shaped(getattr(closed_form, name), **SOLVERS[name]) for name in ("align", "solve_rows")
)
covariance, null_space, protected, shrinkage = (
    shaped(getattr(constraints, name), **PENALTIES[name])
    for name in ("covariance", "null_space", "protected", "shrinkage")
)


@pytest.fixture(autouse=True, scope="module")
def shapes() -> Iterator[None]:
    """What these functions call by themselves keeps to its shapes, too."""
    with (
        shapes_held(closed_form, **SOLVERS),
        shapes_held(constraints, **PENALTIES),
        shapes_held(InversePenalty, apply=APPLY),
    ):
        yield


CONSTRAINTS: dict[str, dict[str, Any]] = {
    "identity": dict(constraint="identity", strength=0.3),
    "protected": dict(constraint="protected", protected_directions=2, strength=0.3),
    "shrinkage": dict(constraint="shrinkage", shrinkage=0.3, covariance_weight=0.7),
    "shrinkage to the identity": dict(constraint="shrinkage", shrinkage=1.0, covariance_weight=2.0),
    "covariance": dict(constraint="covariance", covariance_weight=0.7),
    "null space": dict(constraint="null_space", null_space_threshold=0.5, strength=0.3),
}


def test_every_known_constraint_is_tested() -> None:
    assert {case["constraint"] for case in CONSTRAINTS.values()} == set(constraints.CONSTRAINTS)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spectrum_of_random_keys(width: int, n_tokens: int, seed: int = 7) -> Spectrum:
    """In descending order; eigenvalues are distinct and of several magnitudes."""
    keys = normal(n_tokens, width, seed=seed) * torch.logspace(0.7, -0.7, width).double()
    values, vectors = torch.linalg.eigh(keys.T @ keys / n_tokens)
    rank = min(width, n_tokens)
    return Spectrum(values.flip(0)[:rank], vectors.T.flip(0)[:rank].contiguous())


def dense_inverse(spectrum: Spectrum, hparams: AlignmentHyperParams) -> Tensor:
    """A^-1 [d_ff, d_ff] from the definitions, zero along what is forbidden."""
    directions, values = spectrum.directions, spectrum.eigenvalues
    width = directions.shape[1]
    identity = torch.eye(width, dtype=torch.float64)
    moment = directions.T @ torch.diag(values) @ directions
    mean = moment.trace() / width
    if hparams.constraint == "identity":
        return identity
    if hparams.constraint == "protected":
        top = directions[: hparams.protected_directions]
        return identity - top.T @ top
    if hparams.constraint == "null_space":
        top = directions[values > hparams.null_space_threshold]
        return identity - top.T @ top
    gamma = hparams.shrinkage if hparams.constraint == "shrinkage" else 0.0
    return torch.linalg.inv((1 - gamma) * moment + max(gamma, 1e-3) * mean * identity)


def dense_update(keys: Tensor, residuals: Tensor, inverse: Tensor, weight: float) -> Tensor:
    """argmin |K dW^T - R|^2 + weight tr(dW A dW^T) by its normal equations, d_ff x d_ff.

    Within the free directions B (an orthonormal basis of what A^-1 does not annihilate) the
    unknown is Y with dW^T = B Y.
    """
    values, vectors = torch.linalg.eigh(inverse)
    free = vectors[:, values > 1e-9]  # [d_ff, f]
    penalty = torch.linalg.inv(free.T @ inverse @ free)
    reduced = keys @ free
    inner = torch.linalg.solve(reduced.T @ reduced + weight * penalty, reduced.T @ residuals)
    return (free @ inner).T


def weight_of(keys: Tensor, inverse: Tensor, hparams: AlignmentHyperParams) -> float:
    if hparams.constraint in ("covariance", "shrinkage"):
        return hparams.covariance_weight
    return hparams.strength * float((keys @ inverse * keys).sum(1).mean())


@pytest.mark.parametrize("case", CONSTRAINTS)
@given(
    width=st.integers(3, 12),
    n_keys=st.integers(1, 14),
    n_tokens=st.integers(3, 30),
    d=st.integers(1, 5),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=25)
def test_the_closed_form_is_the_dense_minimum(
    case: str, width: int, n_keys: int, n_tokens: int, d: int, seed: int
) -> None:
    hparams = AlignmentHyperParams(**CONSTRAINTS[case])
    spectrum = spectrum_of_random_keys(width, n_tokens, seed)
    keys, residuals = normal(n_keys, width, seed=seed + 1), normal(n_keys, d, seed=seed + 2)
    inverse = dense_inverse(spectrum, hparams)
    if (keys @ inverse).norm() < 1e-6 * keys.norm():  # all directions are forbidden
        with pytest.raises(RoSEError, match="no direction"):
            align(keys, residuals, spectrum, hparams)
        return
    wanted = dense_update(keys, residuals, inverse, weight_of(keys, inverse, hparams))
    update = align(keys, residuals, spectrum, hparams)
    rank = min(n_keys, d) if n_keys <= width else d
    assert update.left.shape == (d, rank)
    assert update.right.shape == (rank, width)
    torch.testing.assert_close(update.dense(), wanted, atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize("case", CONSTRAINTS)
def test_the_leading_directions_that_a_constraint_names_are_all_it_looks_at(case: str) -> None:
    hparams = AlignmentHyperParams(**CONSTRAINTS[case])
    spectrum = spectrum_of_random_keys(12, 30, 0)
    assert len(spectrum.directions) == 12
    keys, residuals = normal(5, 12, seed=1), normal(5, 3, seed=2)
    leading = spectrum.first(constraints.CONSTRAINTS[hparams.constraint].leading(hparams, 12))
    wanted = align(keys, residuals, spectrum, hparams).dense()
    torch.testing.assert_close(align(keys, residuals, leading, hparams).dense(), wanted)
    assert (len(leading.directions) == 12) == (hparams.constraint not in ("protected", "identity"))


def test_one_key_by_hand() -> None:
    """dW = r k^T / (|k|^2 + lambda |k|^2): with lambda 1, half of the residual."""
    hparams = AlignmentHyperParams(constraint="identity", strength=1.0)
    key, residual = torch.tensor([[3.0, 4.0]]), torch.tensor([[10.0, 0.0, -20.0]])
    update = align(key, residual, None, hparams).dense()
    wanted = torch.tensor([[0.6, 0.8], [0.0, 0.0], [-1.2, -1.6]], dtype=torch.float64)
    torch.testing.assert_close(update, wanted)
    torch.testing.assert_close(key.double() @ update.T, residual.double() / 2)


def test_orthogonal_keys_do_not_meet() -> None:
    hparams = AlignmentHyperParams(constraint="identity", strength=1e-12)
    keys, residuals = torch.eye(4)[:2] * 5, torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    update = align(keys, residuals, None, hparams).dense()
    wanted = torch.tensor([[0.2, 0.6, 0, 0], [0.4, 0.8, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(update, wanted)


def test_covariance_by_hand() -> None:
    """C = diag(4, 1): dW = r k^T C^-1 / (k^T C^-1 k + weight), up to the floor of a thousandth."""
    spectrum = Spectrum(torch.tensor([4.0, 1.0]), torch.eye(2))
    hparams = AlignmentHyperParams(constraint="covariance", covariance_weight=3.0)
    update = align(torch.tensor([[2.0, 1.0]]), torch.tensor([[5.0]]), spectrum, hparams).dense()
    wanted = torch.tensor([[0.5, 1.0]], dtype=torch.float64)  # 5 * [0.5, 1] / (2 + 3)
    torch.testing.assert_close(update, wanted, atol=0.005, rtol=0)


def test_the_ends_of_shrinkage() -> None:
    spectrum = spectrum_of_random_keys(6, 40)
    directions = torch.randn(5, 6, dtype=torch.float64)
    none, all_of_it = shrinkage(spectrum, 0.0), shrinkage(spectrum, 1.0)
    torch.testing.assert_close(none.along, covariance(spectrum).along)
    torch.testing.assert_close(
        all_of_it.apply(directions, spectrum.directions), directions / spectrum.mean
    )


@pytest.mark.parametrize("case", ["protected", "null space"])
@pytest.mark.parametrize("n_keys", [1, 5, 20])
@pytest.mark.parametrize("stored", [torch.float32, torch.float64])
def test_forbidden_directions_are_not_touched(case: str, n_keys: int, stored: torch.dtype) -> None:
    hparams = AlignmentHyperParams(**CONSTRAINTS[case])
    spectrum = spectrum_of_random_keys(10, 40)
    rounded = Spectrum(spectrum.eigenvalues.to(stored), spectrum.directions.to(stored))
    # keys with a massive outlier along the first direction, as real models have them
    keys = normal(n_keys, 10) + 1000 * spectrum.directions[0]
    update = align(keys, normal(n_keys, 4, seed=1), rounded, hparams)
    forbidden = (
        spectrum.directions[:2]
        if case == "protected"
        else spectrum.directions[spectrum.eigenvalues > hparams.null_space_threshold]
    )
    assert 0 < len(forbidden) < 10
    tolerance = 1e-9 if stored == torch.float64 else 1e-3
    touched = (update.dense() @ forbidden.T).norm()
    assert float(touched) < tolerance * float(update.dense().norm())
    # what is computed from the rounded directions is orthogonal to them all the same
    assert float((update.dense() @ rounded.directions[: len(forbidden)].double().T).norm()) < (
        1e-9 * float(update.dense().norm())
    )


def test_a_larger_weight_makes_a_smaller_update() -> None:
    keys, residuals = normal(4, 8), normal(4, 3, seed=1)
    norms = [
        float(
            align(
                keys,
                residuals,
                None,
                AlignmentHyperParams(protected_directions=0, strength=strength),
            )
            .dense()
            .norm()
        )
        for strength in (1e-6, 1e-2, 1.0, 100.0)
    ]
    assert norms == sorted(norms, reverse=True)
    assert norms[-1] < norms[0] / 20


def test_strength_is_relative_to_the_keys() -> None:
    hparams = AlignmentHyperParams(protected_directions=0, strength=0.2)
    keys, residuals = normal(4, 8), normal(4, 3, seed=1)
    one = align(keys, residuals, None, hparams).dense()
    torch.testing.assert_close(align(100 * keys, residuals, None, hparams).dense() * 100, one)


@pytest.mark.parametrize("case", CONSTRAINTS)
def test_duplicate_keys_get_the_mean_of_their_residuals(case: str) -> None:
    hparams = AlignmentHyperParams(**{**CONSTRAINTS[case], "strength": 1e-9})
    hparams.covariance_weight = 1e-9
    spectrum = spectrum_of_random_keys(8, 40)
    key = normal(1, 8)
    residuals = torch.tensor([[1.0, 2.0], [3.0, 6.0]]).double()
    update = align(key.expand(2, -1), residuals, spectrum, hparams).dense()
    assert bool(update.isfinite().all())
    torch.testing.assert_close(
        key @ update.T, residuals.mean(0, keepdim=True), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("stored", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "case",
    [
        dict(constraint="protected", protected_directions=3),
        dict(constraint="protected", protected_directions=100),
        dict(constraint="null_space", null_space_threshold=0.0),
    ],
)
def test_keys_that_are_all_forbidden(case: dict[str, Any], seed: int, stored: torch.dtype) -> None:
    spectrum = spectrum_of_random_keys(10, 40, seed)
    spectrum = Spectrum(spectrum.eigenvalues.to(stored), spectrum.directions.to(stored))
    keys = normal(4, 3, seed=seed) @ spectrum.directions[:3].double()
    with pytest.raises(RoSEError, match="no direction.*protected_directions.*null_space_threshold"):
        align(keys, normal(4, 2), spectrum, AlignmentHyperParams(**case))


def test_preserved_keys_do_not_hide_that_the_written_ones_are_forbidden() -> None:
    spectrum = spectrum_of_random_keys(10, 40, 0)
    keys = torch.cat([normal(4, 3) @ spectrum.directions[:3].double(), normal(9, 10)])
    residuals = torch.cat([normal(4, 2), torch.zeros(9, 2)])
    hparams = AlignmentHyperParams(constraint="protected", protected_directions=3)
    with pytest.raises(RoSEError, match="no direction"):
        align(keys, residuals, spectrum, hparams)
    assert not align(keys, 0 * residuals, spectrum, hparams).dense().any()


@pytest.mark.parametrize("n_written", [1, 4, 5, 9])
def test_few_written_keys_among_many_make_few_factors(n_written: int) -> None:
    keys, residuals = normal(9, 12), normal(9, 5, seed=1)
    residuals[torch.randperm(9, generator=torch.Generator().manual_seed(2))[n_written:]] = 0.0
    free_keys = keys * torch.linspace(0.5, 2.0, 12, dtype=torch.float64)
    inverse = torch.linspace(0.5, 2.0, 12, dtype=torch.float64).diag()
    found = solve_rows(keys, residuals, free_keys, 0.3)
    torch.testing.assert_close(found.dense(), dense_update(keys, residuals, inverse, 0.3))
    assert found.rank == min(n_written, 5)


def test_nothing_to_write_is_an_update_of_zero() -> None:
    keys = normal(3, 6)
    assert not solve_rows(keys, torch.zeros(3, 4).double(), keys, 0.3).compressed().dense().any()


def test_the_plain_identity_needs_no_spectrum() -> None:
    keys, residuals = normal(3, 6), normal(3, 2)
    hparams = AlignmentHyperParams(protected_directions=0)
    assert not hparams.needs_statistics
    torch.testing.assert_close(
        align(keys, residuals, None, hparams).dense(),
        align(keys, residuals, spectrum_of_random_keys(6, 20), hparams).dense(),
    )
    for case in ("protected", "shrinkage", "covariance", "null space"):
        assert AlignmentHyperParams(**CONSTRAINTS[case]).needs_statistics


def test_a_new_constraint_is_one_function() -> None:
    """Any inverse penalty gives the minimum for its own A: here, 2 along one direction."""
    penalty, direction = (
        InversePenalty(torch.tensor([2.0]).double(), 1.0),
        torch.eye(4).double()[:1],
    )
    keys, residuals = normal(2, 4), normal(2, 3, seed=1)
    inverse = torch.diag(torch.tensor([2.0, 1.0, 1.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(penalty.apply(keys, direction), keys @ inverse)
    update = solve_rows(keys, residuals, penalty.apply(keys, direction), 0.5).dense()
    torch.testing.assert_close(update, dense_update(keys, residuals, inverse, 0.5))


def test_the_inverse_penalty_of_each_constraint() -> None:
    spectrum = Spectrum(torch.tensor([8.0, 2.0, 0.5]), torch.eye(4)[:3])
    assert protected(spectrum).along.tolist() == [1, 1, 1]
    assert protected(spectrum, 2).along.tolist() == [0, 0, 1]
    assert null_space(spectrum, 2.0).along.tolist() == [0, 1, 1]
    assert null_space(spectrum, 2.0).elsewhere == 1
    penalty = covariance(spectrum)
    assert penalty.along[0] < penalty.along[1] < penalty.along[2] < penalty.elsewhere
