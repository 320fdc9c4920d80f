"""How much the entries of the user's cache may have together; those used least recently go first.

Models that were expanded are no entries: they count nowhere and stay until they are cleared.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rose_easyedit.config.paths import cache_dir
from rose_easyedit.errors import RoSEError, shown

# What each folder of entries holds; all of it is made again when it is needed.
PARTS = {
    "statistics": "the directions of generic keys, for each model and text",
    "units": "how long the hidden states of each model are, and how far subjects differ in them",
    "shifts": "what sweeps and edits have optimised, whole or up to an interrupt",
    "evaluation": "answers of unedited models",
    "memory": "the solved edits of memories",
    "layers": "the layers that causal tracing found, for each model",
}
VARIABLE = "ROSE_EASYEDIT_CACHE_LIMIT"
_GIGABYTE = 10**9
_DEFAULT = 20
# Seconds after which a file that is half written is taken for left behind by a process now dead.
_ABANDONED = 3600.0
# Of an entry, and of one half written: nothing else is removed, whatever folder was named as
# the cache.
_NAME = re.compile(r"\.?([a-z]+-)?[0-9a-f]{32}\.safetensors(-[0-9a-f]{8}\.part)?")


class _File(NamedTuple):
    """A file of the cache, in the order in which they go."""

    used: int
    path: Path
    size: int


@dataclass(frozen=True)
class Limit:
    """The limit that some folders of entries share.

    Attributes:
        folders: they need not be there.
        most: bytes of all entries in them.
    """

    folders: Sequence[Path]
    most: float

    @classmethod
    def of_cache(cls) -> Limit:
        """That of the user's cache, as `ROSE_EASYEDIT_CACHE_LIMIT` sets it in gigabytes.

        Raises:
            RoSEError: it is set to what is no such number; or the user has no home.
        """
        root = cache_dir()
        return cls([root / name for name in PARTS], _gigabytes() * _GIGABYTE)

    @classmethod
    def of(cls, folder: Path) -> Limit | None:
        """That of the user's cache where a folder is a part of it; None where it is another one.

        Raises:
            RoSEError: as `of_cache`.
        """
        try:
            is_part = folder.name in PARTS and folder.parent == cache_dir()
        except RoSEError:  # without a home there is no such cache
            return None
        return cls.of_cache() if is_part else None

    def used(self) -> int:
        """The bytes of all entries."""
        return sum(file.size for file in self._files())

    def make_room(self, path: Path, size: int) -> bool:
        """Removes what was used least recently until a new entry fits in.

        Args:
            path: of the entry; what has that name is to be replaced.
            size: its bytes.

        Returns:
            Whether it fits at all.
        """
        others = sorted(file for file in self._files() if file.path != path)
        left = sum(file.size for file in others) + min(size, self.most)
        for file in others:
            if left <= self.most:
                break
            with suppress(OSError):
                file.path.unlink(missing_ok=True)  # another process may have been first
                left -= file.size
        return size <= self.most

    def _files(self) -> Iterator[_File]:
        for folder in self.folders:
            with suppress(OSError):  # there is none, or it may not be read
                for found in os.scandir(folder):
                    if _NAME.fullmatch(found.name) and found.is_file(follow_symlinks=False):
                        with suppress(OSError):  # it has gone meanwhile
                            about = found.stat(follow_symlinks=False)
                            age = time.time() - about.st_mtime
                            if found.name.endswith(".part") and age < _ABANDONED:
                                continue  # another process is writing it
                            yield _File(about.st_mtime_ns, Path(found.path), about.st_size)


def _gigabytes() -> float:
    value = os.environ.get(VARIABLE) or str(_DEFAULT)
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not number >= 0:
        raise RoSEError(
            f"{VARIABLE} is {shown(value)}, which is no number of gigabytes; give one, such as "
            f"{_DEFAULT}: 0 keeps nothing, inf has no limit."
        )
    return number
