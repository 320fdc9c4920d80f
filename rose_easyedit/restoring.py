"""What was changed for a while is put back to its end, and only then is an interrupt raised.

A Ctrl-C falls between any two steps: into a `finally`, or into the library's code around one, and
what that was about to put back stays as it was changed.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import wraps
from types import FrameType, TracebackType
from typing import Any, Generic, ParamSpec, TypeVar

Given = ParamSpec("Given")
Lent = TypeVar("Lent")


def restoring(
    function: Callable[Given, Iterator[Lent]],
) -> Callable[Given, AbstractContextManager[Lent]]:
    """As `contextmanager`: what the generator does behind its `yield` is done to its end first.

    What it changes, it has to change in the `try` whose `finally` puts it back. An interrupt of its
    beginning or of the block ends them, as ever.
    """
    make = contextmanager(function)

    @wraps(function)
    def made(*args: Given.args, **kwargs: Given.kwargs) -> AbstractContextManager[Lent]:
        return _Restoring(make(*args, **kwargs))

    return made


def uninterrupted(work: Callable[[], object]) -> None:
    """Does some work to its end; an interrupt that falls into it is raised then."""
    stack = ExitStack()
    stack.callback(work)
    with _Restoring(stack):
        pass


class _Restoring(AbstractContextManager[Lent], Generic[Lent]):
    """A context whose end is not interrupted: the interrupt is kept, and raised behind it.

    Only the main thread is interrupted, and has this handler from the beginning of the block: one
    that came with the end would leave a moment before it.
    """

    def __init__(self, inner: AbstractContextManager[Lent]) -> None:
        self._inner = inner
        self._before: Callable[[int, FrameType | None], Any] | None = None
        self._kept = self._done = False

    def __enter__(self) -> Lent:
        try:
            self._listen()
            return self._inner.__enter__()
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        try:
            return self._inner.__exit__(kind, error, trace)
        finally:
            self._done = True
            self._stop_listening()
            if self._kept and self._before is not None:
                self._before(signal.SIGINT, sys._getframe())

    def _listen(self) -> None:
        before = signal.getsignal(signal.SIGINT)
        # there is none where interrupts are ignored, or end the process at once
        if callable(before) and threading.current_thread() is threading.main_thread():
            self._before = before
            signal.signal(signal.SIGINT, self._interrupted)

    def _stop_listening(self) -> None:
        if self._before is not None and signal.getsignal(signal.SIGINT) == self._interrupted:
            signal.signal(signal.SIGINT, self._before)

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        if _is_restoring(frame):
            self._kept = True
        elif self._before is not None:
            self._before(number, frame)


def _is_restoring(frame: FrameType | None) -> bool:
    """Whether the end of a context is on the stack, and has not put back everything yet."""
    while frame is not None:
        if frame.f_code is _Restoring.__exit__.__code__ and not frame.f_locals["self"]._done:
            return True
        frame = frame.f_back
    return False
