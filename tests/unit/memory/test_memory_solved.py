"""The edit of a memory is solved once: another process takes it as it is, or computes it again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_llama import build_tokenizer
from tiny_models import FACTS, build_model, settings

from rose_easyedit.cache.entries import FORMAT, Cache, CacheEntry
from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.edits.file import EditRecord, content_of, edit_of
from rose_easyedit.errors import RoSEError
from rose_easyedit.files.tensors import read_tensors
from rose_easyedit.memory import FactMemory
from rose_easyedit.method import edit, prepared

QUICK = settings(hierarchy={"fact_steps": 2, "subject_steps": 2})


@pytest.fixture(scope="module")
def pair() -> tuple[Any, Any]:
    return build_model("llama-tied"), build_tokenizer()


@pytest.fixture(autouse=True)
def cache(own_cache: Path) -> Path:
    """Where the edits of memories will be."""
    return own_cache / "memory"


@pytest.fixture
def solved(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The facts of each edit that is solved."""
    seen: list[int] = []
    solve = edit.solve_targets

    def spy(prepared: Any, targets: Any) -> EditDelta:
        seen.append(len(targets.plan.requests))
        return solve(prepared, targets)

    monkeypatch.setattr(edit, "solve_targets", spy)
    return seen


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "facts.db"


def another(path: Path, pair: tuple[Any, Any]) -> FactMemory:
    """As another process opens the memory."""
    return FactMemory.open(path, *pair, QUICK)


def test_another_process_takes_it_byte_for_byte(
    path: Path, pair: tuple[Any, Any], solved: list[int], cache: Path
) -> None:
    first = another(path, pair)
    first.add(FACTS)
    written = first.save(path.with_name("one.safetensors")).read_bytes()
    again = another(path, pair)
    assert again.save(path.with_name("two.safetensors")).read_bytes() == written
    answers = [memory.ask("They met", max_new_tokens=3) for memory in (first, again)]
    assert answers[0] == answers[1]
    assert solved == [3] and len(list(cache.iterdir())) == 1


def test_other_facts_are_solved_anew_and_take_its_place(
    path: Path, pair: tuple[Any, Any], solved: list[int], cache: Path
) -> None:
    another(path, pair).add(FACTS[:2])
    another(path, pair).delta()
    another(path, pair).add(FACTS[2])
    another(path, pair).delta()
    another(path, pair).update({**FACTS[2], "target_new": "Polish"})
    delta = another(path, pair).delta()
    assert solved == [2, 3, 3]
    assert delta is not None and delta.provenance.requests[-1]["target_new"] == "Polish"
    another(path, pair).forget("Ada Lovelace")
    assert len(another(path, pair).delta().provenance.requests) == 2  # type: ignore[union-attr]
    assert len(list(cache.iterdir())) == 1


def test_the_edit_of_another_model_version_or_tokenizer_is_not_taken(
    path: Path, pair: tuple[Any, Any], solved: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    another(path, pair).add(FACTS)
    another(path, pair).delta()
    other = build_model("llama-tied")
    with torch.no_grad():  # a weight that no edit changes, and that all of them depend on
        other.get_parameter("model.embed_tokens.weight")[300:].mul_(2)
    another(path, (other, pair[1])).delta()
    spaced = build_tokenizer()
    spaced.chat_template = " " + spaced.chat_template
    another(path, (other, spaced)).delta()
    monkeypatch.setattr("rose_easyedit.memory.solved.EDITS", -1)
    another(path, (other, spaced)).delta()
    assert solved == [3] * 4


@pytest.mark.parametrize("content", ["cut", "changed", "another", "no edit", "nothing"])
def test_a_damaged_one_is_computed_again(
    content: str, path: Path, pair: tuple[Any, Any], solved: list[int], cache: Path
) -> None:
    memory = another(path, pair)
    memory.add(FACTS)
    wanted = memory.save(path.with_name("one.safetensors")).read_bytes()
    (kept,) = cache.iterdir()
    whole = kept.read_bytes()
    if content == "changed":
        kept.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    elif content == "another":  # an edit of the same base, under the name of this one
        EditDelta.load(path.with_name("one.safetensors")).save(kept)
    elif content == "no edit":  # under the key of one
        key = json.loads(read_tensors(kept)[0][FORMAT])["key"]
        Cache(cache).write(key, CacheEntry({}, {"base": "0" * 64}), name=kept.stem)
    else:
        kept.write_bytes(whole[: len(whole) // 2] if content == "cut" else b"")
    memory = another(path, pair)
    assert memory.save(path.with_name("two.safetensors")).read_bytes() == wanted
    assert solved == [3, 3] and kept.read_bytes() == whole


@pytest.mark.parametrize("change", ["self_check", "base", "layers"])
def test_an_odd_one_whose_checksum_and_key_are_right_fails_no_question(
    change: str, path: Path, pair: tuple[Any, Any], cache: Path
) -> None:
    memory = another(path, pair)
    memory.add(FACTS)
    wanted = memory.ask("They met", max_new_tokens=3)
    (kept,) = cache.iterdir()
    key, entries = json.loads(read_tensors(kept)[0][FORMAT])["key"], Cache(cache)
    found = entries.read(key, lambda e: edit_of(e.record, e.tensors, "it"), name=kept.stem)
    assert found is not None
    layers, base, record = dict(found.layers), found.base, dict(found.provenance)
    if change == "base":
        base = "0" * len(base)
    elif change == "layers":
        layers["model.layers.99.mlp.down_proj.weight"] = layers.pop(next(iter(layers)))
    else:
        del record[change]
    content, tensors = content_of(EditRecord(layers, base, record, found.targets))
    entries.write(key, CacheEntry(tensors, content), name=kept.stem)
    assert another(path, pair).ask("They met", max_new_tokens=3) == wanted


def test_its_warnings_are_told_again(
    path: Path, pair: tuple[Any, Any], caplog: pytest.LogCaptureFixture
) -> None:
    told = []
    another(path, pair).add(FACTS)  # with steps too few to learn anything
    for _ in range(2):
        caplog.clear()
        another(path, pair).delta()
        told.append([record.message for record in caplog.records])
    assert told[0] == told[1] and any("not learned" in line for line in told[0])


def test_without_a_place_to_keep_it_the_memory_answers(
    path: Path,
    pair: tuple[Any, Any],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    blocked = path.with_name("file")
    blocked.touch()
    monkeypatch.setenv("ROSE_EASYEDIT_CACHE", str(blocked))
    another(path, pair).add(FACTS)
    assert another(path, pair).delta() is not None
    assert "not kept for the next time" in caplog.text


def test_an_empty_memory_computes_nothing_of_an_edit(
    path: Path, pair: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise AssertionError("an edit was begun")

    memory = another(path, pair)
    for module, names in (
        (edit, ("compute_edit", "solve_edit", "find_targets", "solve_targets")),
        (prepared, ("base_fingerprint",)),
    ):
        for name in names:
            monkeypatch.setattr(module, name, fail)
    assert memory.ask("They met", max_new_tokens=3)
    with pytest.raises(RoSEError, match="no fact to write"):
        memory.save(path.with_name("edit.safetensors"))
    assert not cache.exists()
