"""What an edit derives of its model once: the precision, its copies, and the fingerprints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from tiny_models import FACTS, build_model, settings

from rose_easyedit.errors import RoSEError
from rose_easyedit.method import prepared as prepared_module
from rose_easyedit.method.edit import compute_edit, solve_targets
from rose_easyedit.method.prepared import Prepared, base_fingerprint
from rose_easyedit.method.stage1.store import ShiftStore
from rose_easyedit.method.stage1.targets import find_targets
from rose_easyedit.models.cast_weights import CastWeights
from rose_easyedit.requests import as_requests

ONCE = (
    (prepared_module, "read_architecture"),
    (prepared_module, "precision_context"),
    (prepared_module, "computation_fingerprint"),
    (prepared_module, "weights_fingerprint"),
)


def counted(function: Callable[..., Any], calls: Counter[str]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        calls[function.__name__] += 1
        return function(*args, **kwargs)

    return call


def test_an_edit_derives_each_of_them_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_tokenizer: Any
) -> None:
    """With a budget, statistics and a store, which all used to ask for their own."""
    monkeypatch.setenv("ROSE_EASYEDIT_CACHE", str(tmp_path / "cache"))
    calls: Counter[str] = Counter()
    for module, name in ONCE:
        monkeypatch.setattr(module, name, counted(getattr(module, name), calls))
    copies: list[Any] = []
    copy = CastWeights.__dict__["_copies"].func

    def seen(weights: CastWeights) -> Any:
        copies.append(copy(weights))
        return copies[-1]

    spy = cached_property(seen)
    spy.__set_name__(CastWeights, "_copies")
    monkeypatch.setattr(CastWeights, "_copies", spy)
    alignment = {"protected_directions": 3, "statistics_tokens": 200, "locality_budget": 1e6}
    hparams = settings(precision="bfloat16", alignment=alignment)
    store = ShiftStore(tmp_path / "shifts")
    compute_edit(build_model("llama-untied"), tiny_tokenizer, FACTS, hparams, store)
    assert calls == Counter(name for _, name in ONCE)
    assert len(copies) == 1 and copies[0]


def test_the_stages_of_one_preparation_give_the_edit(tiny_tokenizer: Any) -> None:
    model, hparams = build_model("llama-untied"), settings(precision="bfloat16")
    whole = compute_edit(model, tiny_tokenizer, FACTS, hparams)
    prepared = Prepared.of(model, tiny_tokenizer, hparams)
    for _ in range(2):  # what is prepared may serve again
        found = solve_targets(prepared, find_targets(prepared, as_requests(FACTS)))
        assert found.fingerprint == whole.fingerprint
        assert found.base == whole.base == base_fingerprint(model, hparams)


def test_what_cannot_be_edited_is_not_prepared(tiny_tokenizer: Any) -> None:
    model, hparams = build_model("llama-untied"), settings(layers=[3, 4])
    for refuse in (
        lambda: Prepared.of(model, tiny_tokenizer, hparams),
        lambda: base_fingerprint(model, hparams),
    ):
        with pytest.raises(RoSEError, match="Layer 4 is asked for, but the model has 4 layers"):
            refuse()
    hparams = settings()
    hparams.micro_batch = 0
    with pytest.raises(RoSEError, match="micro_batch"):
        Prepared.of(model, tiny_tokenizer, hparams)
