"""The curves of a run, from the events that it left or from the edit that it made."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rose_easyedit.files.reading import inside, read_text
from rose_easyedit.tracking.jsonl import METRICS_FILE
from rose_easyedit.tracking.layout import DELTA_FILE
from rose_easyedit.tracking.tracker import NoTracker

# Name of a curve, as it is logged (`curves.log_edit`), to its points.
Curves = Mapping[str, list[tuple[float, float]]]


def read_curves(folder: Path, has_edit: bool = True) -> Curves:
    """What was logged against the steps and the layers; the same from either file.

    Args:
        folder: of the run.
        has_edit: whether it leaves an edit; without one there are only events, if any.

    Raises:
        RoSEError: there are no events, and the edit is missing or damaged.
        ValueError, KeyError, TypeError, AttributeError: the events are not such a file.
    """
    points = _Points()
    if (folder / METRICS_FILE).is_file():
        points.replay(inside(folder, folder / METRICS_FILE))
    elif has_edit:
        from rose_easyedit.edits.delta import EditDelta
        from rose_easyedit.tracking.curves import log_edit

        log_edit(points, EditDelta.load(inside(folder, folder / DELTA_FILE)))
    return points.curves


class _Points(NoTracker):
    """Keeps the points of curves that it is told of, of those that can be drawn."""

    def __init__(self) -> None:
        self.curves: dict[str, list[tuple[float, float]]] = defaultdict(list)

    def log(self, values: Mapping[str, float], *, axis: str, step: int) -> None:
        for name, value in values.items():
            point = (float(step), float(value))
            if all(map(math.isfinite, point)):
                self.curves[name].append(point)

    def replay(self, path: Path) -> None:
        """Takes the events of the last attempt."""
        for line in read_text(path).splitlines():
            event: dict[str, Any] = json.loads(line)
            if event["event"] == "config":
                self.curves.clear()
            elif event["event"] == "log":
                values = {name: v for name, v in event["values"].items() if v is not None}
                self.log(values, axis=event["axis"], step=event["step"])
