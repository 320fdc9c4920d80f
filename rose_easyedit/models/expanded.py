"""Folders in the cache, made once, whole or not at all, and checked whenever they are read.

They are no entries of `rose_easyedit.cache`: libraries load a model from a folder of several files,
by path, so that it has to stay where it is while somebody uses it. Its key is the name of the
folder, its digests are in a manifest, and it counts towards no limit.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from rose_easyedit.config.paths import cache_dir
from rose_easyedit.errors import DiskError
from rose_easyedit.files.disks import disk_errors
from rose_easyedit.files.reading import read_json

MANIFEST = "manifest.json"


def expanded(name: str, megabytes: int, source: str, make: Callable[[Path], None]) -> Path:
    """The folder of an expanded model; made, or made anew if it is damaged.

    Args:
        name: of the folder in the cache, which stands for what is in it.
        megabytes: that it needs, for the error.
        source: the SHA-256 of what it is expanded from.
        make: writes the files into an empty folder.

    Returns:
        A folder whose every file is as its checksum says, and in which there is nothing else.

    Raises:
        DiskError: the cache folder cannot be written.
        RoSEError: `make` has raised it.
    """
    from filelock import FileLock

    folder = expanded_folder(name)
    if is_intact(folder, source):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            # another process may have made it while this one waited
            if not is_intact(folder, source):
                with disk_errors(folder):
                    _make_atomically(folder, source, make)
    except OSError as error:
        raise DiskError(
            f"The expanded model cannot be kept in {folder.parent} ({error}); set "
            f"ROSE_EASYEDIT_CACHE to a writable folder with {megabytes} MB free."
        ) from error
    return folder


def expanded_folder(name: str) -> Path:
    """Where an expanded model is kept, made or not."""
    return cache_dir() / "models" / name


def is_intact(folder: Path, source: str | None) -> bool:
    """Whether a model is of a source, and its folder holds what its manifest names.

    Every file has the checksum that it was written with; there is one, and there are no others,
    which a loader would take for a part of the model.

    Args:
        folder: of the model.
        source: what its manifest should say that it was expanded from; None if nothing.
    """
    try:
        manifest = read_json(folder / MANIFEST)
        files = manifest["files"]
        return (
            manifest.get("source") == source
            and bool(files)
            and {path.name for path in folder.iterdir()} == {MANIFEST, *files}
            and all((folder / name).is_file() for name in files)
            and all(sha256(folder / name) == checksum for name, checksum in files.items())
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _make_atomically(folder: Path, source: str, make: Callable[[Path], None]) -> None:
    draft = folder.with_name(f"{folder.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)  # of a process that was killed
    draft.mkdir()
    try:
        make(draft)
        files = {path.name: sha256(path) for path in sorted(draft.iterdir())}
        (draft / MANIFEST).write_text(json.dumps({"source": source, "files": files}, indent=1))
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
