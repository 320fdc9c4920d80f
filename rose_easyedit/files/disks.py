"""What a disk does not take, in words: libraries have errors of their own for it, or of no kind."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rose_easyedit.errors import DiskError, RoSEError, first_line

# as Rust's libraries say it, safetensors and tokenizers
_OS_ERROR = re.compile(r"\(os error (\d+)\)")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
_NUMBERS = (*_FULL, *_REFUSED, errno.EIO)


def unwritable(path: Path, error: Exception) -> DiskError:
    """The error for a file or folder that could not be written.

    Args:
        path: what was to be written, of which nothing is left.
        error: of the system, or of a library.
    """
    number = _number(error)
    reason = os.strerror(number) if number else first_line(str(error)) or type(error).__name__
    found = DiskError(
        f"{str(path)!r} cannot be written ({reason}, in the folder {str(path.parent)!r}); "
        f"{advice(number)}."
    )
    found.errno = number
    return found


def advice(number: int | None) -> str:
    """What to do about an error of the system of this number."""
    if number in _FULL:
        return "free some space, or name a place on another disk"
    if number in _REFUSED:
        return "name a folder that may be written"
    return "look at its disk, or name another place"


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """What a library says of a disk in the block is a `DiskError` that names what is written.

    Other errors pass, those of files elsewhere among them.

    Args:
        path: of the file or folder.
    """
    try:
        yield
    except RoSEError:
        raise
    except Exception as error:
        if _number(error) in _NUMBERS and _is_at(error, path):
            raise unwritable(path, error) from error
        raise


def _number(error: Exception) -> int | None:
    if isinstance(error, OSError):
        return error.errno
    said = _OS_ERROR.search(str(error))
    return int(said[1]) if said else None


def _is_at(error: Exception, path: Path) -> bool:
    """Whether an error is of a path or its neighbours, as far as it says of what it is."""
    name = getattr(error, "filename", None)
    return not isinstance(name, str) or Path(name).is_relative_to(path.parent)
