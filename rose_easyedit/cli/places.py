"""Where a command writes: found out before its work, which may take minutes."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path

from rose_easyedit.errors import DiskError, RoSEError
from rose_easyedit.files.writing import irregular, is_same_file

FOR_EDIT = "a file, such as edit.safetensors"
FOR_FOLDER = "a new folder"


def named(text: str, option: str, what: str) -> Path:
    """The path that an option names.

    Args:
        text: what it was given.
        option: the option, for the error.
        what: what to name, for the error.

    Raises:
        RoSEError: it is empty.
    """
    if not text.strip():
        raise RoSEError(f"{option} is empty; name {what}.")
    return Path(text)


def new_file(text: str, force: bool, inputs: Sequence[str] = ()) -> Path:
    """The file that --out names, which is not there yet unless it may be replaced.

    Args:
        text: what --out was given.
        force: whether a regular file may be replaced.
        inputs: files that the command reads, which may not.

    Raises:
        RoSEError: it is empty, a folder, a link, device or pipe, an input, or there already.
        DiskError: as `check_place`.
    """
    path = named(text, "--out", FOR_EDIT)
    if path.is_dir():
        raise RoSEError(f"--out {text} is a folder; name a file, such as {text}/edit.safetensors.")
    if kind := irregular(path):
        raise RoSEError(f"--out {text} is {kind}, and no file to replace; name a regular file.")
    if any(is_same_file(path, Path(name)) for name in inputs):
        raise RoSEError(f"--out {text} is a file that this command reads; name another one.")
    if path.exists() and not force:
        raise RoSEError(f"--out {text} exists; choose another name, or add --force to replace it.")
    check_place(path)
    return path


def new_folder(text: str, option: str = "--out") -> Path:
    """The folder that an option names, which is empty or not there yet.

    Raises:
        RoSEError: its name is empty, or there is something under it already.
        DiskError: as `check_place`.
    """
    path = named(text, option, FOR_FOLDER)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise RoSEError(f"{text} exists and is not an empty folder; choose another name.")
    check_place(path)
    return path


def check_place(path: Path) -> None:
    """Finds out whether a file can be made there.

    Raises:
        DiskError: what should be its folder is a file, or cannot be written to.
    """
    folder = next(place for place in path.absolute().parents if place.exists())
    if not folder.is_dir():
        raise DiskError(f"{path} cannot be made, since {folder} is a file; name another folder.")
    probe = folder / f".{secrets.token_hex(4)}.part"
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise DiskError(
            f"{path} cannot be made, since {folder} cannot be written to ({error.strerror}); name "
            "another folder."
        ) from error
