"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rose_easyedit.errors import RoSEError


def write_whole(path: Path, content: bytes, *, replace: bool = True) -> Path:
    """Writes a file, as `whole_file` does."""
    with whole_file(path, replace=replace) as part:
        part.write_bytes(content)
    return path


@contextmanager
def whole_file(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """A file to write that takes its name, and the place of one of that name, behind the block.

    Its folder is made. After an error nothing is left of it. Only a regular file is replaced, and
    whoever might read that one may read this one.

    Args:
        path: of the file.
        replace: a file of that name; otherwise it stays, though it came while this was written.

    Raises:
        RoSEError: there is a file of that name, which is not to be replaced.
        OSError: it cannot be made there; under the name of the file, not of its part. A link, a
            device or a pipe has its name.
    """
    if kind := irregular(path):
        raise FileExistsError(errno.EEXIST, f"It is {kind}, and no file to replace", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not a temporary file of the library's, which its owner alone may read.
    part = path.with_name(f".{path.name}-{secrets.token_hex(4)}.part")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        _publish(part, path, replace)
    except OSError as error:
        if error.filename != str(part):
            raise
        reason = f"{error.strerror}, in the folder {str(path.parent)!r}"
        raise OSError(error.errno, reason, str(path)) from error
    finally:
        part.unlink(missing_ok=True)


def irregular(path: Path) -> str:
    """What has a name that is no regular file, in words; empty if there is one, or nothing."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return ""
    if stat.S_ISREG(mode):
        return ""
    kinds = {stat.S_ISLNK: "a link", stat.S_ISDIR: "a folder", stat.S_ISFIFO: "a pipe"}
    return next((word for is_one, word in kinds.items() if is_one(mode)), "a device or socket")


def is_same_file(path: Path, other: Path) -> bool:
    """Whether two names are of one file that is there."""
    try:
        return os.path.samefile(path, other)
    except (OSError, ValueError):
        return False


def _publish(part: Path, path: Path, replace: bool) -> None:
    if not replace:
        try:
            os.link(part, path)  # unlike a rename, this fails where the name is taken
            return
        except FileExistsError as error:
            raise RoSEError(f"{str(path)!r} exists by now; name another file.") from error
        except OSError:  # a file system without links
            if path.exists():
                raise RoSEError(f"{str(path)!r} exists by now; name another file.") from None
    if path.is_file():
        part.chmod(stat.S_IMODE(path.stat().st_mode))
    os.replace(part, path)
