"""`layers: auto`: found by tracing, once per model; kept, said, and refused where untold."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_models import FACTS, settings

from rose_easyedit.cache.entries import Cache, CacheEntry
from rose_easyedit.config.hparams import RoSEHyperParams
from rose_easyedit.errors import RoSEError
from rose_easyedit.memory.memory import FactMemory
from rose_easyedit.method.edit import compute_edit
from rose_easyedit.method.locating import automatic
from rose_easyedit.method.locating.automatic import tracing_pairs, with_layers
from rose_easyedit.method.locating.location import FormTrace, Location

AUTO = settings(layers="auto")
FOUND = FormTrace(64, 30, 0.5, (0.9, 0.9, 0.1, 0.0), (0, 1), "")
UNTOLD = FormTrace(64, 0, 0.0, (), (), "the answer depends on the subject in 0 of 64 pairs")


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[int]]:
    """Puts a location in the place of tracing, and a folder in that of the cache; counts calls."""
    monkeypatch.setenv("ROSE_EASYEDIT_CACHE", str(tmp_path))

    def put(**forms: FormTrace) -> list[int]:
        calls: list[int] = []
        layers = tuple(forms["statement"].plateau)

        def locate(_model: Any, _tokenizer: Any, pairs: list[Any]) -> Location:
            calls.append(len(pairs))
            return Location(forms, layers, layers, layers[-1] if layers else None)

        monkeypatch.setattr(automatic, "locate", locate)
        return calls

    return put


def test_layers_that_are_named_are_not_looked_for(
    tiny_llama: Any, tiny_tokenizer: Any, traced: Callable[..., list[int]]
) -> None:
    calls = traced(statement=FOUND)
    assert with_layers(tiny_llama, tiny_tokenizer, settings(layers=[2])).layers == [2]
    assert not calls


def test_layers_are_found_once_per_model_and_said(
    tiny_llama: Any,
    tiny_tokenizer: Any,
    traced: Callable[..., list[int]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls = traced(statement=FOUND)
    with caplog.at_level(logging.WARNING):
        assert with_layers(tiny_llama, tiny_tokenizer, AUTO).layers == [0, 1]
    assert "suggests [0, 1] of" in caplog.text and "was not measured" in caplog.text
    assert with_layers(tiny_llama, tiny_tokenizer, AUTO).layers == [0, 1]
    assert calls == [64]
    (kept,) = (tmp_path / "layers").iterdir()
    whole = kept.read_bytes()
    for layers in ([], [7], [1, 0], ["0"], [True], "01", None, {"0": 1}):
        Cache(kept.parent).write(kept.stem, CacheEntry({}, layers))
        assert with_layers(tiny_llama, tiny_tokenizer, AUTO).layers == [0, 1]
        assert kept.read_bytes() == whole
    assert len(calls) == 9


def test_an_edit_records_the_layers_that_were_found(
    tiny_llama: Any, tiny_tokenizer: Any, traced: Callable[..., list[int]]
) -> None:
    traced(statement=FOUND)
    delta = compute_edit(tiny_llama, tiny_tokenizer, FACTS, AUTO)
    assert delta.provenance.hparams["layers"] == [0, 1]
    assert (
        delta.fingerprint == compute_edit(tiny_llama, tiny_tokenizer, FACTS, settings()).fingerprint
    )


def test_where_tracing_cannot_tell_the_reason_is_given(
    tiny_llama: Any, tiny_tokenizer: Any, traced: Callable[..., list[int]]
) -> None:
    traced(statement=UNTOLD)
    with pytest.raises(RoSEError, match="layers is auto, but .*0 of 64 pairs.*name the layers"):
        compute_edit(tiny_llama, tiny_tokenizer, FACTS, AUTO)


def test_a_memory_keeps_the_layers_it_is_begun_with(
    tiny_llama: Any, tiny_tokenizer: Any, traced: Callable[..., list[int]], tmp_path: Path
) -> None:
    traced(statement=FOUND)
    memory = FactMemory.open(
        tmp_path / "facts.db", model=tiny_llama, tokenizer=tiny_tokenizer, hparams=AUTO
    )
    assert memory.hparams.layers == [0, 1]
    with pytest.raises(RoSEError, match="layers is auto, and a memory keeps"):
        FactMemory.open(tmp_path / "later.db", "tiny-random", hparams=AUTO)


def test_the_built_in_prompts_exchange_subjects_of_one_kind() -> None:
    pairs = tracing_pairs()
    assert len(pairs) == 64 and len({pair.prompt for pair in pairs}) == 64
    for pair in pairs:
        assert pair.prompt.replace(pair.subject, pair.other) == pair.other_prompt
        assert not pair.prompt.endswith(pair.subject)


@pytest.mark.parametrize("wrong", ["all", 3, [1.5], [True], None])
def test_what_is_neither_layers_nor_auto_is_refused(wrong: Any) -> None:
    with pytest.raises(RoSEError, match="layers is .*; give a list of whole numbers, or auto"):
        RoSEHyperParams(layers=wrong)


def test_a_target_layer_needs_layers_that_are_named() -> None:
    with pytest.raises(RoSEError, match="z_layer is 5, but layers is auto"):
        RoSEHyperParams(z_layer=5)
