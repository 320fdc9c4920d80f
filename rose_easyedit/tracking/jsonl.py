"""A run's numbers as a file of events, one JSON object a line."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rose_easyedit.files.plain import plain
from rose_easyedit.files.writing import append_whole
from rose_easyedit.tracking.tracker import RunInfo, TrackingSettings, run_names

METRICS_FILE = "metrics.jsonl"


class JsonlTracker:
    """Appends one JSON object per event to `metrics.jsonl` in the run's folder.

    A run that is tried again adds to its file; its last `config` event begins the last attempt.
    """

    def __init__(self, settings: TrackingSettings) -> None:
        self._settings = settings
        self._folder = Path()

    def start(self, run: RunInfo) -> None:
        self._folder = run.folder
        known = {**run_names(self._settings, run), "config": run.config, "time": time.time()}
        self._write("config", **known)

    def log(self, values: Mapping[str, float], *, axis: str, step: int) -> None:
        self._write("log", axis=axis, step=step, values=dict(values))

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        self._write("table", name=name, columns=list(columns), rows=[list(row) for row in rows])

    def log_figure(self, name: str, path: Path) -> None:
        self._write("figure", name=name, path=self._place(path))

    def log_artifact(self, name: str, kind: str, path: Path, metadata: Mapping[str, Any]) -> None:
        self._write(
            "artifact", name=name, kind=kind, path=self._place(path), metadata=dict(metadata)
        )

    def summarise(self, values: Mapping[str, Any]) -> None:
        self._write("summary", values=dict(values))

    def finish(self, failed: bool = False) -> None:
        self._write("finish", failed=failed, time=time.time())

    def _place(self, path: Path) -> str:
        """The path from the run's folder, where it lies in it: folders are moved about."""
        inside = path.resolve().is_relative_to(self._folder.resolve())
        return os.path.relpath(path, self._folder) if inside else str(path)

    def _write(self, event: str, **content: Any) -> None:
        line = json.dumps(plain({"event": event, **content}), ensure_ascii=False, default=str)
        append_whole(self._folder / METRICS_FILE, f"{line}\n".encode())
