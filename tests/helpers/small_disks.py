"""Disks that are full: small ones that are mounted, or files that cannot grow."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PAGE = os.sysconf("SC_PAGE_SIZE")
_FILLER = "filler"


@contextmanager
def no_file_above(n_bytes: int) -> Iterator[None]:
    """The system lets no file grow further; Python ignores the signal that goes with it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class Disk:
    """A folder for which so much space is left as one says."""

    def __init__(self, folder: Path, n_pages: int | None) -> None:
        """`n_pages`: of a disk of its own; None if it is on the machine's."""
        self.folder, self._n_pages = folder, n_pages

    @property
    def is_mounted(self) -> bool:
        """Whether it is a disk of its own."""
        return self._n_pages is not None

    @contextmanager
    def with_space(self, n_bytes: int) -> Iterator[None]:
        """In the block there is space for so many bytes: of all files, or of each of them."""
        if self._n_pages is None:
            with no_file_above(n_bytes):
                yield
            return
        filler = self.folder / _FILLER
        free = os.statvfs(self.folder).f_bavail
        filler.write_bytes(bytes(max(free - n_bytes // PAGE, 0) * PAGE))
        try:
            yield
        finally:
            filler.unlink()

    def content(self) -> dict[str, bytes]:
        """All files by their names, but what takes the space away."""
        files = (path for path in self.folder.rglob("*") if path.is_file())
        return {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in files
            if path.name != _FILLER
        }


@contextmanager
def small_disk(folder: Path, n_bytes: int = 4 << 20) -> Iterator[Disk]:
    """A disk on an empty folder."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={n_bytes}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        yield Disk(folder, None)
        return
    try:
        yield Disk(folder, n_bytes // PAGE)
    finally:
        subprocess.run(["umount", str(folder)], check=True)
