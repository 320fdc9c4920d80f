"""One run: its files, what its tracker is told, and that the model is as before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from experiments import Notebook, quick
from omegaconf import OmegaConf
from tiny_models import same_weights, weights_of

from rose_easyedit.config.hparams import RoSEHyperParams
from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.errors import RoSEError
from rose_easyedit.experiment.identity import run_id
from rose_easyedit.experiment.metrics import main_metrics, objective
from rose_easyedit.experiment.models_once import LoadedModel
from rose_easyedit.experiment.run import run_experiment, select_data
from rose_easyedit.experiment.schema import DataConfig


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ROSE_EASYEDIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_run_writes_its_files_and_tells_its_tracker(tmp_path: Path) -> None:
    folder, tracker, models = tmp_path / "run", Notebook(), LoadedModel()
    folder.mkdir()
    config = quick("evaluation.geometry=true", "evaluation.diagnosis.directions=2")
    before = weights_of(models.get(config.hparams)[0])
    report = run_experiment(config, folder, tracker, models=models, label="a=1")

    assert same_weights(models.get(config.hparams)[0], before)
    result = json.loads((folder / "result.json").read_text())
    assert report["metrics"] == main_metrics(result["summary"])
    assert list(report["seconds"]) == ["model", "baseline", "edit", "evaluation", "geometry"]
    delta = EditDelta.load(folder / "delta.safetensors")
    assert RoSEHyperParams.from_dict(delta.provenance.hparams) == config.hparams
    written = OmegaConf.load(folder / "config.yaml")
    assert written.hparams.layers == [1, 2] and written.data.subjects == 1
    assert json.loads((folder / "diagnosis.json").read_text())["summary"]["facts"] == 4
    assert (folder / "figures" / "radius.png").is_file()

    assert tracker.calls[0] == "start" and tracker.calls[-1] == "finish"
    assert {"log", "table", "figure", "artifact", "summarise"} <= set(tracker.calls)
    assert tracker.failed is False
    assert tracker.summary["main/kl"] == report["metrics"]["kl"]
    assert tracker.info is not None
    assert (tracker.info.id, tracker.info.group) == (run_id(config), "test")
    assert (tracker.info.name, tracker.info.job_type) == ("a=1", "hierarchical, protected")
    assert tracker.info.config["hparams"]["layers"] == [1, 2]


def test_equal_runs_write_equal_edits_and_ask_the_unedited_model_once(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rose_easyedit.evaluation import cache as answers

    asked = []
    measure = answers.measure
    monkeypatch.setattr(answers, "measure", lambda *a, **k: asked.append(1) or measure(*a, **k))
    models = LoadedModel()
    for name, word in (("a", "hierarchy=joint"), ("b", "hierarchy=joint"), ("c", "method=memit")):
        (tmp_path / name).mkdir()
        run_experiment(quick(word), tmp_path / name, Notebook(), models=models)
    assert len(asked) == 1
    a, b, c = ((tmp_path / name / "delta.safetensors").read_bytes() for name in "abc")
    assert a == b != c


def test_stage_1_is_optimised_once_for_all_alignments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rose_easyedit.method.stage1 import targets

    optimised = []
    optimise = targets.optimise
    monkeypatch.setattr(
        targets, "optimise", lambda *words: optimised.append(words[3].name) or optimise(*words)
    )
    models = LoadedModel()
    words = ("alignment=identity", "alignment=covariance", "hierarchy=independent")
    for word in (*words, "cache=false"):
        folder = tmp_path / word
        folder.mkdir()
        run_experiment(quick(word), folder, Notebook(), models=models)
    # independent integration has the same fact level
    assert optimised == ["facts", "subjects", "facts", "subjects"]


def test_a_failure_is_told_to_the_tracker_and_raised(tmp_path: Path) -> None:
    tracker = Notebook()
    with pytest.raises(RoSEError, match="no model"):
        run_experiment(quick("hparams.model_name=no/such-model"), tmp_path, tracker)
    assert tracker.calls == ["start", "finish"] and tracker.failed is True


def test_a_model_is_loaded_once_and_another_takes_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded: list[Any] = []
    monkeypatch.setattr(
        "rose_easyedit.models.loading.load_model", lambda *words: (loaded.append(words), None)
    )
    models, tiny = LoadedModel(), quick().hparams
    first = models.get(tiny)
    assert models.get(quick("method=memit").hparams) is first
    models.get(quick("hparams.model_name=other").hparams)
    models.get(tiny)
    models.get(quick("hparams.fp16=true").hparams)
    models.forget()
    models.get(quick("hparams.fp16=true").hparams)
    assert [words[0] for words in loaded] == [
        "tiny-random",
        "other",
        "tiny-random",
        "tiny-random",
        "tiny-random",
    ]
    assert [words[2] for words in loaded[-2:]] == ["float16", "float16"]


def test_drawn_facts_are_written_and_the_others_of_their_subjects_are_asked() -> None:
    data = DataConfig(split="test", at_least=4, facts_per_subject=3, subjects=2, seed=1)
    selection = select_data(data)
    assert len(selection.edited) == 6 and len(selection.others) == 2
    assert {f.subject for f in selection.others} == {f.subject for f in selection.edited}
    fewer = select_data(
        DataConfig(split="test", at_least=4, facts_per_subject=1, subjects=2, seed=1)
    )
    assert set(fewer.edited) < set(selection.edited)
    assert {fact.subject for fact in select_data(DataConfig(source="wide", subjects=1)).edited}


def test_a_data_file_is_read_with_its_faults_noted(tmp_path: Path) -> None:
    facts = select_data(DataConfig(split="test", subjects=1)).edited
    records = [{**fact.to_request().as_dict()} for fact in facts]
    path = tmp_path / "facts.json"
    path.write_text(json.dumps([*records, {**records[0], "subject": ""}]))
    with pytest.raises(RoSEError):
        select_data(DataConfig(source=str(path)))
    selection = select_data(DataConfig(source=str(path), skip_bad=True))
    assert len(selection.edited) == len(facts)
    assert any("left out" in note for note in selection.notes)


def test_the_main_metrics_are_those_of_the_summary() -> None:
    summary = {
        "forms": {
            "statement": {"faithful": 1.0, "success": 1.0},
            "question": {"faithful": 0.5, "success": 0.75},
            "instruction": {"faithful": 0.25, "success": 0.75},
        },
        "headline": {"broken": 0.125},
        "locality": {
            "all": {"kl": 0.25, "top1": 0.75},
            "neighbour": {"top1": 0.625},
            "subject": {"kl": 1.5, "subject_kept": 0.75, "words_kept": 0.375},
        },
        "r_specificity": {"kept": 0.5},
    }
    assert main_metrics(summary) == {
        "statement": 1.0,
        "question": 0.5,
        "instruction": 0.25,
        "asked": 0.375,
        "named": 0.75,
        "broken": 0.125,
        "kl": 0.25,
        "top1": 0.75,
        "neighbours_top1": 0.625,
        "generic_kl": None,
        "subject_kl": 1.5,
        "subject_kept": 0.75,
        "subject_words": 0.375,
        "specificity": 0.5,
    }
    assert objective(main_metrics(summary)) == (0.375, 0.25)
    with pytest.raises(ValueError, match="nothing can be searched"):
        objective({"asked": None, "kl": 0.1})


@pytest.mark.parametrize("form", ["question", "instruction"])
def test_one_form_alone_is_no_mean_of_both(form: str) -> None:
    summary = {
        "forms": {form: {"faithful": 0.5, "success": 0.5}},
        "headline": {"broken": 0.0},
        "locality": {"all": {"kl": 0.25, "top1": 0.75}},
        "r_specificity": None,
    }
    found = main_metrics(summary)
    assert found[form] == 0.5 and found["asked"] is None


def test_facts_that_cannot_be_had_are_found_out_before_a_model_is_loaded(tmp_path: Path) -> None:
    config = quick("data.subjects=1000", "hparams.model_name=no/such-model")
    with pytest.raises(RoSEError, match="1000 subject"):
        run_experiment(config, tmp_path, Notebook())
