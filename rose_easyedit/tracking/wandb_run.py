"""Where a run's numbers go: nowhere, a file of events, or Weights & Biases.

The only module that imports wandb, and only once a run is tracked with it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from rose_easyedit.errors import RoSEError

KINDS = ("none", "jsonl", "wandb")
MODES = ("offline", "online", "disabled")
# An artifact of this kind is what the run was made from; all others came of it.
INPUT_KIND = "requests"
# The summary of a curve, by the last part of its name; of others the last value is kept.
_SUMMARIES = {"loss": "min,last", "kl": "max,last", "norm": "max,last", "residual": "min,last"}


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

    kind: str = "none"
    mode: str = "offline"
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


def make_tracker(settings: TrackingSettings) -> Tracker:
    """The tracker that the settings ask for.

    Raises:
        RoSEError: there is no such kind or mode, or W&B is not installed.
    """
    faults = [
        f"tracking.{name} is {value!r}; choose one of {', '.join(allowed)}"
        for name, value, allowed in (
            ("kind", settings.kind, KINDS),
            ("mode", settings.mode, MODES),
        )
        if value not in allowed
    ]
    tracked = settings.kind == "wandb" and settings.mode != "disabled"
    if tracked and find_spec("wandb") is None:
        faults.append("tracking.kind is 'wandb', which is not installed; pip install wandb")
    if faults:
        raise RoSEError.of("These tracking settings cannot be used:", faults)
    if settings.kind == "jsonl":
        from rose_easyedit.tracking.jsonl import JsonlTracker

        return JsonlTracker(settings)
    if tracked:
        return WandbTracker(settings)
    return NoTracker()


def wandb_error() -> type[Exception]:
    """What W&B raises: not logged in, no such project."""
    import wandb

    return wandb.Error


def open_tracker() -> WandbTracker | None:
    """A tracker of the W&B run that the caller has open; None if there is none.

    W&B is not imported for it: a caller with an open run has done so.
    """
    run = getattr(sys.modules.get("wandb"), "run", None)
    return None if run is None else WandbTracker(TrackingSettings(kind="wandb"), run)


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


class WandbTracker:
    """A run of Weights & Biases of its own, or the one that a caller has open.

    Offline no network is touched: the run's folder gets the files that `wandb sync` sends. A retry
    has the id of the run that it repeats (`wandb_id`).

    Args:
        settings: where the run goes.
        run: an open run to write to, which `start` and `finish` then leave to its owner.
    """

    def __init__(self, settings: TrackingSettings, run: Any = None) -> None:
        self._settings = settings
        self._run = run
        self._owned = run is None
        self._defined: set[str] = set()
        self._origins: dict[str, int] = {}

    def start(self, run: RunInfo) -> None:
        if not self._owned:
            return
        if self._settings.mode == "offline":
            # W&B reports on itself over the network even while a run is offline
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        place = {name: getattr(self._settings, name) for name in ("project", "entity", "mode")}
        self._run = wandb.init(
            **{**run_names(self._settings, run), "id": wandb_id(run)},
            **place,
            dir=run.folder,
            config=dict(run.config),
            resume="allow",
            reinit="create_new",  # a run that the caller has open stays as it is
            settings=wandb.Settings(
                console="off",
                quiet=True,
                silent=True,
                save_code=False,
                disable_code=True,
                disable_git=True,
                disable_job_creation=True,
            ),
        )

    def log(self, values: Mapping[str, float], *, axis: str, step: int) -> None:
        self._define(axis)
        for name in values:
            self._define(name, axis)
        self._run.log({axis: self._origin(axis) + step, **values})

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        import wandb

        data = [list(row) for row in rows]
        table = wandb.Table(columns=list(columns), data=data, allow_mixed_types=True)
        self._run.log({name: table})

    def log_figure(self, name: str, path: Path) -> None:
        import wandb

        self._run.log({name: wandb.Image(str(path))})

    def log_artifact(self, name: str, kind: str, path: Path, metadata: Mapping[str, Any]) -> None:
        import wandb

        artifact = wandb.Artifact(name, kind, metadata=dict(metadata))
        # not copied: a copy would lie in the home folder, out of reach once the run is moved
        artifact.add_file(str(path.resolve()), policy="immutable")
        if kind != INPUT_KIND:
            self._run.log_artifact(artifact)
        elif self._run.offline:
            # `use_artifact` waits for a server; this is what it does before, and sync does the rest
            self._run._log_artifact(artifact, is_user_created=True, use_after_commit=True)
        else:
            self._run.use_artifact(artifact)

    def summarise(self, values: Mapping[str, Any]) -> None:
        self._run.summary.update(dict(values))

    def finish(self, failed: bool = False) -> None:
        if self._owned and self._run is not None:
            self._run.finish(exit_code=int(failed))

    def _define(self, name: str, axis: str | None = None) -> None:
        if name not in self._defined:
            self._defined.add(name)
            summary = _SUMMARIES.get(name.rpartition("/")[2])
            self._run.define_metric(name, step_metric=axis, summary=summary)

    def _origin(self, axis: str) -> int:
        """Where the axis begins: in a run of a caller with several edits, after the last one."""
        if axis not in self._origins:
            last = None if self._owned else self._run.summary.get(axis)
            self._origins[axis] = 0 if last is None or not axis.endswith("/step") else last + 1
        return self._origins[axis]


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


def wandb_id(run: RunInfo) -> str:
    """W&B's id of the run: sweeps that share a run on disk have one each, in their own groups."""
    return f"{run.id}-{sha256(run.group.encode()).hexdigest()[:6]}"
