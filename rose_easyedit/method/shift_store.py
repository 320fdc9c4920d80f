"""Shifts on disk: a level that was optimised before is read instead, with the same bytes.

The optimisation is by far the costly part of an edit and does not depend on `alignment`, so edits
that differ in that alone, and hierarchies that share the fact level, pay for it once.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from rose_easyedit.files import write_whole
from rose_easyedit.fingerprint import model_fingerprint, weights_fingerprint
from rose_easyedit.method.integration import Level, Setting, Shifts
from rose_easyedit.method.pieces import Group
from rose_easyedit.paths import cache_dir

logger = logging.getLogger(__name__)

FORMAT = "rose_easyedit.shifts/1"


def default_folder() -> Path:
    """Where experiments keep shifts; not created here."""
    return cache_dir() / "shifts"


def shifts_key(setting: Setting, groups: Sequence[Group], start: Tensor, level: Level) -> str:
    """Of all that an optimisation depends on: what `optimise` is given, and what computes it."""
    method = Path(__file__).parent
    hierarchy = asdict(setting.hparams)
    for name in ("integration", "fact_steps", "subject_steps"):
        del hierarchy[name]  # they choose what is optimised; `level` has the steps
    for name in ("fact_learning_rate", "subject_learning_rate", "smoothing_radius"):
        del hierarchy[name]  # `level` has the one that counts
    with setting.autocast():
        autocast = torch.is_autocast_enabled(setting.editable.device.type)
    parts: dict[str, Any] = {
        "format": FORMAT,
        "versions": [version(name) for name in ("torch", "transformers")],
        "code": [hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(method.glob("*.py"))],
        "model": model_fingerprint(setting.editable.model),
        "device": setting.editable.device.type,
        "threads": torch.get_num_threads(),  # they change the order of sums
        "autocast": autocast,
        "layer": setting.layer,
        "micro_batch": setting.micro_batch,
        "seed": setting.seed,
        "hierarchy": hierarchy,
        "level": asdict(level),
        "groups": [asdict(group) for group in groups],
        "start": weights_fingerprint([("start", start)]),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


class ShiftStore:
    """A folder of shifts, a file for each level that was optimised."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, key: str) -> Shifts | None:
        """What is kept under a key; None if nothing is, or what is there is damaged."""
        path = self._path(key)
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                deltas, record = file.get_tensor("deltas"), file.metadata()
            if record["sha256"] != _digest(deltas, record[FORMAT]):
                raise ValueError("its content has changed")
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            logger.warning("%s is damaged (%s); it is computed again", path, error)
            return None
        return Shifts(deltas, **json.loads(record[FORMAT]))

    def save(self, key: str, shifts: Shifts) -> None:
        """Keeps shifts; says so where it cannot."""
        deltas = shifts.deltas.float().cpu().contiguous()
        rest = {"losses": shifts.losses, "steps": shifts.steps, "curves": shifts.curves}
        record = json.dumps(rest)
        content = save({"deltas": deltas}, {FORMAT: record, "sha256": _digest(deltas, record)})
        try:
            write_whole(self._path(key), content)
        except OSError as error:
            logger.warning("the shifts are not kept: %s", error)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"


def _digest(deltas: Tensor, record: str) -> str:
    return hashlib.sha256(f"{weights_fingerprint([('d', deltas)])}:{record}".encode()).hexdigest()
