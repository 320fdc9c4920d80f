"""Outputs: only a regular file is replaced, and none that the command reads."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sweeps import write_sweep

from rose_easyedit.cli import main
from rose_easyedit.config.hparams import RoSEHyperParams
from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.edits.factors import Factors
from rose_easyedit.errors import RoSEError
from rose_easyedit.experiment.report import main as report_main
from rose_easyedit.files.writing import write_whole
from rose_easyedit.memory import FactMemory
from rose_easyedit.memory.store import FactStore
from rose_easyedit.requests import EditRequest


def an_edit(path: Path) -> Path:
    layers = {"a.weight": Factors(torch.ones(4, 1), torch.ones(1, 6))}
    return EditDelta(layers, "0" * 64, {"requests": []}).save(path)


def link(path: Path) -> None:
    (path.parent / "kept").write_text("kept")
    path.symlink_to(path.parent / "kept")


def device(path: Path) -> None:
    """A node of its own: a test that fails must not harm the machine's."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("making a device needs root")


ODD: dict[str, Callable[[Path], None]] = {
    "link": link,
    "link to nothing": lambda path: path.symlink_to(path.parent / "none"),
    "pipe": os.mkfifo,
    "device": device,
    "folder": Path.mkdir,
}


def state(folder: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.lstat().st_mode, path.lstat().st_ino) for path in folder.iterdir()}


@pytest.mark.parametrize("kind", ODD)
def test_only_a_regular_file_is_replaced(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = an_edit(tmp_path / "one"), an_edit(tmp_path / "two")
    sweep = write_sweep(tmp_path / "sweep")
    out = tmp_path / "out"
    ODD[kind](out)
    before = state(tmp_path)
    combine = ["combine", str(one), str(two), "--force", "--out", str(out)]
    assert main(combine) == 2
    assert report_main([str(sweep), "--out", str(out)]) == 2
    assert kind.split()[0] in capsys.readouterr().err
    with pytest.raises(OSError):
        write_whole(out, b"new")
    assert state(tmp_path) == before


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
def test_the_mode_of_what_is_replaced_stays(mode: int, tmp_path: Path) -> None:
    out = an_edit(tmp_path / "out")
    out.chmod(mode)
    an_edit(out)
    assert stat.S_IMODE(out.stat().st_mode) == mode


def test_no_file_that_a_command_reads_is_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = an_edit(tmp_path / "one"), an_edit(tmp_path / "two")
    facts, memory = tmp_path / "facts.json", tmp_path / "facts.db"
    facts.write_text(json.dumps([{"prompt": "a b", "subject": "a", "target_new": "c"}]))
    FactStore(memory, RoSEHyperParams(layers=[1]).as_dict()).put([EditRequest("a b", "a", "c")])
    sweep = write_sweep(tmp_path / "sweep")
    os.link(one, tmp_path / "again")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for words in (
        ["combine", str(one), str(two), "--force", "--out", str(tmp_path / "again")],
        ["edit", "--requests", str(facts), "--force", "--out", str(facts)],
        ["memory", "export", "--memory", str(memory), "--force", "--out", str(memory)],
    ):
        assert main(words) == 2
        assert "reads" in capsys.readouterr().err
    assert report_main([str(sweep), "--out", str(sweep / "summary.json")]) == 2
    with pytest.raises(RoSEError, match="the memory itself"):
        FactMemory.open(memory).save(memory)
    assert {path: path.read_bytes() for path in before} == before


def test_a_page_takes_the_place_of_an_earlier_one(tmp_path: Path, capsys: Any) -> None:
    sweep = write_sweep(tmp_path / "sweep")
    for _ in range(2):
        assert report_main([str(sweep)]) == 0
    assert capsys.readouterr().err == ""
