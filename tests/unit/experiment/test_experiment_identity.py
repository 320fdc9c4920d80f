"""A run's id changes with all that its results depend on, and with nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from experiments import quick

from rose_easyedit.experiment import identity
from rose_easyedit.experiment.identity import run_id


@pytest.mark.parametrize(
    "word",
    [
        "hparams.alignment.strength=0.25",
        "hierarchy=joint",
        "seed=3",
        "data.facts_per_subject=2",
        "data.seed=1",
        "evaluation.max_new_tokens=5",
        "evaluation.geometry=true",
        "through=easyedit",
        "hparams.device=cuda:0",
    ],
)
def test_what_results_depend_on_makes_another_run(word: str) -> None:
    assert run_id(quick(word)) != run_id(quick())


@pytest.mark.parametrize(
    "word",
    [
        "name=other",
        "folder=/elsewhere",
        "resume=false",
        "cache=false",
        "tracking=jsonl",
        "tracking.tags=[a]",
        "hparams.tracking=none",
        "seed=0",
        "evaluation.diagnosis.directions=3",  # of a geometry that is not measured
        "alignment=protected",  # as the settings have it already
        "launcher=basic",
    ],
)
def test_what_they_do_not_depend_on_leaves_the_run_what_it_is(word: str) -> None:
    assert run_id(quick(word)) == run_id(quick())


def test_a_data_file_counts_by_what_it_holds(tmp_path: Path) -> None:
    def of(text: str) -> str:
        (tmp_path / "facts.json").write_text(text)
        return run_id(quick("data=file", f"data.source={tmp_path / 'facts.json'}"))

    assert of("[1]") == of("[1]") != of("[2]")


def test_a_models_folder_counts_by_its_files(tmp_path: Path) -> None:
    def of() -> str:
        return run_id(quick(f"hparams.model_name={tmp_path}"))

    (tmp_path / "model.safetensors").write_bytes(b"a")
    before = of()
    assert of() == before
    (tmp_path / "model.safetensors").write_bytes(b"ab")
    assert of() != before


@pytest.mark.parametrize("place", ["model", "model/texts", "."])
def test_the_generic_text_counts_by_what_it_holds_wherever_it_is_found(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model" / "texts").mkdir(parents=True)
    name = "texts/corpus.txt" if place.endswith("texts") else "corpus.txt"
    file = tmp_path / place / "corpus.txt"

    def of(text: str) -> str:
        file.write_text(text)
        os.utime(file, (1, 1))
        return run_id(
            quick(
                f"hparams.model_name={tmp_path / 'model'}",
                f"hparams.alignment.statistics_text={name}",
            )
        )

    assert of("one") == of("one") != of("two")


@pytest.mark.parametrize("name", ["EDITS", "EVALUATIONS"])
def test_another_version_of_the_results_makes_another_run(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    before = run_id(quick())
    monkeypatch.setattr(identity, name, getattr(identity, name) + 1)
    assert run_id(quick()) != before


def test_an_edited_source_repeats_no_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = run_id(quick())
    monkeypatch.setattr(identity, "__file__", str(tmp_path / "experiment" / "identity.py"))
    assert run_id(quick()) == before
