"""The package's errors: what was wrong, the value, and what to do next."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from reprlib import Repr
from typing import Any


class RoSEError(ValueError):
    """Any fault that the caller can mend; the message says how."""

    faults: Sequence[str] = ()

    @classmethod
    def of(cls, title: str, faults: Sequence[str]) -> RoSEError:
        """One error that reports several faults together, one line each, and keeps them apart."""
        error = cls("\n".join([title, *(f"  - {fault}" for fault in faults)]))
        error.faults = tuple(faults)
        return error


class FactError(RoSEError):
    """A fault of some facts themselves: the model cannot be made to know them; others it can."""


class DamageError(RoSEError):
    """An edit that its own check found damaged, and that was to be refused then."""


class DiskError(RoSEError, OSError):
    """A file or folder that cannot be written, for want of space or of the right, say.

    The command's words are not wrong then. `errno` is the system's number of what was wrong, if it
    has said one.
    """


def no_file(path: Path, kind: str, advice: str) -> RoSEError:
    """The error for a path at which there is no file."""
    if path.is_dir():
        return RoSEError(f"{str(path)!r} is a folder, and no {kind}; {advice}.")
    return RoSEError(f"There is no {kind} {str(path)!r}; {advice}.")


def first_line(message: str) -> str:
    """The first line of a message, and the next one where that is its announcement only."""
    lines = [line.strip() for line in message.strip().splitlines()] or [""]
    return " ".join(lines[:2] if lines[0].endswith(":") else lines[:1])


def json_fault(error: Exception) -> str:
    """What is wrong with one line of JSON, without a position in a file of one line."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg}, at column {error.colno}"
    return str(error)


def text_fault(text: str) -> str:
    """What is wrong with a text that no tokenizer and no UTF-8 file can hold; empty if nothing."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"is no text: character {error.start} is half of one, or a byte that is not UTF-8"
    return ""


def shown(value: Any) -> str:
    """A value as a message shows it: shortened where it is long or deep, control codes escaped."""
    short = Repr()
    short.maxstring = short.maxother = short.maxlong = 300
    return short.repr(value)
