"""Shifts on disk: a chunk of groups that was optimised before is read instead, the same bytes.

The optimisation is by far the costly part of an edit and does not depend on `alignment`, so edits
that differ in that alone, and hierarchies that share the fact level, pay for it once. A chunk is
kept as soon as it is finished, and where an interrupt has cut one off, what it has come to: an edit
that was interrupted goes on there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rose_easyedit.cache.entries import Cache, CacheEntry, key_of
from rose_easyedit.config.paths import cache_dir
from rose_easyedit.config.results_version import EDITS
from rose_easyedit.method.stage1.checkpoint import Checkpoint
from rose_easyedit.method.stage1.integration import chunks
from rose_easyedit.method.stage1.pieces import Group
from rose_easyedit.method.stage1.setting import Level, Setting
from rose_easyedit.method.stage1.shifts import Shifts
from rose_easyedit.models.fingerprint import weights_fingerprint

FORMAT = "rose_easyedit.shifts/5"

Optimise = Callable[[Setting, Sequence[Group], Tensor, Level], Shifts]


def default_folder() -> Path:
    """Where experiments, and edits by several processes, keep shifts; not created here."""
    return cache_dir() / "shifts"


def level_key(setting: Setting, level: Level, computation: str) -> str:
    """Of all that an optimisation depends on but its groups."""
    hierarchy = asdict(setting.hparams)
    for name in ("integration", "fact_steps", "subject_steps"):
        del hierarchy[name]  # they choose what is optimised; `level` has the steps
    for name in ("fact_learning_rate", "subject_learning_rate", "smoothing_radius"):
        del hierarchy[name]  # `level` has the one that counts
    del hierarchy["lone_fact_share"]  # each group has its own
    with setting.autocast():
        autocast = torch.is_autocast_enabled(setting.editable.device.type)
    parts: dict[str, Any] = {
        "format": FORMAT,
        "versions": [version(name) for name in ("torch", "transformers")],
        "edits": EDITS,
        "model": computation,
        "device": setting.editable.device.type,
        "threads": torch.get_num_threads(),  # they change the order of sums
        "autocast": autocast,
        "layer": setting.layer,
        "unit": weights_fingerprint([("unit", setting.unit)]),
        "micro_batch": setting.micro_batch,
        "seed": setting.seed,
        "hierarchy": hierarchy,
        "level": asdict(level),
    }
    return key_of(parts)


def chunk_key(key: str, groups: Sequence[Group], start: Tensor) -> str:
    """Of a chunk, from the key of its level, its groups and where they begin, [n, d]."""
    beginning = weights_fingerprint([("start", start)])
    return key_of([key, [asdict(group) for group in groups], beginning])


class ShiftStore:
    """A folder of shifts, a file for each chunk that was optimised."""

    def __init__(self, folder: Path) -> None:
        self.entries = Cache(folder)

    def through(
        self,
        optimise: Optimise,
        setting: Setting,
        groups: Sequence[Group],
        start: Tensor,
        level: Level,
        computation: str,
    ) -> Shifts:
        """The shifts of groups, chunk by chunk: read, or else optimised and kept.

        Args:
            optimise: finds the shifts of a chunk; it and the others are as `optimise` has them.
            setting: the model and the loss.
            groups: n groups.
            start: where each begins, [n, d].
            level: steps, rate and smoothing.
            computation: the model's `computation_fingerprint`.
        """
        of_level = level_key(setting, level, computation)
        setting = replace(setting, unfinished=_Unfinished(self.entries, of_level))
        parts = []
        for chunk in chunks(setting, groups, level):
            members = [groups[i] for i in chunk]
            key = chunk_key(of_level, members, start[chunk])
            found = self.load(key)
            if found is None or not found.fit(members, start[chunk]):
                found = optimise(setting, members, start[chunk], level)
                self.save(key, found)
            else:
                setting.on_step(len(chunk) * level.steps)
            parts.append((chunk, replace(found, deltas=found.deltas.to(start.device))))
        return Shifts.of_parts(parts)

    def load(self, key: str) -> Shifts | None:
        """What is kept under a key; None if nothing is, or what is there is damaged."""
        return self.entries.read(key, lambda entry: Shifts.from_tensors(entry.tensors))

    def save(self, key: str, shifts: Shifts) -> None:
        """Keeps shifts; says so where it cannot."""
        self.entries.write(key, CacheEntry(shifts.as_tensors()))


class _Unfinished:
    """What interrupts have cut off, in the folder of the shifts that will take its place."""

    def __init__(self, entries: Cache, level: str) -> None:
        self._entries, self._level = entries, level

    def load(self, setting: Setting, groups: Sequence[Group], start: Tensor) -> Checkpoint | None:
        key = self._key(setting, groups, start)
        return self._entries.read(key, lambda entry: Checkpoint.from_tensors(entry.tensors))

    def save(
        self, setting: Setting, groups: Sequence[Group], start: Tensor, reached: Checkpoint
    ) -> None:
        self._entries.write(self._key(setting, groups, start), CacheEntry(reached.as_tensors()))

    def drop(self, setting: Setting, groups: Sequence[Group], start: Tensor) -> None:
        self._entries.drop(self._key(setting, groups, start))

    def _key(self, setting: Setting, groups: Sequence[Group], start: Tensor) -> str:
        # of a memory that holds fewer sequences at once, a chunk is another one
        return "begun-" + chunk_key(f"{self._level} {setting.micro_batch}", groups, start)
