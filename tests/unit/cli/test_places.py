"""A place that cannot be written ends every command with 1, by name, before any work is done."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from sweeps import write_sweep

from rose_easyedit.cli import main
from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.edits.factors import Factors
from rose_easyedit.experiment.report import main as rose_report

FACT = {"prompt": "Oslo is in", "subject": "Oslo", "target_new": "Peru"}
# What each command is told; {} is where it shall write, the edit and the facts are there.
COMMANDS = {
    "edit": "edit --requests facts.json --model tiny-random --out {}/edit",
    "combine": "combine edit edit --out {}/edit",
    "apply": "apply --delta edit --out {}/model",
    "export, PEFT": "export --delta edit --lora {}/adapter",
    "export, llama.cpp": "export --delta edit --gguf {}/adapter.gguf",
    "diagnose": "diagnose --requests facts.json --model tiny-random --out {}/diagnosis",
    "locate": "locate --requests facts.json --model tiny-random --out {}/located.json",
    "evaluate": "evaluate --delta edit --report {}/report",
    "demo": "demo --out {}/demo.html",
    "memory add": "memory add --memory {}/m.db --model tiny-random --requests facts.json",
    "memory export": "memory export --memory m.db --out {}/edit",
    "report": "report sweep --out {}/report.html",
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "facts.json").write_text(json.dumps([FACT]))
    layers = {"a.weight": Factors(torch.ones(4, 1), torch.ones(1, 6))}
    EditDelta(layers, "0" * 64, {"requests": [FACT]}).save(tmp_path / "edit")
    return tmp_path


def below_a_file(folder: Path) -> str:
    return str(folder / "facts.json")


def of_the_system(_: Path) -> str:
    """A folder in which nobody can make a file, root neither."""
    return "/proc"


@pytest.mark.parametrize("place", [below_a_file, of_the_system])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_place_that_cannot_be_written(
    command: str,
    place: Callable[[Path], str],
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = COMMANDS[command].format(place(folder)).split()
    if command == "report":
        write_sweep(folder / "sweep")
    before = sorted(folder.rglob("*"))
    code = rose_report(words[1:]) if command == "report" else main(words)
    told = capsys.readouterr().err
    assert code == 1, told
    assert "Traceback" not in told and place(folder) in told
    assert any(advice in told for advice in ("name another", "name a folder that may be written"))
    assert sorted(folder.rglob("*")) == before
