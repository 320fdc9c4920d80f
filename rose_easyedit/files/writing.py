"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from rose_easyedit.errors import DiskError, RoSEError
from rose_easyedit.files.disks import unwritable
from rose_easyedit.restoring import restoring


def write_whole(path: Path, content: bytes, *, replace: bool = True) -> Path:
    """Writes a file, as `whole_file` does."""
    with whole_file(path, replace=replace) as part:
        part.write_bytes(content)
    return path


@restoring
def whole_file(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """A file to write that takes its name, and the place of one of that name, behind the block.

    Its folder is made. After an error nothing is left of it. Only a regular file is replaced, and
    whoever might read that one may read this one.

    Args:
        path: of the file.
        replace: a file of that name; otherwise it stays, though it came while this was written.

    Raises:
        RoSEError: there is a file of that name, which is not to be replaced.
        DiskError: it cannot be made there; under the name of the file, not of its part. A link, a
            device or a pipe has its name.
    """
    if kind := irregular(path):
        raise DiskError(f"{str(path)!r} is {kind}, and no file to replace; name another file.")
    # Not a temporary file of the library's, which its owner alone may read.
    part = path.with_name(f".{path.name}-{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        _publish(part, path, replace)
    except DiskError:
        raise
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        with suppress(OSError):  # its folder may be none
            part.unlink(missing_ok=True)


def append_whole(path: Path, content: bytes) -> None:
    """Adds to the end of a file, which is made if there is none; what is there already stays.

    The file is opened for this alone: what is in it stays in it, however the process ends.

    Raises:
        DiskError: it cannot be written; the file is as long as it was.
    """
    try:
        with path.open("ab", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            try:
                rest = memoryview(content)
                while rest:  # the system may take less at once
                    rest = rest[file.write(rest) :]
            except BaseException:
                file.truncate(end)
                raise
    except OSError as error:
        raise unwritable(path, error) from error


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
    with suppress(FileNotFoundError):  # there is none, or another process has just removed it
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            part.chmod(stat.S_IMODE(mode))
    os.replace(part, path)
