"""The file of a memory: a kill loses nothing, two processes may write, other files are refused."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from places import HELPERS

from rose_easyedit.config.hparams import RoSEHyperParams
from rose_easyedit.errors import RoSEError
from rose_easyedit.memory.entries import StoredTarget
from rose_easyedit.memory.file import MemoryFile
from rose_easyedit.memory.store import FactStore
from rose_easyedit.requests import EditRequest

WORKER = HELPERS / "memory_worker.py"
SETTINGS = RoSEHyperParams(layers=[1]).as_dict()
TARGET = StoredTarget(bytes(range(8)), [0.5], 3)
OF_TWO = StoredTarget(bytes(range(8)), [0.5, 0.25], 3)


def fact(subject: str, prompt: str, target: str = "x") -> EditRequest:
    return EditRequest(f"{subject} {prompt}", subject, target)


def run(*words: Any) -> str:
    command = [sys.executable, str(WORKER), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "facts.db"


@pytest.mark.parametrize("rounds", [40, pytest.param(2000, marks=pytest.mark.slow)])
def test_no_fact_is_lost_to_a_kill_at_any_moment(rounds: int, tmp_path: Path) -> None:
    report = json.loads(run("kill", tmp_path, rounds))
    assert report["kills"] == rounds
    assert report["steps"] > rounds / 2  # lives are of 0 to 2 steps, and one that is cut off
    assert report["facts"] > 0


def test_two_processes_lose_nothing_of_each_other(path: Path) -> None:
    run("race", path)
    store = FactStore(path)
    facts = [entry.request for entry in store.entries()]
    assert sorted(fact.subject for fact in facts) == ["both"] * 16 + ["one"] * 8 + ["two"] * 8
    assert len(store.history()) == 32
    assert store.snapshot().missing == []


def test_facts_come_back_in_order_with_what_has_happened(path: Path) -> None:
    store = FactStore(path, SETTINGS)
    store.put([fact("a", "is"), fact("b", "is", "y")])
    store.put([fact("a", "is", "z"), fact("b", "is", "y")])
    store.remove("b")
    store.put([fact("c", "is")])
    again = FactStore(path)
    assert again.settings == SETTINGS
    assert [entry.request for entry in again.entries()] == [fact("a", "is", "z"), fact("c", "is")]
    told = [(c.action, c.subject, c.old, c.new) for c in again.history()]
    assert told == [
        ("add", "a", None, "x"),
        ("add", "b", None, "y"),
        ("update", "a", "x", "z"),
        ("forget", "b", "y", None),
        ("add", "c", None, "x"),
    ]
    assert [entry.since for entry in again.entries()] == [again.history()[i].time for i in (2, 4)]


def test_a_target_is_kept_as_long_as_its_facts_are_the_same(path: Path) -> None:
    store = FactStore(path, SETTINGS)
    one, two, other = fact("a", "is"), fact("a", "has"), fact("b", "is")
    store.put([one, two, other])
    assert store.snapshot().missing == [[one, two], [other]]
    store.keep([([one, two], OF_TWO), ([other], TARGET), ([one], TARGET)])
    assert store.snapshot().targets == {0: OF_TWO, 1: TARGET}
    assert [entry.state for entry in store.entries()] == ["ready"] * 3
    store.put([fact("a", "has", "y")])
    assert store.snapshot().missing == [[one, fact("a", "has", "y")]]
    store.put([two])  # the old target is gone, not only out of sight
    assert [entry.state for entry in store.entries()] == ["waiting", "waiting", "ready"]
    store.remove("b")
    store.put([other])
    assert store.snapshot().targets == {}


def test_each_fact_has_its_own_target_where_they_are_independent(path: Path) -> None:
    hparams = RoSEHyperParams(layers=[1]).with_overrides(hierarchy={"integration": "independent"})
    store = FactStore(path, hparams.as_dict())
    one, two = fact("a", "is"), fact("a", "has")
    store.put([one])
    store.keep([([one], TARGET)])
    store.put([two])
    assert store.snapshot().missing == [[two]]


def test_a_target_of_facts_that_have_changed_meanwhile_is_not_filed(path: Path) -> None:
    store = FactStore(path, SETTINGS)
    store.put([fact("a", "is", "new")])
    store.keep([([fact("a", "is", "old")], TARGET)])
    assert store.snapshot().targets == {}


def test_a_refused_fact_leaves_the_others_alone_until_it_is_put_again(path: Path) -> None:
    store = FactStore(path, SETTINGS)
    one, two = fact("a", "is"), fact("a", "has")
    store.put([one, two])
    store.refuse(two, "too long")
    assert store.snapshot().groups == [[one]]
    assert [(e.state, e.fault) for e in store.entries()] == [
        ("waiting", None),
        ("refused", "too long"),
    ]
    store.put([two])
    assert store.snapshot().groups == [[one, two]]
    store.refuse(fact("a", "has", "another"), "of a fact that is no more")
    assert store.snapshot().groups == [[one, two]]


def test_unknown_facts_are_not_updated_nor_forgotten(path: Path) -> None:
    store = FactStore(path, SETTINGS)
    store.put([fact("a", "is")])
    with pytest.raises(RoSEError, match="no such fact to update.*\n.*'a': 'a has'"):
        store.put([fact("a", "is", "y"), fact("a", "has")], only_known=True)
    with pytest.raises(RoSEError, match=r"no fact about 'b'\.$"):
        store.remove("b")
    with pytest.raises(RoSEError, match="with the prompt 'a has'; of it there is 'a is'"):
        store.remove("a", "a has")
    assert [entry.request for entry in store.entries()] == [fact("a", "is")]
    assert len(store.history()) == 1


def test_a_damaged_target_is_computed_again(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = FactStore(path, SETTINGS)
    one, two = fact("a", "is"), fact("b", "is")
    store.put([one, two])
    store.keep([([one], TARGET), ([two], TARGET)])
    with sqlite3.connect(path) as file:
        file.execute("UPDATE targets SET value = x'00' WHERE subject = 'a'")
        file.execute("UPDATE targets SET rest = '{' WHERE subject = 'b'")
    file.close()
    assert store.snapshot().missing == [[one], [two]]
    assert "is damaged; it is computed again" in caplog.text


def test_the_base_is_that_of_the_first_model(path: Path) -> None:
    store = FactStore(path, SETTINGS)
    assert store.bind("first") == "first"
    assert FactStore(path).bind("second") == "first"


def test_what_is_no_memory_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(RoSEError, match="no memory .*; add a fact to begin one"):
        FactStore(tmp_path / "none.db")
    assert list(tmp_path.iterdir()) == []
    text, other, newer = (tmp_path / name for name in ("text.db", "other.db", "newer.db"))
    text.write_bytes(b"no database, but long enough to look like one" * 30)
    with sqlite3.connect(other) as file:
        file.execute("CREATE TABLE mine (x)")
    file.close()
    FactStore(newer, SETTINGS)
    with sqlite3.connect(newer) as file:
        file.execute("PRAGMA user_version = 2")
    file.close()
    for file_, part in (
        (text, "damaged or no memory"),
        (other, "no memory of this package"),
        (newer, "has the form 2"),
    ):
        before = file_.read_bytes()
        for settings in (None, SETTINGS):
            with pytest.raises(RoSEError, match=part):
                FactStore(file_, settings)
        assert file_.read_bytes() == before


def test_a_file_that_cannot_be_written_is_the_machines_fault(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="cannot be used now"):
        FactStore("/proc/facts.db", SETTINGS)
    with pytest.raises(RoSEError, match="is a folder, and no memory; name a file"):
        FactStore(tmp_path, SETTINGS)


def test_an_empty_file_that_a_kill_left_is_begun_anew(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    assert FactStore(path, SETTINGS).entries() == []


def test_a_file_is_begun_once_it_has_something_in_it(path: Path) -> None:
    assert not MemoryFile(path).is_begun
    path.parent.mkdir()
    path.touch()
    assert not MemoryFile(path).is_begun
    with pytest.raises(RoSEError, match="no memory of this package"):
        FactStore(path)  # which begins none
    FactStore(path, SETTINGS)
    assert MemoryFile(path).is_begun
    path.write_bytes(b"no database, but long enough to look like one" * 30)
    assert MemoryFile(path).is_begun


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM settings",
        "UPDATE settings SET value = '{'",
        "UPDATE settings SET value = '[]'",
        """UPDATE settings SET value = '{"hierarchy": 3}'""",
        """UPDATE settings SET value = '{"colour": 3}'""",
        "DROP TABLE settings",
    ],
)
def test_a_memory_without_its_settings_is_damaged(statement: str, path: Path) -> None:
    FactStore(path, SETTINGS)
    with sqlite3.connect(path) as file:
        file.execute(statement)
    file.close()
    with pytest.raises(RoSEError, match="is damaged or no memory"):
        FactStore(path)
