"""lm-evaluation-harness on a task of our own, offline; without it an error says what to install."""

from __future__ import annotations

import importlib.util
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rose_easyedit.cli import main
from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.edits.factors import Factors
from rose_easyedit.errors import RoSEError
from rose_easyedit.evaluation import harness
from rose_easyedit.evaluation.harness import require_harness, run_harness
from rose_easyedit.models.fingerprint import weights_fingerprint

NAME = "model.layers.1.mlp.down_proj.weight"
installed = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None,
    reason="needs lm-evaluation-harness: pip install -e .[lm-eval]",
)
# datasets and its dependencies, which are not ours
foreign_warnings = pytest.mark.filterwarnings("default")
QUESTIONS = [("Marie Curie was born in", ["Warsaw", "London"], 0), ("She is in", ["a", "b"], 1)]


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *a: None if name == "lm_eval" else find(name, *a)
    )


@pytest.fixture
def delta(tiny_llama: Any) -> EditDelta:
    """An edit that changes every answer of the tiny model."""
    weight = tiny_llama.get_parameter(NAME)
    generator = torch.Generator().manual_seed(0)
    left = 10 * torch.randn(weight.shape[0], 8, generator=generator)
    right = torch.randn(8, weight.shape[1], generator=generator)
    return EditDelta({NAME: Factors(left, right, False)}, weights_fingerprint([(NAME, weight)]))


@pytest.fixture
def task_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one task of a few questions, and its data."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "data.jsonl"
    lines = [json.dumps(dict(zip(("text", "choices", "label"), q, strict=True))) for q in QUESTIONS]
    data.write_text("\n".join(lines))
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "own.yaml").write_text(
        "task: rose_own_task\n"
        "dataset_path: json\n"
        f"dataset_kwargs: {{data_files: {{test: {data}}}}}\n"
        "test_split: test\n"
        "output_type: multiple_choice\n"
        'doc_to_text: "{{text}}"\n'
        'doc_to_choice: "{{choices}}"\n'
        "doc_to_target: label\n"
        "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
    )
    return folder


@pytest.mark.usefixtures("missing")
def test_a_missing_extra_says_how_to_install_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RoSEError, match=r'pip install "rose-easyedit\[lm-eval\]"'):
        require_harness()
    assert main(["evaluate", "--delta", "nowhere.safetensors", "--lm-eval", "piqa"]) == 2
    assert "rose-easyedit[lm-eval]" in capsys.readouterr().err


@installed
@foreign_warnings
def test_both_models_are_scored_and_nothing_is_left_changed(
    tiny_llama: Any, tiny_tokenizer: Any, delta: EditDelta, task_folder: Path
) -> None:
    tiny_llama.train()
    weights = {name: value.clone() for name, value in tiny_llama.state_dict().items()}
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    side = tiny_tokenizer.padding_side
    scores = run_harness(
        tiny_llama, tiny_tokenizer, delta, ["rose_own_task"], task_folder=task_folder
    )
    before, after = scores["before"]["rose_own_task"], scores["after"]["rose_own_task"]
    assert 0 <= before["acc"] <= 1 and before.keys() == after.keys() >= {"acc", "acc_stderr"}
    assert scores["settings"]["limit"] is None
    assert tiny_llama.training and tiny_tokenizer.padding_side == side
    assert all(torch.equal(value, weights[name]) for name, value in tiny_llama.state_dict().items())
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]
    assert torch.get_rng_state().tolist() == states[2]


@installed
@foreign_warnings
def test_the_edited_model_is_the_one_that_is_scored_after(
    tiny_llama: Any,
    tiny_tokenizer: Any,
    delta: EditDelta,
    task_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def weight(model: Any, *_: Any) -> str:
        return weights_fingerprint([(NAME, model.get_parameter(NAME))])

    monkeypatch.setattr(harness, "_scores", weight)
    seen = run_harness(
        tiny_llama, tiny_tokenizer, delta, ["rose_own_task"], task_folder=task_folder
    )
    assert seen["before"] == delta.base == weight(tiny_llama)
    with delta.applied(tiny_llama):
        assert seen["after"] == weight(tiny_llama) != delta.base


@installed
@foreign_warnings
def test_an_unknown_task_is_named(
    tiny_llama: Any, tiny_tokenizer: Any, delta: EditDelta, task_folder: Path
) -> None:
    with pytest.raises(RoSEError, match="'no_such_task'"):
        run_harness(
            tiny_llama,
            tiny_tokenizer,
            delta,
            ["rose_own_task", "no_such_task"],
            task_folder=task_folder,
        )
