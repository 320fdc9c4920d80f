"""Standard output: its reader may stop early, and a library may write to it unasked."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_STDOUT = 1  # of the process; `sys.stdout` may be another


@contextmanager
def reader_may_stop() -> Iterator[None]:
    """What is printed in the block, which ends quietly where the reader has seen enough.

    As `head` does in `rose-edit info ... | head`.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # nothing is left to flush to it when the process ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def without_native_output() -> Iterator[None]:
    """What a compiled library writes to standard output in the block, and flushes, is lost.

    What has to be said of it is an exception's or standard error's to say; a report in JSON is not
    to be read from behind it.
    """
    if sys.stdout is not None:  # as it is where the process began with a closed one
        sys.stdout.flush()
    try:
        own = os.dup(_STDOUT)
    except OSError:  # it is closed
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, _STDOUT)
    os.close(nowhere)
    try:
        yield
    finally:
        os.dup2(own, _STDOUT)
        os.close(own)
