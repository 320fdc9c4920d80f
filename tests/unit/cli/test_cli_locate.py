"""`rose-edit locate`: what it prints, writes and refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rose_easyedit.cli import main
from rose_easyedit.config.hparams import RoSEHyperParams
from rose_easyedit.method.locating import location
from rose_easyedit.method.locating.location import FormTrace, suggest

FACTS = [
    {"prompt": f"{name} was born in", "subject": name, "target_new": "London"}
    for name in ("Marie Curie", "Ada Lovelace", "Isaac Newton")
]
CLEAR = FormTrace(8, 8, 0.6, (0.2, 0.97, 1.04, 0.0), (1, 2), "")
UNCLEAR = FormTrace(8, 3, 0.2, (0.1, 0.2, 0.4, 0.0), (), "there is too little to go by")


@pytest.fixture
def facts(tmp_path: Path) -> Path:
    path = tmp_path / "facts.jsonl"
    path.write_text("".join(json.dumps(fact) + "\n" for fact in FACTS))
    return path


def _found(monkeypatch: pytest.MonkeyPatch, **forms: FormTrace) -> list[Any]:
    """Tracing finds these; returns the pairs that it is asked about."""
    asked: list[Any] = []

    def locate(_model: Any, _tokenizer: Any, pairs: Any, progress: Any) -> Any:
        asked.extend(pairs)
        return suggest(forms)

    monkeypatch.setattr(location, "locate", locate)
    return asked


def test_a_random_model_knows_nothing_and_that_is_said(
    tiny_folder: Path, facts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["locate", "--model", str(tiny_folder), "--requests", str(facts), "--pairs", "5"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "statement: cannot tell, since" in shown and "chat: cannot tell, since" in shown
    assert shown.endswith("No layers are suggested: tracing cannot tell.\n")
    assert "z_layer" not in shown


def test_numbers_go_to_a_file_and_to_programs(
    tiny_folder: Path, facts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = facts.parent / "located.json"
    words = ["locate", "--model", str(tiny_folder), "--requests", str(facts), "--out", str(out)]
    assert main([*words, "--pairs", "5", "--seed", "3", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report.pop("out") == str(out)
    assert json.loads(out.read_text()) == report
    assert (report["data"], report["seed"]) == (str(facts), 3)
    assert {form: found["pairs"] for form, found in report["forms"].items()} == {
        "statement": 5,
        "chat": 5,
    }
    assert main(words) == 2
    assert "exists; name a new file" in capsys.readouterr().err


def test_what_is_suggested_goes_into_a_settings_file(
    facts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _found(monkeypatch, statement=CLEAR, chat=UNCLEAR)
    assert main(["locate", "--model", "tiny-random", "--requests", str(facts)]) == 0
    shown = capsys.readouterr().out
    table, _, suggestion = shown.rpartition("\n\n")
    row = next(line.split() for line in table.splitlines() if line.split()[:1] == ["1"])
    assert row == ["1", "0.97", "#" * 19, "0.20", "####", "edit"]
    assert "statement: the answer depends on the subject in 8 of 8 pairs" in table
    assert "chat: cannot tell, since there is too little to go by" in table
    assert "starting point" in suggestion
    path = facts.parent / "new.yaml"
    path.write_text(f"model_name: tiny-random\n{suggestion}")
    hparams = RoSEHyperParams.from_hparams(str(path))
    assert (hparams.layers, hparams.z_layer) == ([1, 2], 2)


def test_forms_that_disagree_suggest_nothing(
    facts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    late = FormTrace(8, 8, 0.6, (0.0, 0.0, 0.1, 1.0), (3,), "")
    _found(monkeypatch, statement=CLEAR, chat=late)
    assert main(["locate", "--model", "tiny-random", "--requests", str(facts)]) == 0
    assert "suggested: the forms have no such layer in common" in capsys.readouterr().out


def test_the_validation_facts_are_the_prompts_unless_others_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rose_easyedit.evaluation.facts import load_subjects

    asked = _found(monkeypatch, statement=CLEAR)
    assert main(["locate", "--model", "tiny-random", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["data"] == "bundled, validation"
    subjects = {subject.name for subject in load_subjects("validation")}
    assert {name for pair in asked for name in (pair.subject, pair.other)} == subjects
    assert len(asked) == 64
    asked.clear()
    words = ["--data", "bundled-wide", "--split", "test", "--pairs", "7"]
    assert main(["locate", "--model", "tiny-random", "--json", *words]) == 0
    assert json.loads(capsys.readouterr().out)["data"] == "bundled-wide, test"
    wide = {subject.name for subject in load_subjects("test", name="wide")}
    assert len(asked) == 7 and {pair.subject for pair in asked} <= wide


@pytest.mark.parametrize(
    ("more", "part"),
    [
        (["--requests", "{0}", "--data", "bundled"], "leave one of them out"),
        (["--requests", "{0}", "--split", "test"], "--split test"),
        (["--split", "tset"], "choose one of validation, test."),
        (["--seed", "-1"], "seed is -1; give 0 or more"),
        (["--requests", "{0}.missing"], "facts.jsonl.missing"),
        (["--requests", "{0}", "--pairs", "0"], "number of pairs is 0"),
        (["--requests", "{0}", "--out", "{0}"], "exists"),
    ],
)
def test_wrong_input_ends_with_2_before_a_model_is_loaded(
    more: list[str],
    part: str,
    facts: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("rose_easyedit.models.loading.load_model", None)
    assert main(["locate", *(word.format(facts) for word in more)]) == 2
    assert part in capsys.readouterr().err


def test_help_is_quick_and_has_examples() -> None:
    script = (
        "import sys\n"
        "from rose_easyedit.cli import main\n"
        "try: main(['locate', '--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'torch', 'transformers', 'omegaconf'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    words = [sys.executable, "-c", script]
    shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert "  rose-edit locate --requests facts.jsonl --out located.json" in shown
    assert "starting point" in shown and "Exit codes: 0 done" in shown
