"""The numbers that an edit carries with it, as curves of a tracker."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.edits.provenance import Provenance, SelfCheckRecord
from rose_easyedit.tracking.tracker import Tracker

# Level of the optimisation, as the edit has it, and as the names of curves begin.
LEVELS = {"facts": "fact", "subjects": "subject"}
# Measure of a step, as the edit has it, and as it is logged.
MEASURES = {
    "loss": "loss",
    "drift": "kl",
    "norm": "norm",
    "groups": "active_groups",
    "facts": "active_facts",
}
# What an edit's check of itself says of each fact.
FACT_MEASURES = ("reached", "least_reached", "written", "answered")
LAYER_MEASURES = ("residual", "update_norm", "rounding_loss")


def log_edit(tracker: Tracker, delta: EditDelta) -> None:
    """Logs the optimisation of both levels, the layers, the facts, and totals of them.

    Curves: `fact/...` against `fact/step` and `subject/...` against `subject/step` (see
    `trajectory.curve_of`; the measures are renamed by `MEASURES`), `layer/...` against `layer`.
    Totals are `edit/...`, those of its check of itself `check/...`.
    """
    provenance = delta.provenance
    for level, curve in provenance.curves.items():
        name = LEVELS[level]
        for step, values in enumerate(zip(*curve.values(), strict=True)):
            point = {
                f"{name}/{MEASURES[measure]}": value
                for measure, value in zip(curve, values, strict=True)
                if value is not None
            }
            tracker.log(point, axis=f"{name}/step", step=step)
    for layer in provenance.layers:
        point = {f"layer/{measure}": getattr(layer, measure) for measure in LAYER_MEASURES}
        tracker.log(point, axis="layer", step=layer.layer)
    columns = ("subject", "prompt", "target", "loss", "steps", *FACT_MEASURES)
    tracker.log_table("facts", columns, _facts(provenance))
    tracker.summarise(_totals(delta))


def _facts(provenance: Provenance) -> list[list[Any]]:
    """Each request with its loss, the steps that its group took, and what became of it."""
    requests = provenance.requests
    losses: Sequence[float | None] = provenance.losses or [None] * len(requests)
    steps: list[int | None] = [None] * len(requests)
    for indices, taken in zip(provenance.groups, provenance.steps, strict=True):
        for index in indices:
            steps[index] = taken
    check = provenance.self_check
    checked = check.facts if check and check.facts else [{} for _ in requests]
    return [
        [
            *(request[name] for name in ("subject", "prompt", "target_new")),
            *(loss, taken),
            *map(fact.get, FACT_MEASURES),
        ]
        for request, loss, taken, fact in zip(requests, losses, steps, checked, strict=True)
    ]


def _totals(delta: EditDelta) -> dict[str, Any]:
    provenance = delta.provenance
    requests, layers = provenance.requests, provenance.layers
    totals: dict[str, Any] = {
        "edit/facts": len(requests),
        "edit/subjects": len({request["subject"] for request in requests}),
        "edit/parameters": delta.n_parameters,
        "edit/left_out": len(provenance.log),
    }
    if losses := provenance.losses:
        totals |= {"edit/loss": fmean(losses), "edit/largest_loss": max(losses)}
    if layers:
        totals["edit/update_norm"] = sum(layer.update_norm**2 for layer in layers) ** 0.5
    if checked := provenance.self_check:
        totals |= _checked(checked)
    return totals | {f"version/{name}": value for name, value in provenance.versions.items()}


def _checked(checked: SelfCheckRecord) -> dict[str, Any]:
    """Totals of what an edit's check of itself found; what is not finite is left out."""
    columns = {
        measure: [fact[measure] for fact in checked.facts if fact[measure] is not None]
        for measure in FACT_MEASURES
    }
    totals = {f"check/{measure}": fmean(column) for measure, column in columns.items() if column}
    for name, drift in checked.drift.items():
        totals |= {f"check/{name}_{measure}": drift[measure] for measure in ("kl", "top1")}
    totals["check/warnings"] = len(checked.warnings)
    return {name: value for name, value in totals.items() if value is not None}
