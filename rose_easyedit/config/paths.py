"""Where the shipped settings and the user's cache are."""

from __future__ import annotations

import os
from pathlib import Path

from rose_easyedit.errors import RoSEError


def conf_dir() -> Path:
    """The folder of Hydra groups and method presets."""
    return _shipped("conf")


def hparams_dir() -> Path:
    """The folder that holds one group of settings files per method (`RoSE/`)."""
    return _shipped("hparams")


def cache_dir() -> Path:
    """Where converted models and statistics are kept; not created here.

    `ROSE_EASYEDIT_CACHE` names it outright, else it is `rose-easyedit` in `XDG_CACHE_HOME` or in
    `~/.cache`.

    Raises:
        RoSEError: none is named and the user has no home.
    """
    named = os.environ.get("ROSE_EASYEDIT_CACHE")
    if named:
        return Path(named).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(base).expanduser() / "rose-easyedit"
    except RuntimeError as error:  # a user without a home, in a container say
        raise RoSEError(
            f"There is no home folder to keep a cache in ({error}); set ROSE_EASYEDIT_CACHE."
        ) from error


def _shipped(name: str) -> Path:
    """A wheel has the folder inside the package, a checkout beside it."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / name, package.parent / name):
        if folder.is_dir():
            return folder
    raise RoSEError(
        f"The {name}/ folder is missing from this installation of rose_easyedit (looked in "
        f"{package} and beside it); install the package again."
    )
