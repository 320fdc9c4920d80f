"""Ctrl-C while an edit is computed: a real signal to a real process, which then goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

FACTS = [
    {"prompt": f"{name} was born in", "subject": name, "target_new": town}
    for name, town in (("Marie Curie", "Rome"), ("Ada Lovelace", "Paris"))
]
# The signal comes behind a step of the optimiser; `step` counts those that are done.
CODE = """
import os, signal, sys
from rose_easyedit.entry import rose_edit
from rose_easyedit.method.stage1 import integration

signal.signal(signal.SIGINT, signal.default_int_handler)
step, at, done = integration._step, int(os.environ["AT"]), 0

def counted(*args):
    global done
    step(*args)
    done += 1
    if done == at:
        os.kill(os.getpid(), signal.SIGINT)

integration._step = counted
code = rose_edit()
print("steps", done)
sys.exit(code)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "facts.json").write_text(json.dumps(FACTS))
    return tmp_path


def edit(folder: Path, out: str, cache: str, at: int) -> subprocess.CompletedProcess[str]:
    """`rose-edit edit`, interrupted behind so many steps; 0 is never."""
    words = ["edit", "--requests", "facts.json", "--out", out, "--model", "tiny-random"]
    steps = ["hierarchy.fact_steps=4", "hierarchy.subject_steps=12", "hierarchy.loss_threshold=0"]
    given = [word for step in steps for word in ("--set", step)]
    return subprocess.run(
        [sys.executable, "-c", CODE, *words, *given],
        capture_output=True,
        text=True,
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "AT": str(at),
            "ROSE_EASYEDIT_CACHE": str(folder / cache),
            "OMP_NUM_THREADS": "1",
        },
    )


def test_the_same_command_goes_on_where_it_was_interrupted(folder: Path) -> None:
    stopped = edit(folder, "edit", "cache", at=9)
    assert stopped.returncode == 130
    assert stopped.stderr.splitlines()[-1] == (
        "rose-edit: Interrupted; no file was left half written. The same command goes on where "
        "this one was."
    )
    assert not (folder / "edit").exists()
    again = edit(folder, "edit", "cache", at=0)
    assert again.returncode in (0, 3), again.stderr
    whole = edit(folder, "whole", "other", at=0)
    taken = [int(run.stdout.split("steps ")[1]) for run in (stopped, again, whole)]
    assert taken[2] == 16 and taken[0] + taken[1] == 16 + 1  # the step that was cut off
    assert (folder / "edit").read_bytes() == (folder / "whole").read_bytes()
