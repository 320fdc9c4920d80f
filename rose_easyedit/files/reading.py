"""Files that may come from anywhere: read once, whole, within bounds, and from where they belong.

What is in them is plain data: a reference (`${...}`) is a text like any other.
"""

from __future__ import annotations

import io
import json
import os
import stat
from pathlib import Path
from typing import Any

from rose_easyedit.errors import RoSEError

TEXT_BYTES = 512 << 20
_SETTINGS_BYTES = 4 << 20
REFERENCE = "${"


def read_bytes(path: Path, most: int = TEXT_BYTES) -> bytes:
    """All of a regular file; nothing is allocated or waited for before it is known to be one.

    Args:
        path: of the file; a link to it will do.
        most: bytes that are read.

    Raises:
        RoSEError: it is no regular file, larger than that, or than the memory.
        OSError: it cannot be read.
    """
    # without waiting for the other end of a FIFO
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    if stat.S_ISREG(os.stat(path).st_mode):
        with open(os.open(path, flags), "rb") as file:
            found = os.fstat(file.fileno())
            if found.st_size > most:
                raise RoSEError(
                    f"{str(path)!r} has {found.st_size / 2**20:,.0f} MiB, and is read as a whole, "
                    f"up to {most / 2**20:,.0f} MiB; give a smaller one."
                )
            if stat.S_ISREG(found.st_mode):
                try:
                    return file.read(found.st_size)
                except MemoryError as error:
                    raise RoSEError(
                        f"{str(path)!r} has {found.st_size / 2**20:,.0f} MiB, more than the memory "
                        "holds; give a smaller one."
                    ) from error
    raise RoSEError(f"{str(path)!r} is no regular file, but a folder, device or pipe; name a file.")


def read_text(path: Path, most: int = TEXT_BYTES) -> str:
    """As `read_bytes`, of UTF-8.

    Raises:
        RoSEError, OSError: as there.
        UnicodeDecodeError: it is other text, or none.
    """
    return read_bytes(path, most).decode("utf-8-sig")


def read_json(path: Path) -> Any:
    """As `read_text`, of JSON.

    Raises:
        RoSEError, OSError: as there.
        ValueError: it is no JSON, or nested too deep.
    """
    try:
        return json.loads(read_text(path))
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def read_yaml(path: Path) -> Any:
    """As `read_text`, of YAML, its references unresolved.

    Raises:
        RoSEError, OSError: as there.
        ValueError: it is no YAML, nested too deep, or says one thing in several places (`*name`).
    """
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    text = read_text(path, _SETTINGS_BYTES)
    try:
        # a few lines of aliases can stand for more than any memory holds
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
            raise ValueError("it holds an alias (`*name`); write out what it stands for")
        return OmegaConf.to_container(OmegaConf.load(io.StringIO(text)), resolve=False)
    except (yaml.YAMLError, OmegaConfBaseException, RecursionError, OSError) as error:
        raise ValueError(str(error) or type(error).__name__) from error


def inside(folder: Path, path: Path) -> Path:
    """The path, once it is known that it leads to a place in a folder, whatever links are in it.

    Raises:
        RoSEError: it leads out of the folder.
    """
    try:
        if path.resolve().is_relative_to(folder.resolve()):
            return path
    except (OSError, RuntimeError, ValueError):  # links in a circle, or no name of a file
        pass
    raise RoSEError(
        f"{str(path)!r} leads out of the folder {str(folder)!r}; put the file itself there."
    )
