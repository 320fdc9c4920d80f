"""The numbers that an edit carries with it, as curves of a tracker."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from rose_easyedit.delta import EditDelta
from rose_easyedit.experiment.tracking import Tracker

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
LAYER_MEASURES = ("residual", "update_norm", "rounding_loss")


def log_edit(tracker: Tracker, delta: EditDelta) -> None:
    """Logs the optimisation of both levels, the layers, the facts, and totals of them.

    Curves: `fact/...` against `fact/step` and `subject/...` against `subject/step` (see
    `method.curves.curve_of`; the measures are renamed by `MEASURES`), `layer/...` against `layer`.
    """
    provenance = delta.provenance
    for level, curve in provenance.get("curves", {}).items():
        name = LEVELS[level]
        for step, values in enumerate(zip(*curve.values(), strict=True)):
            point = {
                f"{name}/{MEASURES[measure]}": value
                for measure, value in zip(curve, values, strict=True)
                if value is not None
            }
            tracker.log(point, axis=f"{name}/step", step=step)
    for layer in provenance.get("layers", []):
        point = {f"layer/{measure}": layer[measure] for measure in LAYER_MEASURES}
        tracker.log(point, axis="layer", step=layer["layer"])
    tracker.log_table("facts", ("subject", "prompt", "target", "loss", "steps"), _facts(provenance))
    tracker.summarise(_totals(delta))


def _facts(provenance: Mapping[str, Any]) -> list[list[Any]]:
    """Each request with the loss that it was left with and the steps that its group took."""
    requests = provenance.get("requests", [])
    losses = provenance.get("losses") or [None] * len(requests)
    steps: list[int | None] = [None] * len(requests)
    for indices, taken in zip(
        provenance.get("groups", []), provenance.get("steps", []), strict=True
    ):
        for index in indices:
            steps[index] = taken
    return [
        [request["subject"], request["prompt"], request["target_new"], loss, taken]
        for request, loss, taken in zip(requests, losses, steps, strict=True)
    ]


def _totals(delta: EditDelta) -> dict[str, Any]:
    provenance = delta.provenance
    requests, layers = provenance.get("requests", []), provenance.get("layers", [])
    totals: dict[str, Any] = {
        "edit/facts": len(requests),
        "edit/subjects": len({request["subject"] for request in requests}),
        "edit/parameters": delta.n_parameters,
        "edit/left_out": len(provenance.get("log", [])),
    }
    if losses := provenance.get("losses"):
        totals |= {"edit/loss": fmean(losses), "edit/largest_loss": max(losses)}
    if layers:
        totals["edit/update_norm"] = sum(layer["update_norm"] ** 2 for layer in layers) ** 0.5
    return totals | {
        f"version/{name}": value for name, value in provenance.get("versions", {}).items()
    }
