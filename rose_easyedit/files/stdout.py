"""What is printed: any text on any terminal, none of it obeyed; its reader may stop early.

A library may write to standard output unasked.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rose_easyedit.files.plain import plain

_STDOUT = 1  # of the process; `sys.stdout` may be another
# Control codes but tabs and new lines, halves of characters and bytes that are none, and what turns
# the direction of writing.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_LINES, _LETTERS = 60, 2_000  # of a message


def printable(value: Any) -> Any:
    """Texts, and those in lists and mappings, with a mark in place of what a terminal obeys."""
    if isinstance(value, str):
        return _UNSEEN.sub("\ufffd", value)
    if isinstance(value, dict):
        return {printable(key): printable(inner) for key, inner in value.items()}
    return [printable(inner) for inner in value] if isinstance(value, list) else value


def printable_message(message: object) -> str:
    """A message as a terminal shows it, its first lines, each cut where it would be unreadable."""
    lines = printable(str(message)).splitlines() or [""]
    short = [text if len(text) <= _LETTERS else f"{text[:_LETTERS]}..." for text in lines]
    more = [f"... and {len(lines) - _LINES} more lines"] if len(lines) > _LINES else []
    return "\n".join([*short[:_LINES], *more])


def json_text(report: Any) -> str:
    """A report as JSON for a program, which a terminal may show as well.

    Numbers that are not finite are null; what a terminal would obey is escaped.
    """
    text = json.dumps(plain(report), ensure_ascii=False, indent=1, allow_nan=False)
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


@contextmanager
def reader_may_stop() -> Iterator[None]:
    """What is printed in the block, which ends quietly where the reader has seen enough.

    As `head` does in `rose-edit info ... | head`. What standard output cannot encode is escaped.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        yield
        if sys.stdout is not None:  # as it is where the process began with a closed one
            sys.stdout.flush()
    except BrokenPipeError:
        _to_nowhere(sys.stdout)


@contextmanager
def reader_may_leave() -> Iterator[None]:
    """What is printed in the block, whose work goes on where nobody reads any more.

    What others write to `sys.stdout` is meant as well: a log, or another thread. What standard
    output cannot encode is escaped.
    """
    before: Any = sys.stdout
    if before is None:
        yield
        return
    if isinstance(before, io.TextIOWrapper):
        before.reconfigure(errors="backslashreplace")
    sys.stdout = _Patient(before)
    try:
        yield
        sys.stdout.flush()
    finally:
        sys.stdout = before


class _Patient:
    """A stream that may lose its reader; it outlives the block in the handlers of logs."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except BrokenPipeError:
            _to_nowhere(self._stream)
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            _to_nowhere(self._stream)


def _to_nowhere(stream: Any) -> None:
    """Loses what is still in a stream and all to come, so that nothing is left to flush at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


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
