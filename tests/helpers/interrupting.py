"""Interrupts at places of our choice: a Ctrl-C at the n-th call of a piece of work."""

from __future__ import annotations

import gc
import inspect
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

# what belongs to the machinery that places interrupts
_OWN = {__file__, signal.__file__}


class Places:
    """Calls and returns of a piece of work, counted: where an interpreter looks for a signal.

    At one of them the process is sent an interrupt.
    """

    def __init__(self, at: int) -> None:
        self.count, self._at = 0, at

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        if frame.f_code.co_filename in _OWN or _is_none(frame.f_code, event):
            return
        self.count += 1
        if self.count == self._at:
            signal.raise_signal(signal.SIGINT)


def _is_none(code: CodeType, event: str) -> bool:
    """Whether the interpreter looks for no signal, though it sends an event."""
    pauses = event in ("call", "return") and code.co_flags & inspect.CO_GENERATOR
    # between the end of `__enter__` and the block of its `with`
    return bool(pauses) or (event == "return" and code.co_name == "__enter__")


@contextmanager
def counted(at: int = 0) -> Iterator[Places]:
    """Counts the places in the block, and interrupts it at one of them; from 1."""
    places, before = Places(at), signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.disable()  # what is collected in between would have calls of its own
    sys.setprofile(places)
    try:
        yield places
    finally:
        sys.setprofile(None)
        gc.enable()
        signal.signal(signal.SIGINT, before)


def places_of(work: Callable[[], object]) -> int:
    """How many places a piece of work has."""
    with counted() as places:
        work()
    return places.count


def interrupted(work: Callable[[], object], at: int) -> KeyboardInterrupt | None:
    """Interrupts a piece of work at a place; the interrupt, if it was raised.

    Keep it while you look at what is left: a notebook keeps it as well, and with it what would be
    put back only once it is gone.
    """
    try:
        with counted(at):
            work()
    except KeyboardInterrupt as error:
        return error
    return None
