"""Standard output may be closed or lose its reader; what a library writes to it is lost."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from rose_easyedit.files.stdout import reader_may_leave, reader_may_stop, without_native_output


def test_only_what_is_written_in_the_block_is_lost(capfd: pytest.CaptureFixture[str]) -> None:
    print("before")
    with pytest.raises(ValueError, match="its own"):
        with without_native_output():
            os.write(1, b"[Gloo] Rank 0 is connected")
            os.write(2, b"a warning")
            raise ValueError("its own fault")
    print("after")
    assert capfd.readouterr() == ("before\nafter\n", "a warning")


def test_what_was_printed_before_is_not_lost_with_it() -> None:
    """Where output is a pipe, Python holds it back."""
    code = (
        "from rose_easyedit.files.stdout import without_native_output\n"
        "print('before')\n"
        "with without_native_output():\n"
        "    pass\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("before\n", "")


def test_a_closed_output_stays_closed() -> None:
    code = (
        "import os\n"
        "from rose_easyedit.files.stdout import without_native_output\n"
        "with without_native_output():\n"
        "    done = True\n"
        "try:\n"
        "    os.fstat(1)\n"
        "except OSError:\n"
        "    os.write(2, b'closed' if done else b'')\n"
    )
    closed = ["sh", "-c", 'exec "$0" -c "$1" >&-', sys.executable, code]
    done = subprocess.run(closed, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.stderr == "closed"


def test_work_goes_on_where_its_reader_has_left() -> None:
    """What a thread and a log write to a closed pipe is lost, and says nothing of it."""
    code = (
        "import logging, sys, threading\n"
        "from rose_easyedit.files.stdout import reader_may_leave\n"
        "with reader_may_leave():\n"
        "    logging.basicConfig(stream=sys.stdout, level='INFO')\n"
        "    for _ in range(3):\n"
        "        print('x' * 100_000, flush=True)\n"
        "        logging.info('y')\n"
        "    thread = threading.Thread(target=print, args=('z',), kwargs={'flush': True})\n"
        "    thread.start()\n"
        "    thread.join()\n"
        "logging.info('behind the block')\n"
        "print('done', file=sys.stderr)\n"
    )
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, text=True, timeout=60
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "done\n")


def test_what_an_output_cannot_encode_is_escaped_and_it_is_put_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", output)
    with reader_may_leave():
        print("\u00e4")
    assert sys.stdout is output
    assert output.buffer.getvalue() == b"\\xe4\n"  # type: ignore[attr-defined]


@pytest.mark.parametrize("context", [reader_may_leave, reader_may_stop])
def test_there_may_be_no_output(
    context: Callable[[], AbstractContextManager[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with context():
        print("x")
