"""The tracker that a run's settings ask for."""

from __future__ import annotations

from importlib.util import find_spec

from rose_easyedit.config.checks import setting_faults
from rose_easyedit.errors import RoSEError
from rose_easyedit.tracking.jsonl import JsonlTracker
from rose_easyedit.tracking.tracker import NoTracker, Tracker, TrackingSettings
from rose_easyedit.tracking.wandb_run import WandbTracker


def make_tracker(settings: TrackingSettings) -> Tracker:
    """The tracker that the settings ask for.

    Raises:
        RoSEError: there is no such kind or mode, or W&B is not installed.
    """
    faults = setting_faults(settings, "tracking.")
    tracked = settings.kind == "wandb" and settings.mode != "disabled"
    if tracked and find_spec("wandb") is None:
        faults.append("tracking.kind is 'wandb', which is not installed; pip install wandb")
    if faults:
        raise RoSEError.of("These tracking settings cannot be used:", faults)
    if settings.kind == "jsonl":
        return JsonlTracker(settings)
    if tracked:
        return WandbTracker(settings)
    return NoTracker()
