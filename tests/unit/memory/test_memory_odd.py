"""Memory files as an enemy or a failing disk would leave them, and ones that are only read."""

from __future__ import annotations

import json
import math
import sqlite3
import struct
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tiny_models import FACTS, build_model, settings

from rose_easyedit.errors import RoSEError
from rose_easyedit.memory import FactMemory
from rose_easyedit.memory.entries import StoredTarget, group_digest
from rose_easyedit.memory.file import MemoryFile
from rose_easyedit.memory.store import FactStore
from rose_easyedit.requests import as_requests

pytestmark = pytest.mark.usefixtures("own_cache")
WIDTH = 32
QUICK = settings(hierarchy={"fact_steps": 1, "subject_steps": 1})
DEEP = "[" * 100_000 + "]" * 100_000
GROUP = group_digest(as_requests(FACTS[:1]))


@pytest.fixture
def model() -> Any:
    return build_model("llama-untied")


@pytest.fixture
def path(tmp_path: Path, model: Any, tiny_tokenizer: Any) -> Path:
    """A memory of one fact whose target is ready."""
    file = tmp_path / "facts.db"
    memory = FactMemory.open(file, model, tiny_tokenizer, QUICK)
    memory.add(FACTS[:1])
    assert [entry.state for entry in memory.list()] == ["ready"]
    return file


@contextmanager
def changing(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path)) as file, file:
        yield file


def filed(value: Any, rest: Any = None) -> Callable[[sqlite3.Connection], None]:
    """A target by somebody who knows the format: its checksum is right."""

    def write(file: sqlite3.Connection) -> None:
        kept = {"losses": [0.5], "steps": 3} if rest is None else rest
        target = StoredTarget(value, **kept)
        row = [value, target.rest(), target.digest(GROUP), GROUP]
        file.execute("UPDATE targets SET value = ?, rest = ?, sha256 = ? WHERE digest = ?", row)

    return write


def numbers(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


AGAIN = {
    "another width": filed(numbers(*[0.5] * 7)),
    "nothing": filed(b""),
    "7 bytes": filed(b"1234567"),
    "not a number": filed(numbers(math.nan, *[0.5] * (WIDTH - 1))),
    "infinite": filed(numbers(*[math.inf] * WIDTH)),
    "losses of two": filed(numbers(*[0.5] * WIDTH), {"losses": [0.5, 0.5], "steps": 3}),
    "losses of texts": filed(numbers(*[0.5] * WIDTH), {"losses": ["x"], "steps": 3}),
    "loss that is none": filed(numbers(*[0.5] * WIDTH), {"losses": [math.nan], "steps": 3}),
    "steps of a text": filed(numbers(*[0.5] * WIDTH), {"losses": [0.5], "steps": "3"}),
    "losses no list": filed(numbers(*[0.5] * WIDTH), {"losses": {"a": 1}, "steps": 3}),
    "a value of text": lambda file: file.execute("UPDATE targets SET value = 'text'"),
    "a value of a number": lambda file: file.execute("UPDATE targets SET value = 3"),
    "a rest of bytes": lambda file: file.execute("UPDATE targets SET rest = x'00ff'"),
    "a deep rest": lambda file: file.execute("UPDATE targets SET rest = ?", [DEEP]),
    "a rest of a list": lambda file: file.execute("UPDATE targets SET rest = '[]'"),
    "more in the rest": lambda file: file.execute("UPDATE targets SET rest = '{\"a\": 1}'"),
    "a sum of bytes": lambda file: file.execute("UPDATE targets SET sha256 = x'00'"),
}


@pytest.mark.parametrize("how", AGAIN)
def test_a_target_that_cannot_be_one_is_computed_again(
    how: str, path: Path, model: Any, tiny_tokenizer: Any
) -> None:
    whole = FactStore(path).snapshot().targets[0]
    with changing(path) as file:
        AGAIN[how](file)
    memory = FactMemory.open(path, model, tiny_tokenizer)
    assert memory.delta() is not None
    assert FactStore(path).snapshot().targets[0] == whole


def test_a_target_that_belongs_to_other_facts_is_computed_again(
    path: Path, model: Any, tiny_tokenizer: Any
) -> None:
    memory = FactMemory.open(path, model, tiny_tokenizer)
    memory.add(FACTS[2:])
    whole = FactStore(path).snapshot().targets
    with changing(path) as file:
        one, two = file.execute("SELECT value, rest, sha256, digest FROM targets").fetchall()
        for content, key in ((one, two), (two, one)):
            file.execute(
                "UPDATE targets SET value = ?, rest = ?, sha256 = ? WHERE digest = ?",
                [*content[:3], key[3]],
            )
    assert FactMemory.open(path, model, tiny_tokenizer).delta() is not None
    found = FactStore(path).snapshot().targets
    assert found[0] != whole[1] and found[1] != whole[0]


ENDLESS = (
    "CREATE VIEW facts AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
    "SELECT i AS number, 'a' AS subject, 'a b' AS prompt, 'c' AS target, NULL AS ground_truth, "
    "'' AS since, NULL AS fault FROM n"
)
REFUSED: dict[str, list[tuple[str, list[Any]]]] = {
    "deep settings": [("UPDATE settings SET value = ? WHERE name = 'hparams'", [DEEP])],
    "settings of bytes": [("UPDATE settings SET value = x'7b7d' WHERE name = 'hparams'", [])],
    "a dtype of bytes": [("UPDATE settings SET value = x'00' WHERE name = 'dtype'", [])],
    "another dtype": [("UPDATE settings SET value = 'int3' WHERE name = 'dtype'", [])],
    "a fact of bytes": [("UPDATE facts SET target = x'00ff'", [])],
    "a fact of no text": [("UPDATE facts SET target = CAST(x'ff' AS TEXT)", [])],
    "a truth of bytes": [("UPDATE facts SET ground_truth = x'00'", [])],
    "a fault of a number": [("UPDATE facts SET fault = x'00'", [])],
    "an empty target": [("UPDATE facts SET target = ''", [])],
    "no facts": [("DROP TABLE facts", [])],
    "an endless view": [("DROP TABLE facts", []), (ENDLESS, [])],
    "a trigger": [("CREATE TRIGGER t AFTER INSERT ON facts BEGIN DELETE FROM facts; END", [])],
    "a computed column": [
        ("ALTER TABLE facts ADD COLUMN more AS (zeroblob(1000000000))", []),
    ],
    "an endless text": [("UPDATE facts SET target = zeroblob(200000000)", [])],
}


@pytest.mark.parametrize("how", REFUSED)
def test_what_is_no_memory_any_more_is_refused(how: str, path: Path) -> None:
    with changing(path) as file:
        for statement, values in REFUSED[how]:
            file.execute(statement, values)
    with pytest.raises(RoSEError, match="damaged") as caught:
        store = FactStore(path)
        store.entries()
    assert len(str(caught.value)) < 2_000


def test_a_history_of_bytes_is_damaged(path: Path) -> None:
    with changing(path) as file:
        file.execute("UPDATE history SET action = x'00'")
    with pytest.raises(RoSEError, match="damaged"):
        FactStore(path).history()


def test_reading_writes_nothing(
    path: Path, model: Any, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: Any) -> Any:
        raise OSError("attempt to write a readonly database")

    monkeypatch.setattr(MemoryFile, "writing", refuse)
    before, made = path.read_bytes(), sorted(tmp_path.iterdir())
    for hparams in (None, QUICK):
        memory = FactMemory.open(path, model, tiny_tokenizer, hparams)
        assert memory.list() and memory.history()
        assert memory.ask(FACTS[0]["prompt"], max_new_tokens=2) is not None
    assert path.read_bytes() == before and sorted(tmp_path.iterdir()) == made
    memory.save(tmp_path / "edit")
    assert json.loads(json.dumps(FactStore(path).settings)) == memory.hparams.as_dict()
