"""What holds of every edit and every request, and not only of those in the other tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_models import build_model, same_weights, weights_of

from rose_easyedit.config.hparams import RoSEHyperParams
from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.edits.factors import Factors
from rose_easyedit.errors import RoSEError
from rose_easyedit.method.stage2.closed_form import solve_rows
from rose_easyedit.models.fingerprint import weights_fingerprint
from rose_easyedit.requests import EditRequest, as_requests, load_requests

MODELS = {
    "llama-tied": "model.layers.{}.mlp.down_proj.weight",
    "gpt2": "transformer.h.{}.mlp.c_proj.weight",
}
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
fields = st.sampled_from(["prompt", "subject", "target_new", "ground_truth", "case_id", "x"])
quiet = settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@quiet
@given(
    n=st.integers(1, 12),
    d=st.integers(1, 6),
    d_ff=st.integers(1, 12),
    weight=st.floats(1e-2, 1e3),
    seed=st.integers(0, 2**16),
)
def test_the_solver_is_the_dense_ridge_regression(
    n: int, d: int, d_ff: int, weight: float, seed: int
) -> None:
    """|K dW^T - R|^2 + weight tr(dW A dW^T), A any positive matrix: its d_ff x d_ff equations."""
    keys, residuals = normal(n, d_ff, seed=seed), normal(n, d, seed=seed + 1)
    root = normal(d_ff, d_ff, seed=seed + 2)
    penalty = root @ root.T + torch.eye(d_ff, dtype=torch.float64)
    wanted = torch.linalg.solve(keys.T @ keys + weight * penalty, keys.T @ residuals).T
    found = solve_rows(keys, residuals, keys @ torch.linalg.inv(penalty), weight).dense()
    torch.testing.assert_close(found, wanted, atol=1e-8, rtol=1e-6)


@quiet
@given(
    d=st.integers(1, 9),
    d_ff=st.integers(1, 9),
    rank=st.integers(1, 12),
    scale=st.floats(1e-6, 1e6),
    transposed=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_compression_keeps_the_product(
    d: int, d_ff: int, rank: int, scale: float, transposed: bool, seed: int
) -> None:
    whole = Factors(
        scale * normal(d, rank, seed=seed), normal(rank, d_ff, seed=seed + 1), transposed
    )
    small = whole.compressed()
    assert 1 <= small.rank <= min(d, d_ff, rank)
    error = (small.dense() - whole.dense()).norm()
    assert float(error) <= 1e-5 * float(whole.dense().norm())


@pytest.fixture(scope="module")
def models() -> dict[tuple[str, torch.dtype], Any]:
    return {(name, dtype): build_model(name).to(dtype) for name in MODELS for dtype in DTYPES}


@quiet
@given(
    name=st.sampled_from(list(MODELS)),
    dtype=st.sampled_from(DTYPES),
    layers=st.sets(st.integers(0, 3), min_size=1),
    rank=st.integers(1, 5),
    exponent=st.integers(-12, 8),
    seed=st.integers(0, 2**16),
)
def test_apply_and_revert_are_bit_identical_or_refused(
    models: dict[tuple[str, torch.dtype], Any],
    name: str,
    dtype: torch.dtype,
    layers: set[int],
    rank: int,
    exponent: int,
    seed: int,
) -> None:
    model = models[name, dtype]
    before, factors = weights_of(model), {}
    for layer in sorted(layers):
        weight = model.get_parameter(MODELS[name].format(layer))
        d, d_ff = weight.shape if name != "gpt2" else weight.shape[::-1]
        left = 10.0**exponent * normal(d, rank, seed=seed + layer)
        right = normal(rank, d_ff, seed=seed - layer)
        factors[MODELS[name].format(layer)] = Factors(left.float(), right.float(), name == "gpt2")
    base = weights_fingerprint((weight, model.get_parameter(weight)) for weight in factors)
    delta = EditDelta(factors, base)
    try:
        delta.apply(model)
    except RoSEError as error:
        assert "not finite" in str(error) and dtype == torch.float16
    else:
        assert all(bool(weight.isfinite().all()) for weight in model.parameters())
        delta.revert(model)
    assert same_weights(model, before)


@quiet
@given(
    names=st.sets(st.text(st.characters(codec="utf-8"), max_size=12), min_size=1, max_size=4),
    d=st.integers(1, 4),
    rank=st.integers(1, 3),
    transposed=st.booleans(),
    note=plain,
    base=st.text(st.characters(codec="utf-8")),
    has_targets=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_an_edit_survives_the_disk_whatever_it_says(
    tmp_path: Path,
    names: set[str],
    d: int,
    rank: int,
    transposed: bool,
    note: Any,
    base: str,
    has_targets: bool,
    seed: int,
) -> None:
    layers = {
        name: Factors(
            normal(d, rank, seed=seed).float(), normal(rank, 3, seed=seed).float(), transposed
        )
        for name in names
    }
    targets = normal(2, d, seed=seed).float() if has_targets else None
    delta = EditDelta(layers, base, {"note": note}, targets)
    try:
        path = delta.save(tmp_path / "edit")
    except UnicodeEncodeError:  # half characters are no text
        assert "\\ud" in json.dumps(note)
        return
    loaded = EditDelta.load(path)
    assert loaded.layers.keys() == layers.keys() and loaded.base == base
    said = [json.dumps(edit.provenance.as_dict(), sort_keys=True) for edit in (loaded, delta)]
    assert said[0] == said[1]
    for name, factors in layers.items():
        assert torch.equal(loaded.layers[name].left, factors.left)
        assert torch.equal(loaded.layers[name].right, factors.right)
        assert loaded.layers[name].transposed == transposed
    assert (loaded.targets is None) == (targets is None)
    assert targets is None or torch.equal(loaded.targets, targets)
    content = path.read_bytes()
    assert loaded.save(tmp_path / "again").read_bytes() == content


@quiet
@given(records=st.lists(st.dictionaries(fields, plain, max_size=6) | plain, max_size=5))
def test_any_records_are_requests_or_an_error_of_ours(records: list[Any]) -> None:
    try:
        requests = as_requests(records)
    except RoSEError as error:
        assert str(error)
        return
    assert requests == as_requests(requests) == as_requests([r.as_dict() for r in requests])


texts = st.text(min_size=1).filter(str.strip)


@quiet
@given(subject=texts, before=st.text(), after=st.text(), target=texts, case=plain)
def test_a_request_that_is_taken_can_be_written_and_read_again(
    tmp_path: Path, subject: str, before: str, after: str, target: str, case: Any
) -> None:
    record = {
        "prompt": f"{before}{subject.strip()}{after}",
        "subject": subject,
        "target_new": target,
        "case_id": case,
    }
    try:
        (request,) = as_requests([record])
    except RoSEError:
        assert "\\ud" in json.dumps(record)
        return
    path = tmp_path / "facts.jsonl"
    path.write_text(json.dumps(request.as_dict(), ensure_ascii=False), encoding="utf-8")
    assert load_requests(path) == [request]
    assert isinstance(request, EditRequest)


@quiet
@given(content=st.binary(max_size=200) | plain.map(lambda value: json.dumps(value).encode()))
def test_any_file_is_requests_or_an_error_of_ours(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "facts"
    path.write_bytes(content)
    with pytest.raises(RoSEError):
        load_requests(path)


SETTINGS = RoSEHyperParams.from_hparams("smollm2-135m").as_dict()


@quiet
@given(name=st.sampled_from(list(SETTINGS)) | st.text(max_size=5), value=plain)
def test_any_setting_is_taken_or_an_error_of_ours(name: str, value: Any) -> None:
    try:
        hparams = RoSEHyperParams.from_dict({**SETTINGS, name: value})
    except RoSEError as error:
        assert str(error)
        return
    assert RoSEHyperParams.from_dict(hparams.as_dict()) == hparams
