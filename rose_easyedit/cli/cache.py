"""`rose-edit cache`: what is kept on this machine so that it need not be computed again."""

from __future__ import annotations

import math
import shutil
import stat
from argparse import Namespace
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rose_easyedit.cache import limit
from rose_easyedit.cli import output
from rose_easyedit.config.paths import cache_dir
from rose_easyedit.errors import RoSEError

# Of each folder of the cache; all of it is made again when it is needed.
PARTS: Mapping[str, str] = {
    "models": "models that were expanded out of packages and GGUF files",
    **limit.PARTS,
    "families": "small models of every family, of the benchmarks",
}


def cache(arguments: Namespace) -> None:
    """Shows the parts of the cache and their sizes, or removes some of them."""
    folder = cache_dir()
    chosen = arguments.clear if arguments.clear is not None else []
    if unknown := sorted(set(chosen) - set(PARTS)):
        raise RoSEError(
            f"--clear {' '.join(unknown)}: the cache has no such part; it has {', '.join(PARTS)}."
        )
    entries = limit.Limit.of_cache()
    cleared = [] if arguments.clear is None else list(chosen or PARTS)
    freed = sum(_bytes(folder / name) for name in cleared)
    for name in cleared:
        _remove(folder / name)
    report = {
        "folder": str(folder),
        "limit": entries.most,  # null where there is none
        "entries": entries.used(),
        "parts": {name: _bytes(folder / name) for name in PARTS},
        "cleared": cleared,
        "freed": freed,
    }
    output.show(report, arguments.json, _print)


def _print(report: Mapping[str, Any], console: Any) -> None:
    output.line(console, str(report["folder"]))
    for name, size in report["parts"].items():
        output.line(console, f"  {name:<11}{output.size(size):>9}  {PARTS[name]}")
    most = report["limit"]
    of_most = "without a limit" if math.isinf(most) else f"of at most {output.size(most)}"
    output.line(
        console,
        f"entries, which is all but models: {output.size(report['entries'])} {of_most} "
        f"({limit.VARIABLE}, in GB); those used least recently go first",
    )
    if report["cleared"]:
        names = ", ".join(report["cleared"])
        output.line(console, f"cleared {names}: {output.size(report['freed'])}")


def _bytes(folder: Path) -> int:
    """Of all regular files in a folder; links are not followed."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # another process has removed it meanwhile
            found = path.lstat()
            total += found.st_size if stat.S_ISREG(found.st_mode) else 0
    return total


def _remove(folder: Path) -> None:
    """Removes a folder; of a link that stands in its place, the link alone."""
    if folder.is_symlink():
        folder.unlink()
        return
    while folder.exists():
        with suppress(FileNotFoundError):  # another process has removed a part of it
            shutil.rmtree(folder)
