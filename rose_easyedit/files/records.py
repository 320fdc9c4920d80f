"""From a JSON or JSON Lines file to its records, each with its position."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rose_easyedit.errors import RoSEError, json_fault, no_file
from rose_easyedit.files.reading import read_text

_SHOWN_FAULTS = 20
_SHOWN_LETTERS = 120


@dataclass(frozen=True)
class FileRow:
    """One record as the file holds it; `where` is its position, counted from record 0."""

    where: str
    value: Any


def read_rows(path: str | Path, kind: str) -> tuple[list[FileRow], list[str]]:
    """The records of a list in a JSON file, or of a JSON Lines file; one object is one record.

    Args:
        path: The file.
        kind: What it is, for the errors: "data file", "request file".

    Returns:
        The records, and a fault for each line of a JSON Lines file that is not JSON.

    Raises:
        RoSEError: If the file is missing or cannot be read, is too large to be read as a whole,
            not UTF-8, empty, JSON of another shape, or has no line that is JSON.
    """
    path = Path(path)
    try:
        text = _read_text(path, kind)
    except OSError as error:
        raise RoSEError(
            f"The {kind} {str(path)!r} cannot be read ({error}); name one that can."
        ) from error
    try:
        value = json.loads(text)
    # ValueError: JSONDecodeError, and a number with more digits than Python converts
    except (ValueError, RecursionError) as error:
        if text.lstrip().startswith("["):
            raise RoSEError(f"{str(path)!r} is not JSON ({error}); mend or replace it.") from error
        rows, faults = _parse_lines(text)
        if not rows:
            title = f"{str(path)!r} is neither JSON nor JSON Lines:"
            raise RoSEError.of(title, shorten_faults(faults)) from error
        return rows, faults
    return [FileRow(f"record {i}", record) for i, record in enumerate(_records(path, value))], []


def shorten(text: str) -> str:
    """The text, cut where a message or a table would become unreadable."""
    return text if len(text) <= _SHOWN_LETTERS else f"{text[:_SHOWN_LETTERS]}..."


def shorten_faults(faults: Sequence[str]) -> list[str]:
    """The first faults, and how many more there are."""
    left_out = len(faults) - _SHOWN_FAULTS
    shown = list(faults[:_SHOWN_FAULTS])
    return [*shown, f"... and {left_out} more"] if left_out > 0 else shown


def _read_text(path: Path, kind: str) -> str:
    if not path.is_file():
        raise no_file(path, kind, "give a JSON or JSON Lines file")
    try:
        text = read_text(path)
    except UnicodeDecodeError as error:
        raise RoSEError(f"{str(path)!r} is not UTF-8 text ({error}); save it as UTF-8.") from error
    if not text.strip():
        raise RoSEError(f"{str(path)!r} is empty; give a file with records.")
    return text


def _records(path: Path, value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return [value]
    if isinstance(value, list) and value:
        return value
    found = "an empty list" if isinstance(value, list) else f"a JSON {type(value).__name__}"
    raise RoSEError(f"{str(path)!r} holds {found}; give a list of records, or one record a line.")


def _parse_lines(text: str) -> tuple[list[FileRow], list[str]]:
    rows: list[FileRow] = []
    faults: list[str] = []
    # not splitlines, which also splits at separators that a JSON string may hold
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    for index, (number, line) in enumerate(lines):
        where = f"record {index} (line {number})"
        try:
            rows.append(FileRow(where, json.loads(line)))
        except (ValueError, RecursionError) as error:
            faults.append(f"{where}: it is not JSON ({json_fault(error)})")
    return rows, faults
