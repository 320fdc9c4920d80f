"""A run's numbers in Weights & Biases.

The only module that imports wandb, and only once a run is tracked with it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from rose_easyedit.tracking.tracker import INPUT_KIND, RunInfo, TrackingSettings, run_names

# The summary of a curve, by the last part of its name; of others the last value is kept.
_SUMMARIES = {"loss": "min,last", "kl": "max,last", "norm": "max,last", "residual": "min,last"}


def wandb_error() -> type[Exception]:
    """What W&B raises: not logged in, no such project."""
    import wandb

    found: type[Exception] = wandb.Error
    return found


def open_tracker() -> WandbTracker | None:
    """A tracker of the W&B run that the caller has open; None if there is none.

    W&B is not imported for it: a caller with an open run has done so.
    """
    run = getattr(sys.modules.get("wandb"), "run", None)
    return None if run is None else WandbTracker(TrackingSettings(kind="wandb"), run)


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


def wandb_id(run: RunInfo) -> str:
    """W&B's id of the run: sweeps that share a run on disk have one each, in their own groups."""
    return f"{run.id}-{sha256(run.group.encode()).hexdigest()[:6]}"
