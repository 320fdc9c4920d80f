"""Where a run's numbers go: nowhere, a file of events, or Weights & Biases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from rose_easyedit.config.rules import setting

KINDS = ("none", "jsonl", "wandb")
MODES = ("offline", "online", "disabled")
# An artifact of this kind is what the run was made from; all others came of it.
INPUT_KIND = "requests"


@dataclass
class TrackingSettings:
    """Where a run's numbers go.

    Attributes:
        kind: `none`, `jsonl` (metrics.jsonl in the run's folder) or `wandb`.
        mode: of W&B: `offline` (files in the run's folder, for `wandb sync`), `online`, or
            `disabled` (as kind `none`).
        project: W&B's project.
        entity: W&B's user or team; null is the user's default.
        group: of the run; null is the sweep's.
        tags: of the run.
        notes: of the run.
    """

    kind: str = setting("none", words=KINDS)
    mode: str = setting("offline", words=MODES)
    project: str = "rose-easyedit"
    entity: str | None = None
    group: str | None = None
    tags: list[str] = field(default_factory=list)
    notes: str = ""


@dataclass(frozen=True)
class RunInfo:
    """What is known of a run when it starts.

    Attributes:
        id: the same for every attempt at the run.
        name: for people.
        group: what it is compared with: its sweep.
        job_type: its method.
        tags: beside those of the settings.
        notes: beside those of the settings.
        folder: where it writes; exists.
        config: everything that determines it, as plain data.
    """

    id: str
    name: str
    group: str
    job_type: str
    tags: tuple[str, ...]
    notes: str
    folder: Path
    config: Mapping[str, Any]


class Tracker(Protocol):
    """Takes what a run has to say; `start` comes first, `finish` last, once each."""

    def start(self, run: RunInfo) -> None:
        """Opens the record of a run, with its configuration."""

    def log(self, values: Mapping[str, float], *, axis: str, step: int) -> None:
        """Adds a point to some curves, at `step` of an axis of theirs."""

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Adds a table; cells are text, numbers, truth values or None."""

    def log_figure(self, name: str, path: Path) -> None:
        """Adds a PNG."""

    def log_artifact(self, name: str, kind: str, path: Path, metadata: Mapping[str, Any]) -> None:
        """Adds a file that the run was made from (kind `requests`) or that came of it."""

    def summarise(self, values: Mapping[str, Any]) -> None:
        """Adds single values of the run."""

    def finish(self, failed: bool = False) -> None:
        """Closes the record."""


class NoTracker:
    """Does nothing."""

    def start(self, run: RunInfo) -> None:
        return

    def log(self, values: Mapping[str, float], *, axis: str, step: int) -> None:
        return

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        return

    def log_figure(self, name: str, path: Path) -> None:
        return

    def log_artifact(self, name: str, kind: str, path: Path, metadata: Mapping[str, Any]) -> None:
        return

    def summarise(self, values: Mapping[str, Any]) -> None:
        return

    def finish(self, failed: bool = False) -> None:
        return


def run_names(settings: TrackingSettings, run: RunInfo) -> dict[str, Any]:
    """What names the run: its own, and what the settings add or put in its place."""
    return {
        "id": run.id,
        "name": run.name,
        "group": settings.group or run.group,
        "job_type": run.job_type,
        "tags": list(dict.fromkeys([*run.tags, *settings.tags])),
        "notes": "\n".join(filter(None, [run.notes, settings.notes])),
    }
