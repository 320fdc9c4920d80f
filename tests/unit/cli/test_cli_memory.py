"""`rose-edit memory` in the shell: a fact from adding to forgetting, with exit codes and JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rose_easyedit.cli import main
from rose_easyedit.edits.delta import EditDelta

pytestmark = pytest.mark.usefixtures("own_cache")
CURIE = {"subject": "Marie Curie", "prompt": "Marie Curie worked in"}
QUICK = ("fact_steps=2", "subject_steps=15", "smoothing_radius=0")
STRONG = ("strength=0.001", "protected_directions=0", "preserved_columns=0")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def words(command: str, *more: str, **fact: str) -> list[str]:
    given = [word for name, value in fact.items() for word in (f"--{name}", value)]
    return ["memory", command, "--memory", "facts.db", *given, *more]


def begin(*more: str) -> list[str]:
    settings = [f"hierarchy.{value}" for value in QUICK] + [f"alignment.{v}" for v in STRONG]
    given = [word for value in settings for word in ("--set", value)]
    return words("add", "--model", "tiny-random", *given, *more, **CURIE, target="London")


def report(capsys: pytest.CaptureFixture[str], *line: str) -> Any:
    capsys.readouterr()
    assert main([*line, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_fact_from_adding_to_forgetting(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    added = report(capsys, *begin())
    assert [change["action"] for change in added["changes"]] == ["add"]
    assert added["facts"] == 1
    (fact,) = report(capsys, *words("list"))["facts"]
    assert (fact["subject"], fact["target_new"], fact["state"]) == (
        "Marie Curie",
        "London",
        "ready",
    )
    report(capsys, *words("update", **CURIE, target="Rome"))  # settings and model: the memory's
    (asked,) = report(
        capsys, *words("ask", "--plain", "--max-new-tokens", "3", prompt=CURIE["prompt"])
    )["answers"]
    assert asked["before"] != asked["after"]
    out = report(capsys, *words("export", out="edit.safetensors"))
    assert out["bytes"] == (place / "edit.safetensors").stat().st_size
    (held,) = EditDelta.load("edit.safetensors").provenance.requests
    assert held["target_new"] == "Rome"
    report(capsys, *words("forget", subject="Marie Curie"))
    assert report(capsys, *words("list"))["facts"] == []
    told = report(capsys, *words("history", subject="Marie Curie"))["changes"]
    assert [(c["action"], c["old"], c["new"]) for c in told] == [
        ("add", None, "London"),
        ("update", "London", "Rome"),
        ("forget", "Rome", None),
    ]


def test_people_read_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(begin("--later")) == 0
    assert "1 fact in facts.db" in capsys.readouterr().out
    assert main(begin("--later")) == 0
    assert "nothing new" in capsys.readouterr().out
    for command in ("list", "history"):
        assert main(words(command)) == 0
        shown = capsys.readouterr().out
        assert "London" in shown
    assert main(words("list")) == 0
    assert "waiting" in capsys.readouterr().out


def test_many_facts_come_from_a_file(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = [{**CURIE, "prompt": f"Marie Curie {n}", "target_new": "x"} for n in range(3)]
    (place / "facts.jsonl").write_text("\n".join(map(json.dumps, facts)))
    line = words("add", "--later", "--model", "tiny-random", requests="facts.jsonl")
    assert report(capsys, *line)["facts"] == 3


@pytest.mark.parametrize(
    ("line", "part"),
    [
        (words("list"), "`memory add` begins one"),
        (begin("--set", "layers=[1,99]"), "Layer 99 is asked for, but the model has 4 layers"),
        (begin("--device", "tpu"), "device is 'tpu'"),
        (begin("--device", "tpu", "--later"), "device is 'tpu'"),
        (begin("--model", "/no/model", "--hparams", "tiny-random"), "no model '/no/model'"),
        (begin("--model", "/no/model", "--hparams", "tiny-random", "--later"), "no such place"),
        (begin("--memory", "."), "'.' is a folder, and no memory"),
        (begin("--memory", ""), "--memory is empty; name a file"),
        (words("add", subject="a", prompt="a is"), "lacks --target"),
        (words("add", subject="a", requests="facts.jsonl"), "leave out --subject"),
        (words("add", subject="a", prompt="b is", target="c"), "does not contain its subject"),
        (words("ask", "--json"), "add --prompt"),
        (words("add", "--model", "no/such", subject="a", prompt="a is", target="c"), "no/such"),
    ],
)
def test_wrong_input_ends_with_2_and_makes_no_file(
    line: list[str], part: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line) == 2
    assert part in capsys.readouterr().err
    assert list(place.iterdir()) == []


def test_a_memory_that_cannot_be_made_names_its_folder(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "file").touch()
    assert main(begin("--memory", "file/m.db")) == 1
    assert f"since {place / 'file'} is a file; name another folder" in capsys.readouterr().err
    assert main(begin("--memory", "/proc/m.db")) == 1
    assert "since /proc cannot be written to" in capsys.readouterr().err


def test_a_memory_keeps_its_settings_and_its_facts(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(begin("--later")) == 0
    other = words("add", "--set", "n_contexts=2", **CURIE, target="Rome")
    assert main(other) == 2
    assert "begun with other settings" in capsys.readouterr().err
    unknown = words("update", "--later", subject="a", prompt="a is", target="c")
    assert main(unknown) == 2
    assert "no such fact to update" in capsys.readouterr().err
    assert main(words("forget", subject="nobody")) == 2
    assert "no fact about 'nobody'" in capsys.readouterr().err
    (place / "kept.safetensors").write_bytes(b"precious")
    assert main(words("export", out="kept.safetensors")) == 2
    assert (place / "kept.safetensors").read_bytes() == b"precious"


@pytest.mark.parametrize(
    "line",
    [
        ("add", "--model", "laboratory"),
        ("add", "--model", "/no"),
        ("add", "--set", "layers=[9]"),
        ("update", "--model", "laboratory"),
    ],
)
def test_a_failed_change_stores_nothing(
    line: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(begin()) == 0
    before = [report(capsys, *words(shown)) for shown in ("list", "history")]
    fact = CURIE if line[0] == "update" else {**CURIE, "prompt": "Marie Curie sang"}
    assert main(words(*line, **fact, target="Rome")) == 2
    assert [report(capsys, *words(shown)) for shown in ("list", "history")] == before


def test_settings_that_are_given_again_stand_on_those_of_the_memory(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(begin("--later")) == 0
    fact = {"subject": "Marie Curie", "prompt": "Marie Curie sang", "target": "well"}
    assert main(words("add", "--later", "--set", f"hierarchy.{QUICK[0]}", **fact)) == 0
    capsys.readouterr()
    assert main(words("add", "--later", "--set", "n_contexts=2", **fact)) == 2
    faults = capsys.readouterr().err.splitlines()[1:]
    assert faults == ["  - n_contexts is 3 there and 2 here"]


def test_a_fact_that_is_too_long_is_named_in_few_words(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(begin("--prompt", "so " * 2000 + "Marie Curie", "--target", "x")) == 2
    fault = capsys.readouterr().err
    assert "(subject 'Marie Curie'): " in fault and len(fault) < 1500
    assert main(words("list")) == 0
    shown = capsys.readouterr().out
    refused = shown.splitlines()[-1]
    assert refused.startswith("refused: 'so so") and len(shown) < 3000
    assert refused.endswith("shorten the prompt")
    assert main(words("history")) == 0
    assert len(capsys.readouterr().out) < 3000


def test_nothing_is_said_in_words(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(begin("--later")) == 0
    assert main(words("list", subject="nobody")) == 0
    assert capsys.readouterr().out.endswith("no facts\n")
    assert main(words("history", subject="nobody")) == 0
    assert capsys.readouterr().out == "nothing yet\n"
