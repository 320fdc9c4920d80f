"""What the cache holds is shown, and removed part by part; nothing outside it is touched."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from rose_easyedit.cache.entries import Cache, CacheEntry, key_of
from rose_easyedit.cli import main


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ROSE_EASYEDIT_CACHE", str(tmp_path / "cache"))
    for name, size in (("models/smol/weights", 3000), ("shifts/one", 5000), ("own/notes", 5)):
        file = tmp_path / "cache" / name
        file.parent.mkdir(parents=True)
        file.write_bytes(bytes(size))
    return tmp_path / "cache"


def test_its_parts_and_sizes_are_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(folder)
    (models,) = [line for line in lines if line.split()[0] == "models"]
    assert "3.0 kB" in models and "GGUF" in models
    assert main(["cache", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["parts"]["models"] == 3000 and report["cleared"] == []
    assert report["parts"]["shifts"] == 5000 and report["entries"] == 0
    assert (folder / "models/smol/weights").exists()


def test_a_part_is_cleared_and_the_others_stay(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cache", "--clear", "shifts"]) == 0
    assert "cleared shifts: 5.0 kB" in capsys.readouterr().out
    assert not (folder / "shifts").exists() and (folder / "models").exists()


def test_all_of_it_is_cleared_but_what_is_not_the_packages(folder: Path) -> None:
    assert main(["cache", "--clear"]) == 0
    assert [path.name for path in folder.iterdir()] == ["own"]
    assert main(["cache", "--clear"]) == 0


def test_a_link_in_place_of_a_part_is_removed_alone(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").touch()
    (folder / "statistics").symlink_to(elsewhere)
    assert main(["cache", "--clear", "statistics"]) == 0
    assert not (folder / "statistics").exists() and (elsewhere / "kept").exists()


def test_a_part_that_there_is_not_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cache", "--clear", "shifts", "modles"]) == 2
    assert "modles: the cache has no such part; it has models" in capsys.readouterr().err
    assert (folder / "shifts/one").exists()


def test_how_much_entries_have_and_may_have_is_shown(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Cache(folder / "shifts").write(key_of(1), CacheEntry({"a": torch.zeros(1_000)}))
    for limit, said in (("", "20.0 GB"), ("0.5", "500.0 MB"), ("inf", "without a limit")):
        monkeypatch.setenv("ROSE_EASYEDIT_CACHE_LIMIT", limit)
        assert main(["cache"]) == 0
        (line,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("entries")]
        assert "4.3 kB" in line and said in line and "ROSE_EASYEDIT_CACHE_LIMIT" in line
    assert main(["cache", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["limit"] is None


def test_a_limit_that_is_no_number_is_told_before_anything_is_removed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ROSE_EASYEDIT_CACHE_LIMIT", "much")
    assert main(["cache", "--clear"]) == 2
    assert "ROSE_EASYEDIT_CACHE_LIMIT is 'much'" in capsys.readouterr().err
    assert (folder / "shifts/one").exists()


def test_what_another_process_removes_meanwhile_is_cleared_as_well(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "shifts/two").touch()
    unlink = os.unlink
    removed = []

    def one_of_two(path: str, **place: int) -> None:
        unlink(path, **place)
        removed.append(path)
        if len(removed) == 1:
            raise FileNotFoundError

    monkeypatch.setattr(os, "unlink", one_of_two)
    assert main(["cache", "--clear", "shifts"]) == 0
    assert not (folder / "shifts").exists() and len(removed) == 2
