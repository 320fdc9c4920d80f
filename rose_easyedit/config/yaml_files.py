"""Settings files: found by path or by a shipped name, and read."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from rose_easyedit.errors import RoSEError, no_file
from rose_easyedit.files import reading


def find_yaml(name_or_path: str | Path, folder: Path, kind: str) -> Path:
    """A file by its path, with or without `.yaml`, or by the bare name of a shipped one.

    Args:
        name_or_path: what a user gave.
        folder: of the shipped ones.
        kind: what the file holds, for the error.

    Raises:
        RoSEError: there is none, with the names that exist.
    """
    for candidate in (Path(name_or_path), Path(f"{name_or_path}.yaml")):
        if candidate.is_file():
            return candidate
    shipped = {path.stem.replace("_", "-"): path for path in sorted(folder.glob("*.yaml"))}
    stem = str(name_or_path).removesuffix(".yaml").replace("_", "-")
    if stem in shipped:
        return shipped[stem]
    near = difflib.get_close_matches(stem, shipped, n=1)
    meant = f" (did you mean {near[0]}?)" if near else ""
    names = f"a path, or one of the shipped names: {', '.join(shipped)}"
    raise no_file(Path(f"{name_or_path}"), f"{kind} file", f"give {names}{meant}")


def read_yaml(path: Path) -> dict[str, Any]:
    """The values of a file, its references (`${...}`) unresolved.

    Raises:
        RoSEError: it is no YAML, is empty, or holds no mapping.
    """
    try:
        values = reading.read_yaml(path)
    except (OSError, ValueError) as error:
        raise RoSEError(f"{str(path)!r} is not a readable YAML file: {error}") from error
    if not isinstance(values, dict) or not values:
        raise RoSEError(f"{str(path)!r} holds no settings; expected `key: value` lines.")
    return {str(key): value for key, value in values.items()}
