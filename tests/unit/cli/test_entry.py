"""A command that is interrupted while it starts: exit code 130 and one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest
from sweeps import write_sweep

from rose_easyedit import entry

ROOT = Path(entry.__file__).parents[1]
# Python reads it before anything else: it lists what is imported, and interrupts one import.
HOOK = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)

class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if os.environ["LISTED"]:
            with open(os.environ["LISTED"], "a") as file:
                file.write(name + "\\n")
        if name == os.environ["AT"]:
            os.environ["AT"] = ""
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupts())
"""


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What each command is told."""
    folder = tmp_path_factory.mktemp("commands")
    facts = folder / "facts.json"
    fact = {"prompt": "We met Ada Lovelace in", "subject": "Ada Lovelace", "target_new": "Rome"}
    facts.write_text(json.dumps([fact]))
    edit = ["edit", "--force", "--requests", str(facts), "--model", "tiny-random", "--out"]
    return {
        "rose_edit": [*edit, str(folder / "edit")],
        "rose_experiment": ["--cfg", "job"],
        "rose_report": [str(write_sweep(folder / "sweep"))],
    }


def run(
    command: str, words: Sequence[str], folder: Path, at: str = "", listed: str = ""
) -> subprocess.CompletedProcess[str]:
    (folder / "sitecustomize.py").write_text(HOOK)
    code = "import rose_easyedit.entry"
    if command:
        code = f"import sys; from rose_easyedit.entry import {command}; sys.exit({command}())"
    paths = os.pathsep.join([str(folder), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": paths, "AT": at, "LISTED": listed}
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        env={**environment, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
    )


def lines_of(path: Path) -> list[str]:
    return list(dict.fromkeys(path.read_text("utf-8").split()))


@pytest.mark.parametrize("most", [4, pytest.param(60, marks=pytest.mark.slow)], ids=["few", "many"])
@pytest.mark.parametrize("command", ["rose_edit", "rose_experiment", "rose_report"])
def test_an_interrupt_of_an_import(
    command: str, most: int, words: dict[str, list[str]], tmp_path: Path
) -> None:
    listed, first = tmp_path / "listed", tmp_path / "first"
    assert run(command, words[command], tmp_path, listed=str(listed)).returncode in (0, 3)
    run("", [], tmp_path, listed=str(first))  # until there is something that takes interrupts
    names = [name for name in lines_of(listed) if name not in lines_of(first)]
    notable = [name for name in ("torch", "transformers.modeling_utils") if name in names]
    for name in [*notable, *Random(0).sample(names, min(most, len(names)))]:
        done = run(command, words[command], tmp_path, at=name)
        told = done.stderr.splitlines()
        assert done.returncode == 130 and "Traceback" not in done.stderr, (name, done.stderr)
        # what it was warned of before stays there
        assert told[-1].startswith(f"{command.replace('_', '-')}: Interrupted; ")
        assert done.stderr.count("Interrupted") == 1


def test_an_interrupt_of_the_work_is_raised_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        handler = entry._Interrupts()
        with pytest.raises(KeyboardInterrupt):
            handler(signal.SIGINT, sys._getframe())
        assert not handler.waiting
    finally:
        signal.signal(signal.SIGINT, before)


def test_interrupts_that_are_ignored_stay_ignored(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["rose-report", "no such folder"])
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert entry.rose_report() == 2
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert "no such folder" in capsys.readouterr().err


def test_nothing_heavy_is_imported_before_the_first_line_of_a_command() -> None:
    code = "import sys; import rose_easyedit.entry; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    loaded = set(done.stdout.split())
    ours = {name for name in loaded if name.startswith("rose_easyedit")}
    assert ours == {"rose_easyedit", "rose_easyedit.entry"}
    assert not loaded & {"torch", "numpy", "argparse", "json", "transformers"}


def as_command(body: str) -> str:
    """A program that does some work as a command is started; the lines of the work, indented."""
    return (
        "import os, sys, types\n"
        "from rose_easyedit import entry\n"
        f"def main():\n{body}    return 0\n"
        "sys.modules['work'] = types.SimpleNamespace(main=main)\n"
        "sys.exit(entry._run('rose-edit', 'work'))\n"
    )


def test_the_end_of_a_command_searches_its_memory_no_more() -> None:
    code = "import atexit, gc\natexit.register(lambda: print(gc.get_freeze_count() > 0))\n"
    done = subprocess.run(
        [sys.executable, "-c", code + as_command("    pass\n")],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert done.stdout == "True\n"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_no_file_takes_the_place_of_a_closed_stream(closed: str, tmp_path: Path) -> None:
    """What is written to the stream by its number would be written into the file."""
    code = as_command(
        "    file = open('memory', 'wb')\n"
        "    for number in (1, 2):\n"
        "        os.write(number, b'x')\n"
        "    print('x', flush=True)\n"
        "    file.write(str(file.fileno()).encode())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = ["sh", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, code]
    done = subprocess.run(words, env=environment, cwd=tmp_path, capture_output=True, timeout=120)
    assert done.returncode == 0
    assert int((tmp_path / "memory").read_text()) > 2


@pytest.mark.parametrize(
    ("own", "found"),
    [
        ({}, "5000 None"),
        ({"GOMP_SPINCOUNT": "7"}, "7 None"),
        ({"OMP_WAIT_POLICY": "active"}, "None active"),
    ],
)
def test_waiting_threads_leave_the_machine_to_others(own: dict[str, str], found: str) -> None:
    code = as_command(
        "    print(os.environ.get('GOMP_SPINCOUNT'), os.environ.get('OMP_WAIT_POLICY'))\n"
    )
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    words = [sys.executable, "-c", code]
    environment |= {"PYTHONPATH": str(ROOT), **own}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, found)
