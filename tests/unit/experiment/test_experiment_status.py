"""A run's state survives its process, and a process that is gone is found out."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from rose_easyedit.experiment.status import (
    BROKEN_OFF,
    FINISHED,
    RUNNING,
    Status,
    claimed,
    emptied,
    read_status,
    state_of,
)

HOLDER = (
    "import sys, time\n"
    "from pathlib import Path\n"
    "from rose_easyedit.experiment.status import Status, claimed, emptied\n"
    "folder = Path(sys.argv[1])\n"
    "with claimed(folder):\n"
    "    Status('a', 'running').write(emptied(folder))\n"
    "    print('claimed', flush=True)\n"
    "    time.sleep(60)\n"
)


def test_a_status_is_read_as_it_was_written(tmp_path: Path) -> None:
    status = Status("a", FINISHED, ["x=1"], "1+2", "now", {"edit": 1.0}, {"kl": None}, "")
    assert status.write(tmp_path) is status
    assert read_status(tmp_path) == replace(
        status, state=BROKEN_OFF, error="there is no delta.safetensors"
    )
    (tmp_path / "delta.safetensors").touch()
    assert read_status(tmp_path) == state_of(tmp_path) == status


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"id": "a"}',
        '{"unknown": 1}',
        '{"id": "a", "state": "failed", "started": 3}',
        '{"id": "a", "state": "failed", "metrics": null}',
        '{"id": "a", "state": "failed", "overrides": [1]}',
    ],
)
def test_what_cannot_be_read_is_no_status(tmp_path: Path, content: str) -> None:
    (tmp_path / "status.json").write_text(content)
    assert read_status(tmp_path) is None
    assert read_status(tmp_path / "nothing") is None


def test_a_run_is_running_as_long_as_its_process_lives(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "a"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "claimed\n"
        status = state_of(folder)
        assert status is not None and status.state == RUNNING
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        holder.stdout.close()  # type: ignore[union-attr]
    assert state_of(folder) == replace(status, state=BROKEN_OFF)
    with claimed(folder):
        pass


def test_a_claim_waits_for_the_one_before(tmp_path: Path) -> None:
    order = []
    begun = threading.Event()

    def second() -> None:
        begun.set()
        with claimed(tmp_path / "a"):
            order.append("second")

    with claimed(tmp_path / "a"):
        thread = threading.Thread(target=second)
        thread.start()
        begun.wait()
        thread.join(0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_an_emptied_folder_keeps_its_claim(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    with claimed(folder):
        Status("a", RUNNING).write(emptied(folder))
        (folder / "half").write_text("x")
        assert list(emptied(folder).iterdir()) == []
        Status("a", RUNNING).write(folder)
        assert state_of(folder) == Status("a", RUNNING)


def test_a_run_in_a_folder_that_is_only_read_is_taken_at_its_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("read-only")

    status = Status("a", RUNNING)
    status.write(tmp_path)
    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    assert state_of(tmp_path) == status


def test_what_cannot_be_emptied_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("no folder")
    with pytest.raises(NotADirectoryError):
        emptied(tmp_path / "a")
