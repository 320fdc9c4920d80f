"""Text on its way out: any terminal shows it, none obeys it, and no message is unreadably long."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from sweeps import a_result, end_sweep, write_run

from rose_easyedit.cli import main
from rose_easyedit.edits.checks import record_digest
from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.edits.factors import Factors
from rose_easyedit.edits.file import FORMAT
from rose_easyedit.experiment.report import main as report_main
from rose_easyedit.experiment.summary_table import print_summary, read_rows
from rose_easyedit.files.stdout import json_text, printable, printable_message

OBEYED = "\x1b[2J\x07\x7f\x9b2J\u202e\u2066\u200f\udcff\ud800"


def is_clean(text: str) -> bool:
    return not set(OBEYED.replace("[2J", "").replace("2J", "")) & set(text)


def edit_with(path: Path, **provenance: Any) -> Path:
    """An edit whose record holds what no writer of this package would write."""
    from safetensors.torch import save

    tensors = {"a.weight.left": torch.ones(4, 1), "a.weight.right": torch.ones(1, 6)}
    record = {"base": "0" * 64, "layers": {"a.weight": False}, "provenance": provenance}
    record["sha256"] = record_digest(record, tensors)
    path.write_bytes(save(tensors, {FORMAT: json.dumps(record)}))
    return path


@pytest.mark.parametrize("words", [[], ["--json"]])
def test_half_a_character_and_codes_in_an_edit_are_shown(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notes = {"log": [f"note {OBEYED}"], "hparams": {"model_name": OBEYED}}
    path = edit_with(tmp_path / "edit", **notes, losses=[], architecture=OBEYED)
    assert main(["info", str(path), *words]) == 0
    shown = capsys.readouterr()
    assert is_clean(shown.out + shown.err) and "note" in shown.out
    if words:
        assert json.loads(shown.out)["log"] == notes["log"]


def test_json_has_no_number_that_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = edit_with(
        tmp_path / "edit",
        requests=[{"prompt": "a b", "subject": "a", "target_new": "c"}],
        losses=[float("nan")],
    )
    assert main(["info", str(path), "--json"]) == 0

    def refuse(word: str) -> None:
        pytest.fail(f"{word} is no JSON")

    out = capsys.readouterr().out
    assert json.loads(out, parse_constant=refuse)["facts"][0]["loss"] is None


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
@pytest.mark.parametrize("words", [[], ["--json"]])
def test_any_terminal_will_do(
    encoding: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = edit_with(tmp_path / "edit", log=["Fr\u00e9d\u00e9ric, \u6771\u4eac"])
    content = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(content, encoding=encoding))
    assert main(["info", str(path), *words]) == 0
    assert b"Fr" in content.getvalue()


def test_a_name_that_is_no_text_is_written_shown_and_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layers = {"a.weight": Factors(torch.ones(4, 1), torch.ones(1, 6))}
    path = tmp_path / os.fsdecode(b"edit-\xff-\xe2\x80\xae\x1b[2J")
    EditDelta(layers, "0" * 64, {}).save(path)
    assert EditDelta.load(path).fingerprint
    for words in ([], ["--json"]):
        assert main(["info", str(path), *words]) == 0
    assert main(["info", f"{path}-none"]) == 2
    shown = capsys.readouterr()
    assert is_clean(shown.out + shown.err)


def test_a_sweep_of_a_name_that_is_no_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = tmp_path / os.fsdecode(b"sweep-\xff\x1b[2J")
    for number in range(2):
        words = [f"a{OBEYED[:4]}={number}\x1b[2J"]
        write_run(sweep, f"r{number}", words, a_result(0.5, 0.1))
    end_sweep(sweep, [(f"r{n}", [f"a\x9b={n}\x1b[2J"]) for n in range(2)])
    assert report_main([str(sweep)]) == 0
    assert report_main([f"{sweep}-none"]) == 2
    print_summary(sweep, read_rows(sweep))
    shown = capsys.readouterr()
    assert is_clean(shown.out + shown.err) and "r1" in shown.out


def test_a_message_has_a_length_that_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    message = printable_message("x" * 1_000_000 + "\n" + "line\n" * 100_000)
    assert len(message) < 5_000 and "more lines" in message
    assert printable_message("short\n  - and clear") == "short\n  - and clear"
    assert main(["info", "n" * 1_000_000, "--json"]) == 2
    shown = capsys.readouterr()
    assert len(shown.out + shown.err) < 10_000


def test_what_is_harmless_stays() -> None:
    text = "Fr\u00e9d\u00e9ric\t\U0001f469\u200d\U0001f52c \u6771\u4eac\n"
    assert printable(text) == text
    assert json.loads(json_text({"a": (text, float("inf"))})) == {"a": [text, None]}
