"""What a compiled library writes to standard output does not get into a report."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from rose_easyedit.files.stdout import without_native_output


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
