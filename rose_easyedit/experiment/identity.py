"""What makes two runs the same: their settings, the files these name, and the results' version."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rose_easyedit.config.results_version import EDITS, EVALUATIONS
from rose_easyedit.easyedit.importing import easyeditor_folder
from rose_easyedit.experiment.schema import SOURCES, ExperimentConfig

# Where a run writes, and whether it is done again, change nothing of what it finds.
_NO_PART_OF_IT = ("name", "folder", "resume", "cache", "tracking", "seed")
_LENGTH = 12


def run_id(config: ExperimentConfig) -> str:
    """A name for everything that a run's results depend on, but the versions of other packages."""
    parts = {
        "config": determinants(config),
        "files": dict(_files(config)),
        "version": results_version(),
    }
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:_LENGTH]


def determinants(config: ExperimentConfig) -> dict[str, Any]:
    """The settings that results depend on, as plain data; `seed` is in its places already."""
    values = asdict(config)
    for name in _NO_PART_OF_IT:
        del values[name]
    del values["hparams"]["tracking"]
    if not config.evaluation.geometry:
        del values["evaluation"]["diagnosis"]
    return values


def results_version() -> str:
    """Which version of the method, and of its evaluation, results are of."""
    return f"{version('rose-easyedit')}, edits {EDITS}, evaluations {EVALUATIONS}"


@cache
def _easyeditor() -> str | None:
    """A digest of the EasyEdit that an import would find: the release and a clone differ."""
    root = easyeditor_folder()
    if root is None:
        return None
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _files(config: ExperimentConfig) -> Iterator[tuple[str, Any]]:
    """What the files that the settings name hold; of a model's folder, its files' sizes and times.

    Weights are too large to be read for this.
    """
    from rose_easyedit.method.generic import statistics_path

    texts: dict[str, Path] = {}
    alignment = config.hparams.alignment
    for text in (alignment.statistics_text, alignment.statistics_subjects):
        if text is not None:
            texts[text] = statistics_path(text, config.hparams.model_name)
    if config.data.source not in SOURCES:
        texts[config.data.source] = Path(config.data.source)
    if config.easyedit.algorithm is not None:
        yield "easyeditor", _easyeditor()
        if config.easyedit.file is not None:
            texts[config.easyedit.file] = Path(config.easyedit.file)
    for name, path in texts.items():
        if path.is_file():
            yield name, hashlib.sha256(path.read_bytes()).hexdigest()
    folder = Path(config.hparams.model_name)
    if folder.is_dir():
        files = [(path, path.stat()) for path in sorted(folder.iterdir()) if path.is_file()]
        yield str(folder), [(path.name, stat.st_size, stat.st_mtime_ns) for path, stat in files]
