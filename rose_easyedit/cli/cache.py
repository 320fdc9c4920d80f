"""`rose-edit cache`: what is kept on this machine so that it need not be computed again."""

from __future__ import annotations

import shutil
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rose_easyedit.cli import output
from rose_easyedit.config.paths import cache_dir
from rose_easyedit.errors import RoSEError

# What each folder of the cache holds; all of it is made again when it is needed.
PARTS: Mapping[str, str] = {
    "models": "models that were expanded out of packages and GGUF files",
    "statistics": "the directions of generic keys, for each model and text",
    "shifts": "what sweeps and edits have optimised, whole or up to an interrupt",
    "evaluation": "answers of unedited models",
    "memory": "the solved edits of memories",
    "layers": "the layers that causal tracing found, for each model",
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
    cleared = [] if arguments.clear is None else list(chosen or PARTS)
    freed = sum(_bytes(folder / name) for name in cleared)
    for name in cleared:
        _remove(folder / name)
    report = {
        "folder": str(folder),
        "parts": {name: _bytes(folder / name) for name in PARTS},
        "cleared": cleared,
        "freed": freed,
    }
    output.show(report, arguments.json, _print)


def _print(report: Mapping[str, Any], console: Any) -> None:
    output.line(console, str(report["folder"]))
    for name, size in report["parts"].items():
        output.line(console, f"  {name:<11}{output.size(size):>9}  {PARTS[name]}")
    if report["cleared"]:
        names = ", ".join(report["cleared"])
        output.line(console, f"cleared {names}: {output.size(report['freed'])}")


def _bytes(folder: Path) -> int:
    """Of all regular files in a folder; links are not followed."""
    files = (path for path in folder.rglob("*") if not path.is_symlink())
    return sum(path.stat().st_size for path in files if path.is_file())


def _remove(folder: Path) -> None:
    """Removes a folder; of a link that stands in its place, the link alone."""
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)
