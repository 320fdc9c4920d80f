"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_whole(path: Path, content: bytes) -> Path:
    """Writes a file, in place of one of that name; its folder is made."""
    with whole_file(path) as part:
        part.write_bytes(content)
    return path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A file to write that takes its name, and the place of one of that name, behind the block.

    Its folder is made. After an error nothing is left of it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not a temporary file of the library's, which its owner alone may read.
    part = path.with_name(f".{path.name}-{secrets.token_hex(4)}.part")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
