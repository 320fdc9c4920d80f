"""The same bytes, whatever type and device PyTorch's defaults for new tensors are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from laboratory_texts import make_people, vocabulary
from laboratory_tokenizer import make_tokenizer
from laboratory_training import Recipe, train
from tiny_llama import build_llama
from tiny_models import FACTS, settings

from rose_easyedit.evaluation.evaluate import Baseline, EvaluationSettings, evaluate_edit
from rose_easyedit.evaluation.facts import Fact
from rose_easyedit.geometry.diagnosis import diagnose
from rose_easyedit.geometry.settings import DiagnosisSettings
from rose_easyedit.memory.memory import FactMemory
from rose_easyedit.method.edit import compute_edit
from rose_easyedit.method.locating.exchanges import exchanges
from rose_easyedit.method.locating.location import locate
from rose_easyedit.models.fingerprint import model_fingerprint
from rose_easyedit.models.loading import load_model
from rose_easyedit.requests import EditRequest

Stage = Callable[[Any, Any, Path], Any]

# The defaults that a process may have; on a machine without another device, "meta" is one.
DEFAULTS: dict[str, tuple[torch.dtype, str]] = {
    "float64": (torch.float64, "cpu"),
    "bfloat16": (torch.bfloat16, "cpu"),
    "another device": (torch.float32, "meta"),
}


@contextmanager
def defaults(dtype: torch.dtype, device: str) -> Iterator[None]:
    """Other defaults inside the block."""
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(torch.float32)


def hparams(**overrides: Any) -> Any:
    """Settings that go through every part of an edit."""
    hierarchy = {"fact_steps": 3, "subject_steps": 3, "smoothing_radius": 0.3, "kl_factor": 0.1}
    alignment = {
        "protected_directions": 4,
        "preserved_columns": 40,
        "statistics_tokens": 64,
        "locality_budget": 1e-3,
    }
    some = dict(n_contexts=2, chat_contexts=1, answered_queries=1, query_formats=1)
    return settings(**some, hierarchy=hierarchy, alignment=alignment).with_overrides(**overrides)


def edited(overrides: dict[str, Any]) -> Stage:
    def stage(model: Any, tokenizer: Any, folder: Path) -> Any:
        delta = compute_edit(model, tokenizer, FACTS, hparams(**overrides))
        assert all(f.left.dtype == f.right.dtype == torch.float32 for f in delta.layers.values())
        return delta.fingerprint, delta.provenance.losses, delta.provenance.calibration

    return stage


def evaluated(model: Any, tokenizer: Any, folder: Path) -> Any:
    facts = [Fact(**fact, relation=str(i), ground_truth="x") for i, fact in enumerate(FACTS)]
    delta = compute_edit(model, tokenizer, FACTS, hparams())
    how = EvaluationSettings(max_new_tokens=3, locality_text=True)
    baseline = Baseline.of(model, tokenizer, facts, settings=how, cache=folder)
    with delta.applied(model):
        return evaluate_edit(model, tokenizer, facts, baseline=baseline).as_dict()


def diagnosed(model: Any, tokenizer: Any, folder: Path) -> Any:
    facts = [Fact(**fact, relation=str(i), ground_truth="x") for i, fact in enumerate(FACTS)]
    delta = compute_edit(model, tokenizer, FACTS, hparams())
    how = DiagnosisSettings(directions=2, halvings=2, landscape_directions=2, landscape_points=2)
    return diagnose(model, tokenizer, facts, {"own": delta}, how).as_dict()


def located(model: Any, tokenizer: Any, folder: Path) -> Any:
    requests = [
        EditRequest.from_mapping({**fact, "prompt": fact["prompt"] + " is"}) for fact in FACTS
    ]
    return locate(model, tokenizer, exchanges(requests, 4)).as_dict()


def remembered(model: Any, tokenizer: Any, folder: Path) -> Any:
    memory = FactMemory.open(folder / "facts.memory", model, tokenizer, hparams())
    memory.add(FACTS[:2])
    memory.add(FACTS[2:])
    delta = memory.delta()
    assert delta is not None
    saved = memory.save(folder / "edit.safetensors").read_bytes()
    return delta.fingerprint, saved, memory.ask("Who is Ada Lovelace?", max_new_tokens=3)


STAGES: dict[str, Stage] = {
    "an edit": edited({}),
    "an edit as MEMIT-Merge": edited(
        {"key_columns": "merged", "hierarchy": {"integration": "joint", "smoothing_radius": 0.0}}
    ),
    "an edit that keeps answers, with a covariance": edited(
        {"kept_queries": 2, "kept_tokens": 3, "alignment": {"constraint": "covariance"}}
    ),
    "an evaluation": evaluated,
    "a diagnosis": diagnosed,
    "causal tracing": located,
    "a memory": remembered,
}


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_gives_the_same(
    stage: str, tiny_tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def result(name: str) -> Any:
        # each with a cache of its own, so that nothing is found that another has computed
        monkeypatch.setenv("ROSE_EASYEDIT_CACHE", str(tmp_path / name))
        folder = tmp_path / name / "stage"
        folder.mkdir(parents=True)
        return STAGES[stage](model, tokenizer, folder)

    model, tokenizer = build_llama(), tiny_tokenizer
    wanted = result("usual")
    for name, kind in DEFAULTS.items():
        with defaults(*kind):
            assert result(name) == wanted, name


def test_a_model_is_loaded_as_it_is(tiny_folder: Path) -> None:
    def loaded(name: str) -> Any:
        model, _ = load_model(name)
        return model_fingerprint(model), model.dtype, model.device.type

    for name in ("tiny-random", str(tiny_folder)):
        wanted = loaded(name)
        for kind in DEFAULTS.values():
            with defaults(*kind):
                assert loaded(name) == wanted


def test_the_laboratory_is_trained_as_ever() -> None:
    recipe = Recipe(people=6, layers=3, local_layers=2, width=16, heads=2, feed_forward=32, steps=3)
    people = make_people(recipe.people, recipe.statements_only, seed=0)
    tokenizer = make_tokenizer(vocabulary())

    def trained() -> str:
        return model_fingerprint(train(recipe, tokenizer, people))

    wanted = trained()
    for kind in DEFAULTS.values():
        with defaults(*kind):
            assert trained() == wanted
