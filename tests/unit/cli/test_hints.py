"""A word that is nearly right is answered with the one that was meant."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_edits import make_delta
from tiny_models import build_model

from rose_easyedit.cli import main


@pytest.fixture
def request_file(tmp_path: Path) -> Path:
    file = tmp_path / "one.jsonl"
    file.write_text('{"prompt": "Oslo is in", "subject": "Oslo", "target_new": "Peru"}')
    return file


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["edt"], "did you mean edit for edt?"),
        (["edit", "--requets", "x", "--out", "y"], "did you mean --requests for --requets?"),
        (["edit", "--requests", "x", "--ot=y"], "did you mean --out for --ot?"),
        (["ask", "--delta", "x", "--promt", "y"], "did you mean --prompt for --promt?"),
        (["demo", "--al-facts"], "did you mean --all-facts for --al-facts?"),
    ],
)
def test_a_command_and_an_option(
    words: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert hint in capsys.readouterr().err


def test_what_is_only_shortened_or_far_from_all_is_not_guessed_at(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for words in (["edit", "--reque", "x"], ["edit", "--qqqqq", "x"], ["zzzzzz"]):
        with pytest.raises(SystemExit):
            main(words)
    assert "did you mean" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "word", "hint"),
    [
        ("--model", "embeded", "did you mean 'embedded'?"),
        ("--method", "ROME", "rose-experiment method=easyedit/rome"),
        ("--method", "r-rome", "rose-experiment method=easyedit/r_rome"),
        ("--method", "mimet", "did you mean memit?"),
        ("--set", "strength=1", "did you mean alignment.strength?"),
    ],
)
def test_a_model_a_method_and_a_setting(
    request_file: Path,
    tmp_path: Path,
    option: str,
    word: str,
    hint: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = str(tmp_path / "edit.safetensors")
    assert main(["edit", "--requests", str(request_file), "--out", out, option, word]) == 2
    assert hint in capsys.readouterr().err


def test_an_edit_is_shown_in_a_line() -> None:
    shown = repr(make_delta(build_model("llama-tied")))
    assert shown.startswith("EditDelta(facts: 1, subjects: 1, layers: 1, 2, ")
    assert "\n" not in shown and len(shown) < 120
