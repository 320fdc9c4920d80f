"""The cache has no more than its limit; what was used least recently goes, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from rose_easyedit.cache.entries import Cache, CacheEntry, key_of
from rose_easyedit.cache.limit import PARTS, VARIABLE, Limit
from rose_easyedit.errors import RoSEError

KEYS = [key_of(number) for number in range(6)]
ENTRY = CacheEntry({"a": torch.zeros(1_000)})
SIZE = 4_400  # of a file, a little more than that


@pytest.fixture
def root(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache, which has room for three entries."""
    limit_to(3.5, monkeypatch)
    return own_cache


def limit_to(entries: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(entries * SIZE / 1e9))


def left(root: Path) -> list[int]:
    """The numbers of the entries that are there."""
    names = {path.stem for path in root.rglob("*.safetensors")}
    return [number for number, key in enumerate(KEYS) if key in names]


def keep(folder: Path, number: int) -> None:
    """Writes an entry, which was used later than those of lower numbers."""
    Cache(folder).write(KEYS[number], ENTRY)
    path = folder / f"{KEYS[number]}.safetensors"
    if path.exists():
        assert 4_200 < path.stat().st_size < SIZE
        os.utime(path, (number + 1, number + 1))


def is_there(folder: Path, number: int) -> bool:
    return Cache(folder).read(KEYS[number], lambda _: True) is True


def test_the_least_recently_used_make_room_in_whatever_part_they_are(root: Path) -> None:
    for number, name in enumerate(["shifts", "statistics", "evaluation"]):
        keep(root / name, number)
    assert left(root) == [0, 1, 2]
    assert is_there(root / "shifts", 0)  # which is now the last that was used
    keep(root / "layers", 3)
    assert left(root) == [0, 2, 3]
    assert Limit.of_cache().used() == sum(p.stat().st_size for p in root.rglob("*.safetensors"))


def test_an_entry_takes_the_room_of_the_one_that_it_replaces(root: Path) -> None:
    for number in (0, 1, 2, 0, 0):
        keep(root / "shifts", number)
    assert left(root) == [0, 1, 2]


def test_entries_of_one_moment_go_by_name(root: Path) -> None:
    names = sorted(range(3), key=KEYS.__getitem__)
    for number in range(3):
        keep(root / "shifts", number)
        os.utime(root / "shifts" / f"{KEYS[number]}.safetensors", (1, 1))
    keep(root / "shifts", 3)
    assert left(root) == sorted([*names[1:], 3])


def test_a_lower_limit_holds_from_the_next_entry_on(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        keep(root / "shifts", number)
    limit_to(1.5, monkeypatch)
    keep(root / "shifts", 3)
    assert left(root) == [3]


def test_what_is_larger_than_the_limit_is_not_kept(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    keep(root / "shifts", 0)
    monkeypatch.setenv(VARIABLE, "0")
    keep(root / "shifts", 1)
    assert left(root) == [] and not caplog.text


def test_without_a_limit_nothing_goes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "inf")
    for number in range(6):
        keep(root / "shifts", number)
    assert left(root) == list(range(6))
    monkeypatch.delenv(VARIABLE)
    assert Limit.of_cache().most == 20e9


def test_only_entries_go_and_what_a_killed_process_has_left_of_one(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    others = [
        root / "shifts" / "notes.safetensors",
        root / "shifts" / KEYS[5],
        root / "shifts" / "deeper" / f"{KEYS[5]}.safetensors",
        root / "models" / "a" / f"{KEYS[5]}.safetensors",
        root / "own" / f"{KEYS[5]}.safetensors",
    ]
    part = root / "shifts" / f".begun-{KEYS[0]}.safetensors-0123abcd.part"
    outside = tmp_path / "outside"
    for path in [*others, part, outside]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(9_000))
        os.utime(path, (0, 0))
    link = root / "shifts" / f"{KEYS[1]}.safetensors"
    link.symlink_to(outside)
    assert Limit.of_cache().used() == 9_000
    limit_to(2.5, monkeypatch)
    keep(root / "shifts", 2)
    assert not part.exists() and all(path.exists() for path in [*others, outside, link])
    assert is_there(root / "shifts", 2)


def test_an_entry_that_cannot_be_removed_is_in_nobodys_way(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        keep(root / "shifts", number)
    unlink = Path.unlink

    def refused(path: Path, missing_ok: bool = False) -> None:
        if KEYS[0] in path.name:
            raise PermissionError
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refused)
    keep(root / "shifts", 3)
    assert left(root) == [0, 2, 3]


def test_a_folder_of_ones_own_has_no_limit(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (tmp_path / "shifts", root / "own"):
        for number in range(5):
            keep(folder, number)
        assert left(folder) == list(range(5))
    assert all(Limit.of(root / name) is not None for name in PARTS)


def test_a_folder_of_ones_own_needs_no_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> Path:
        raise RoSEError("no home")

    monkeypatch.setattr("rose_easyedit.cache.limit.cache_dir", fail)
    keep(tmp_path / "shifts", 0)
    assert is_there(tmp_path / "shifts", 0)


def work(folder: Path, seed: int) -> bool:
    """Reads and writes entries in an order of its own; whether each was right or missing."""
    cache, right = Cache(folder), True
    for turn in range(30):
        number = (turn * (2 * seed + 1) + seed) % len(KEYS)
        found = cache.read(KEYS[number], lambda entry: entry.record)
        right = right and found in (None, number)
        if found is None:
            cache.write(KEYS[number], CacheEntry({"a": torch.zeros(1_000)}, number))
    return right


def test_several_processes_use_one_cache(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    children = []
    for seed in range(3):
        child = os.fork()
        if child == 0:
            os._exit(0 if work(root / "shifts", seed) and not caplog.text else 1)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    # each may have made room before the others wrote
    assert 1 <= len(left(root)) <= 5
    assert all(path.suffix == ".safetensors" for path in (root / "shifts").iterdir())


def test_what_another_process_is_writing_stays(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = root / "shifts" / f".{KEYS[0]}.safetensors-0123abcd.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(9_000))
    limit_to(2.5, monkeypatch)
    keep(root / "shifts", 2)
    assert part.exists() and is_there(root / "shifts", 2)


@pytest.mark.parametrize("value", ["much", "-1", "nan", "20 GB"])
def test_a_limit_that_is_no_number_is_refused_before_anything_is_computed(
    value: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(RoSEError, match=f"{VARIABLE} is '{value}'.*such as 20: 0 keeps nothing"):
        Cache(root / "shifts")
