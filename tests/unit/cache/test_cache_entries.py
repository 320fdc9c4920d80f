"""Entries are read as they were written, for their own key alone; what is damaged is None."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from rose_easyedit.cache.entries import Cache, CacheEntry, key_of

KEY, OTHER = key_of(["a"]), key_of(["b"])
ENTRY = CacheEntry(
    {"a": torch.arange(6.0).reshape(3, 2), "b": torch.arange(3)}, {"é": [1, None, 0.1]}
)


def path_of(folder: Path, key: str = KEY) -> Path:
    return folder / f"{key}.safetensors"


def as_it_is(entry: CacheEntry) -> CacheEntry:
    return entry


def is_same(entry: CacheEntry | None, wanted: CacheEntry = ENTRY) -> bool:
    return (
        entry is not None
        and entry.record == wanted.record
        and entry.tensors.keys() == wanted.tensors.keys()
        and all(torch.equal(entry.tensors[name], each) for name, each in wanted.tensors.items())
    )


def test_an_entry_is_read_as_it_was_written_and_written_as_the_same_bytes(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "new" / "folder")
    assert cache.read(KEY, as_it_is) is None
    cache.write(KEY, ENTRY)
    assert is_same(cache.read(KEY, as_it_is))
    (path,) = cache.folder.iterdir()
    whole = path.read_bytes()
    cache.write(KEY, ENTRY)
    assert path.read_bytes() == whole
    cache.drop(KEY)
    cache.drop(KEY)
    assert cache.read(KEY, as_it_is) is None and not path.exists()


@pytest.mark.parametrize("record", [None, [], "", {"2": 1, "10": [float("inf")]}, "\ud800 日本"])
def test_whatever_json_can_hold_is_a_record(record: Any, tmp_path: Path) -> None:
    Cache(tmp_path).write(KEY, CacheEntry({}, record))
    found = Cache(tmp_path).read(KEY, as_it_is)
    assert found is not None and found.record == record and found.tensors == {}


def test_records_are_told_apart_as_they_will_be_read(tmp_path: Path) -> None:
    Cache(tmp_path).write(KEY, CacheEntry({}, {10: (1, 2), 2: 0}))
    found = Cache(tmp_path).read(KEY, as_it_is)
    assert found is not None and found.record == {"10": [1, 2], "2": 0}


def replaced(old: bytes, new: bytes) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        content = path.read_bytes()
        assert old in content
        path.write_bytes(content.replace(old, new, 1))

    return change


def flipped(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


DAMAGES: dict[str, Callable[[Path], None]] = {
    "empty": lambda path: path.write_bytes(b"") and None,
    "text": lambda path: path.write_text("no tensors at all") and None,
    "cut short": lambda path: os.truncate(path, path.stat().st_size - 5),
    "a number": flipped,
    "a record": replaced(b"null", b"true"),
    "a name": replaced(b'"a":', b'"c":'),
    "a type": replaced(b'"I64"', b'"F64"'),
    "without a header": lambda path: save_file({"a": torch.ones(2)}, path),
    "another header": replaced(b'{\\"key', b'[\\"key'),
    "digests of nothing": replaced(b'\\"sha256\\": [', b'\\"sha257\\": ['),
}


# the last number is in no first row
@pytest.mark.parametrize(
    ("damage", "rows"),
    [(name, rows) for name in DAMAGES for rows in (None, 2) if (name, rows) != ("a number", 2)],
)
def test_what_is_damaged_is_none_and_told_of(
    damage: str, rows: int | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = Cache(tmp_path)
    cache.write(KEY, ENTRY, rows=2)
    path = path_of(tmp_path)
    whole = path.read_bytes()
    DAMAGES[damage](path)
    assert cache.read(KEY, as_it_is, rows=rows) is None
    assert f"{path} is damaged (" in caplog.text and "it is computed again" in caplog.text
    cache.write(KEY, ENTRY, rows=2)
    assert path.read_bytes() == whole


def test_what_makes_nothing_of_an_entry_says_that_it_is_damaged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = Cache(tmp_path)
    cache.write(KEY, ENTRY)
    assert cache.read(KEY, lambda entry: entry.tensors["none"]) is None
    assert "is damaged" in caplog.text
    assert is_same(cache.read(KEY, as_it_is))


def test_no_entry_stands_for_another_key(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = Cache(tmp_path)
    cache.write(KEY, ENTRY)
    content = path_of(tmp_path).read_bytes()
    path_of(tmp_path, OTHER).write_bytes(content)
    assert cache.read(OTHER, as_it_is) is None and not caplog.text
    forged = content.replace(KEY.encode(), OTHER.encode())
    path_of(tmp_path, OTHER).write_bytes(forged)
    assert cache.read(OTHER, as_it_is) is None and "its content has changed" in caplog.text


def test_a_name_has_one_entry_whatever_its_key(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = Cache(tmp_path)
    cache.write(KEY, ENTRY, name="one")
    assert is_same(cache.read(KEY, as_it_is, name="one"))
    assert cache.read(OTHER, as_it_is, name="one") is None
    cache.write(OTHER, CacheEntry({}, 2), name="one")
    assert cache.read(KEY, as_it_is, name="one") is None
    assert [path.name for path in tmp_path.iterdir()] == ["one.safetensors"] and not caplog.text


def test_first_rows_are_read_and_checked_without_the_others(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.write(KEY, ENTRY, rows=2)
    first = CacheEntry({name: each[:2] for name, each in ENTRY.tensors.items()}, ENTRY.record)
    assert is_same(cache.read(KEY, as_it_is, rows=2), first)
    assert is_same(cache.read(KEY, as_it_is))
    flipped(path_of(tmp_path))  # in the last row
    assert is_same(cache.read(KEY, as_it_is, rows=2), first)
    assert cache.read(KEY, as_it_is) is None


def test_first_rows_of_another_number_are_no_whole_entry(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.write(KEY, ENTRY)
    assert cache.read(KEY, as_it_is, rows=2) is None
    cache.write(KEY, ENTRY, rows=2)
    assert cache.read(KEY, as_it_is, rows=1) is None


@pytest.mark.parametrize("rows", [None, 2])
def test_an_entry_is_on_the_cpu_whatever_the_default_device(
    rows: int | None, tmp_path: Path
) -> None:
    with torch.device("meta"):
        Cache(tmp_path).write(KEY, ENTRY, rows=2)
        found = Cache(tmp_path).read(KEY, as_it_is, rows=rows)
    assert found is not None
    assert {each.device.type for each in found.tensors.values()} == {"cpu"}


def test_an_entry_that_vanishes_while_it_is_read_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache = Cache(tmp_path)
    is_file = Path.is_file

    def as_another_removes_it(path: Path) -> bool:
        there = is_file(path)
        path.unlink()
        return there

    for rows in (None, 2):
        cache.write(KEY, ENTRY, rows=2)
        with monkeypatch.context() as patched:
            patched.setattr(Path, "is_file", as_another_removes_it)
            assert cache.read(KEY, as_it_is, rows=rows) is None
    assert not caplog.text


@pytest.mark.parametrize("kind", ["folder", "pipe", "huge", "forbidden"])
def test_what_is_no_readable_file_is_none(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = path_of(tmp_path)
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "huge":
        path.touch()
        os.truncate(path, 80 << 30)
    else:

        def fail(_path: Path) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(Path, "is_file", fail)
    assert Cache(tmp_path).read(KEY, as_it_is) is None


def test_what_cannot_be_written_is_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    Cache(tmp_path / "file").write(KEY, ENTRY)
    assert "not kept for the next time" in caplog.text and "cannot be written" in caplog.text
    assert Cache(tmp_path / "file").read(KEY, as_it_is) is None


def test_a_key_is_of_all_its_parts_in_whatever_order() -> None:
    assert key_of({"a": 1, "b": [2]}) == key_of({"b": [2], "a": 1})
    assert len({key_of(parts) for parts in ("a", ["a"], {"a": "a"}, None, 1)}) == 5
