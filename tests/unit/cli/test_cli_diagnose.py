"""`rose-edit diagnose` on a tiny model: what it writes, prints and refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import LENIENT

from rose_easyedit.cli import main
from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.figures import canvas
from rose_easyedit.geometry.settings import DiagnosisSettings

FACTS = [
    {
        "prompt": "In Paris Marie Curie worked in",
        "subject": "Marie Curie",
        "target_new": "London",
        "rephrase_prompt": "They say that Marie Curie worked in",
        "questions": ["Where did Marie Curie work?"],
    },
    {"prompt": "In Paris Marie Curie speaks", "subject": "Marie Curie", "target_new": "Spanish"},
    {"prompt": "It is in England that Ada", "subject": "Ada", "target_new": "lived"},
]
QUICK = ("--directions", "2")


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Statistics are computed here, not read from an earlier run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROSE_EASYEDIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """A folder with facts, settings for the tiny model, and an edit."""
    folder = tmp_path_factory.mktemp("diagnose")
    (folder / "facts.json").write_text(json.dumps(FACTS))
    (folder / "tiny.yaml").write_text(
        f"model_name: {tiny_folder}\n"
        "layers: [1, 2]\n"
        "sink_ratio: 50\n"
        "hierarchy: {fact_steps: 3, subject_steps: 3}\n"
        "alignment: {protected_directions: 0, preserved_columns: 0, statistics_tokens: 64}\n"
        f"self_check: {json.dumps(LENIENT)}\n"
    )
    words = ["edit", "--hparams", str(folder / "tiny.yaml"), "--out", str(folder / "e.safetensors")]
    assert main([*words, "--requests", str(folder / "facts.json")]) == 0
    return folder


def _words(folder: Path, out: str, *more: str) -> list[str]:
    return ["diagnose", "--out", str(folder / out), *QUICK, *more]


def _computing(folder: Path, out: str, *more: str) -> list[str]:
    requests = ["--requests", str(folder / "facts.json"), "--hparams", str(folder / "tiny.yaml")]
    return _words(folder, out, *requests, *more)


def _numbers(folder: Path, out: str) -> Any:
    return json.loads((folder / out / "diagnosis.json").read_text())


def test_numbers_and_figures_are_written(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(_computing(workplace, "computed", "--json", "--seed", "0")) == 0
    report = json.loads(capsys.readouterr().out)
    folder = workplace / "computed"
    assert sorted(path.name for path in folder.iterdir()) == sorted(report["files"])
    assert {"diagnosis.json", "keys.png", "keys.svg", "deviation.png"} <= set(report["files"])
    numbers = _numbers(workplace, "computed")
    settings = numbers["settings"]
    assert (settings["seed"], settings["directions"], settings["quantile"]) == (0, 2, 0.5)
    assert numbers["summary"]["edits"] == report["edits"]
    (edit,) = numbers["edits"]
    asked = {(query["form"], query["text"]) for query in edit["queries"]}
    # a record's own forms are used, and wrapped ones where it has none
    assert ("paraphrase", "They say that Marie Curie worked in") in asked
    assert ("question", "Where did Marie Curie work?") in asked
    of_the_second = {query["form"] for query in edit["queries"] if query["fact"] == 1}
    assert of_the_second == {"statement", "question", "instruction"}
    assert all(query["deviation"] > 0 for query in edit["queries"])
    assert len(edit["radii"]) == len(numbers["facts"]) == 3
    assert len(numbers["conflicts"]) == 1

    # an edit that was saved is diagnosed as if it were computed now
    words = ["--delta", str(workplace / "e.safetensors")]
    words += ["--requests", str(workplace / "facts.json")]
    assert main(_words(workplace, "given", *words)) == 0
    assert {**_numbers(workplace, "given"), "delta": None} == numbers


def test_a_table_is_printed_and_an_edit_is_enough(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    words = ["--delta", str(workplace / "e.safetensors"), "--seed", "5", "--quantile", "0"]
    assert main(_words(workplace, "table", *words)) == 0
    shown = capsys.readouterr().out
    for part in ("hierarchical, protected: R ", "statement ", "instruction ", "precision", "auc"):
        assert part in shown
    assert "conflict of facts of one subject:" in shown
    assert f"files -> {workplace / 'table'}" in shown
    numbers = _numbers(workplace, "table")
    assert (numbers["settings"]["seed"], numbers["settings"]["quantile"]) == (5, 0.0)
    # the edit's own statements, and what wraps them
    forms = {query["form"] for query in numbers["edits"][0]["queries"]}
    assert forms == {"statement", "question", "instruction"}


@pytest.mark.parametrize("size", ["quick", "thorough"])
def test_help_says_what_a_size_is(size: str, capsys: pytest.CaptureFixture[str]) -> None:
    from rose_easyedit.cli.diagnose import _settings
    from rose_easyedit.cli.parser import build_parser

    words = ["diagnose", "--out", "x"]
    how = _settings(build_parser().parse_args([*words, f"--{size}"]))
    assert how == DiagnosisSettings.of_size(size)
    assert _settings(build_parser().parse_args(words)) == DiagnosisSettings()
    with pytest.raises(SystemExit):
        build_parser().parse_args(["diagnose", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    step = round(2**how.halvings / how.max_radius)
    points = f"{how.landscape_directions} x {2 * how.landscape_points + 1} points"
    assert f"R in {how.directions} directions to 1/{step} |h|, a landscape of {points}" in shown


def test_rivals_are_computed_when_asked_for(workplace: Path) -> None:
    words = ["--delta", str(workplace / "e.safetensors"), "--compare"]
    assert main(_words(workplace, "compared", *words)) == 0
    numbers = _numbers(workplace, "compared")
    names = ["hierarchical, protected", "joint, protected", "hierarchical, covariance"]
    assert list(numbers["hparams"]) == [edit["name"] for edit in numbers["edits"]] == names
    assert numbers["hparams"][names[2]]["alignment"]["constraint"] == "covariance"


def test_another_model_is_refused_before_anything_is_measured(
    workplace: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from rose_easyedit.models.loading import load_model

    for name in ("diagnosis.diagnose", "rivals.rivals"):
        monkeypatch.setattr(f"rose_easyedit.geometry.{name}", None)

    delta = EditDelta.load(workplace / "e.safetensors")
    model, tokenizer = load_model(delta.provenance.hparams["model_name"])
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.mul_(2)
    model.save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    words = ["--delta", str(workplace / "e.safetensors"), "--model", str(tmp_path / "other")]
    assert main(_words(workplace, "other", "--compare", *words)) == 2
    assert "computed for" in capsys.readouterr().err
    assert not (workplace / "other").exists()


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        ([], ["add --requests FILE or --delta FILE"]),
        (
            ["--delta", "{0}/e.safetensors", "--method", "memit", "--set", "seed=1"],
            ["--method, --set", "leave out --delta"],
        ),
        (["--delta", "{0}/nothing.safetensors"], ["nothing.safetensors"]),
        (["--requests", "{0}/nothing.json"], ["nothing.json"]),
        (["--requests", "{0}/facts.json", "--split", "test"], ["--split test", "give --requests"]),
        (["--delta", "{0}/e.safetensors", "--split", "test"], ["give --requests bundled or"]),
        (
            ["--delta", "{0}/e.safetensors", "--requests", "bundled"],
            ["None of the", "leave out --requests"],
        ),
        (["--requests", "bundled", "--split", "tset"], ["tset"]),
        (["--requests", "bundled", "--method", "magic"], ["magic"]),
        (["--requests", "bundled", "--quantile", "2"], ["quantile is 2"]),
    ],
)
def test_wrong_input_ends_with_2_and_leaves_no_folder(
    more: list[str], parts: list[str], workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(workplace.iterdir())
    assert main(_words(workplace, "wrong", *(word.format(workplace) for word in more))) == 2
    shown = capsys.readouterr().err
    assert all(part in shown for part in parts), shown
    assert sorted(workplace.iterdir()) == before


def test_a_folder_in_use_is_refused(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(_computing(workplace, ".")) == 2
    assert "is not an empty folder; choose another name" in capsys.readouterr().err


def test_without_matplotlib_nothing_is_begun(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(canvas, "find_spec", lambda name: None)
    monkeypatch.setattr("rose_easyedit.models.loading.load_model", None)
    assert main(_computing(workplace, "plain")) == 2
    assert "rose-easyedit[figures]" in capsys.readouterr().err


def test_an_interrupted_diagnosis_leaves_no_folder(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rose_easyedit.figures.diagnosis.write_figures", interrupt)
    before = sorted(workplace.iterdir())
    assert main(_computing(workplace, "interrupted")) == 130
    assert sorted(workplace.iterdir()) == before


def test_the_bundled_set_is_read_by_its_name() -> None:
    from rose_easyedit.cli.diagnose import _read
    from rose_easyedit.evaluation.facts import load_facts

    assert [fact.case_id for fact in _read("bundled", "test")] == [
        fact.case_id for fact in load_facts("test")
    ]


def test_help_is_quick_and_has_examples() -> None:
    script = (
        "import sys\n"
        "from rose_easyedit.cli import main\n"
        "try: main(['diagnose', '--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'torch', 'transformers', 'omegaconf', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    words = [sys.executable, "-c", script]
    shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert "  rose-edit diagnose --delta edit.safetensors --out diagnosis" in shown
    assert "Exit codes: 0 done" in shown


def test_an_edit_that_says_too_little_is_refused(
    workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit = EditDelta.load(workplace / "e.safetensors")
    said = {name: getattr(edit.provenance, name) for name in ("requests", "groups", "hparams")}
    bare = EditDelta(edit.layers, edit.base, said, edit.targets).save(tmp_path / "bare")
    assert main(_words(workplace, "bare", "--delta", str(bare))) == 2
    assert "does not say its losses, steps, versions" in capsys.readouterr().err
