"""A plain BaseEditor run, logged to the W&B run that the caller has open, or nowhere."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Real
from statistics import fmean
from typing import TYPE_CHECKING, Any

from rose_easyedit.tracking.tracker import Tracker
from rose_easyedit.tracking.wandb_run import open_tracker

if TYPE_CHECKING:
    from rose_easyedit.edits.delta import EditDelta

logger = logging.getLogger(__name__)


def track_edit(delta: EditDelta, tracking: str) -> None:
    """Logs an edit's curves and totals, unless `tracking` is "none"; see `curves.log_edit`."""
    if tracking != "none":
        from rose_easyedit.tracking.curves import log_edit

        _log_to_open_run(lambda tracker: log_edit(tracker, delta))


def track_metrics(metrics: Any, tracking: str) -> None:
    """Logs what EasyEdit measured, unless `tracking` is "none": `easyedit/...` and a table.

    Args:
        metrics: what an editing method of BaseEditor returns: a record per fact, each with "pre",
            "post" and "requested_rewrite".
        tracking: of the settings.
    """
    if tracking != "none" and isinstance(metrics, Sequence):
        _log_to_open_run(lambda tracker: _log_metrics(tracker, metrics))


def _log_to_open_run(log: Callable[[Tracker], None]) -> None:
    """A failure to log is a warning: the edit is what the caller has asked for."""
    try:
        tracker = open_tracker()
        if tracker is not None:
            log(tracker)
    except Exception as error:
        logger.warning("The edit could not be tracked: %s: %s", type(error).__name__, error)


def _log_metrics(tracker: Tracker, metrics: Sequence[Mapping[str, Any]]) -> None:
    scores = [
        dict(_scores({when: record.get(when, {}) for when in ("pre", "post")}))
        for record in metrics
    ]
    names = list(dict.fromkeys(name for of_fact in scores for name in of_fact))
    means = {
        f"easyedit/{name}": fmean(of_fact[name] for of_fact in scores if name in of_fact)
        for name in names
    }
    tracker.summarise(means)
    asked = [record.get("requested_rewrite", {}) for record in metrics]
    rows = [
        [*(request.get(key) for key in ("subject", "prompt", "target_new")), *map(of.get, names)]
        for request, of in zip(asked, scores, strict=True)
    ]
    tracker.log_table("easyedit", ["subject", "prompt", "target", *names], rows)


def _scores(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """Every measure of a record and its mean; EasyEdit lists one value per prompt.

    What it calls an output is token ids, which have no mean.
    """
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not str(key).endswith("_output"):
                yield from _scores(inner, f"{name}/{key}" if name else str(key))
    elif numbers := list(_numbers(value)):
        yield name, fmean(numbers)


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, Real):
        yield float(value)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _numbers(inner)
