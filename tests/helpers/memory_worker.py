"""Processes that write to a memory without mercy: `kill` them at random, or let two `race`.

    python memory_worker.py kill FOLDER ROUNDS
    python memory_worker.py race FILE

The optimiser is a stub that takes a moment, so that kills and races fall into every phase.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

from rose_easyedit.config.hparams import RoSEHyperParams
from rose_easyedit.memory import FactMemory
from rose_easyedit.memory.entries import StoredTarget
from rose_easyedit.memory.finding import Finder

STEPS_OF_A_LIFE = 2  # at the most, before the one that is cut off
SECONDS_FOR_A_STEP = 60.0  # after which a child that does nothing is a failure
Facts = dict[tuple[str, str], str]


class StubMemory(FactMemory):
    """A memory without a model; it is locked itself in its place."""

    def base(self) -> tuple[Any, Any]:
        return self, None

    def _checked_base(self) -> tuple[None, None]:
        return None, None


def optimise(_finder: Finder, groups: Any) -> list[StoredTarget]:
    time.sleep(0.002)
    return [StoredTarget(bytes(4096), [0.0] * len(group), 1) for group in groups]


def begin(path: Path) -> FactMemory:
    return StubMemory.open(path, hparams=RoSEHyperParams(layers=[1]))


def fact(subject: str, number: int, target: str) -> dict[str, str]:
    return {"subject": subject, "prompt": f"{subject} has {number}", "target_new": target}


def live(path: Path, log: Path, life: int, memory: FactMemory | None) -> None:
    """Adds, updates and forgets until killed; says before each what it will do, and after, done."""
    memory = memory or begin(path)
    with log.open("ab", buffering=0) as out:
        for step in itertools.count():
            subject = f"subject {step % 4}"
            one = fact(subject, life, f"target {step}")
            act = "forget" if step % 7 == 6 else "add"
            out.write(f"{json.dumps([act, one])}\n".encode())
            if act == "forget":
                about = [entry.request.prompt for entry in memory.list(subject)]
                if about:
                    memory.forget(subject)
            else:
                memory.add(one)
            out.write(b"done\n")


def after(facts: Facts, act: str, one: dict[str, str]) -> Facts:
    """The facts after one step."""
    if act == "forget":
        return {place: t for place, t in facts.items() if place[0] != one["subject"]}
    return {**facts, (one["subject"], one["prompt"]): one["target_new"]}


def check(memory: FactMemory, path: Path, expected: Facts, log: Path) -> Facts:
    """What is there after a kill: all that was done, and the last step whole or not at all."""
    steps = log.read_text().splitlines() if log.exists() else []
    pending = None
    for line in steps:
        if line == "done":
            expected, pending = after(expected, *pending), None
        else:
            pending = json.loads(line)
    allowed = [expected] if pending is None else [expected, after(expected, *pending)]
    found = {(e.request.subject, e.request.prompt): e.request.target_new for e in memory.list()}
    assert found in allowed, (found, allowed)
    told: Facts = {}
    for change in memory.history():
        place = (change.subject, change.prompt)
        assert told.get(place) == change.old, change
        told.pop(place, None)
        if change.new is not None:
            told[place] = change.new
    assert told == found
    with sqlite3.connect(path) as file:
        assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    file.close()
    return found


def steps_done(log: Path) -> int:
    return log.read_text().splitlines().count("done") if log.exists() else 0


def wait_for_steps(log: Path, n_steps: int) -> None:
    """By the child's own progress: by a clock, a slow machine would kill it before it began."""
    deadline = time.monotonic() + n_steps * SECONDS_FOR_A_STEP
    while steps_done(log) < n_steps:
        assert time.monotonic() < deadline, f"{log.name}: {n_steps} steps have not come"
        time.sleep(0.001)


def kill(folder: Path, rounds: int) -> None:
    chance = random.Random(0)
    memory: FactMemory | None = begin(folder / "first.db")  # imports what a child would, first
    start = time.perf_counter()
    memory.add(fact("a", 0, "b"))
    seconds_of_a_step = time.perf_counter() - start
    n_steps = n_facts = 0
    expected: Facts = {}
    for life in range(rounds):
        path, log = folder / f"{life // 10}.db", folder / f"{life}.log"
        if life % 10 == 0:  # a new file, which the child begins
            n_facts, expected, memory = n_facts + len(expected), {}, None
        child = os.fork()
        if child == 0:
            live(path, log, life, memory)
        wait_for_steps(log, chance.randint(0, STEPS_OF_A_LIFE))
        time.sleep(chance.uniform(0.0, seconds_of_a_step))
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL, "it has ended by itself"
        memory = memory or begin(path)
        expected = check(memory, path, expected, log)
        n_steps += steps_done(log)
    print(json.dumps({"kills": rounds, "steps": n_steps, "facts": n_facts + len(expected)}))


def race(path: Path) -> None:
    children = []
    for name in ("one", "two"):
        child = os.fork()
        if child == 0:
            memory = begin(path)
            for number in range(8):
                memory.add(fact("both", number, name) | {"prompt": f"both of {name} {number}"})
                memory.add(fact(name, number, name))
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]


if __name__ == "__main__":
    Finder.optimise = optimise  # type: ignore[method-assign]
    if sys.argv[1] == "kill":
        kill(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        race(Path(sys.argv[2]))
