"""Standard output whose reader may stop early, as `head` does in `rose-edit info ... | head`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def reader_may_stop() -> Iterator[None]:
    """What is printed in the block, which ends quietly where the reader has seen enough."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # nothing is left to flush to it when the process ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
