"""What the record in an edit's file must be: whole, and of the types that are worked with.

A file may come from anywhere. What passes here can be shown, applied and evaluated without a
further look at its types.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rose_easyedit.errors import RoSEError, shown
from rose_easyedit.models.fingerprint import weights_fingerprint
from rose_easyedit.requests import EditRequest

_MAPPINGS = ("hparams", "versions", "curves", "template_arguments")
_TEXTS = ("architecture", "dtype")
_OF_FACT = ("reached", "least_reached", "written", "answered")
_OF_DRIFT = ("kl", "top1", "prompts")
_LIMITS = ("most_loss", "least_reached", "most_drift", "most_neighbour_drift")
_REPLACED = ("subject", "prompt", "old", "new")


def record_digest(record: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of all that a file holds: its record but for the entry `sha256`, and its tensors."""
    rest = {name: value for name, value in record.items() if name != "sha256"}
    text = json.dumps(rest, ensure_ascii=True, sort_keys=True)
    return hashlib.sha256(f"{weights_fingerprint(tensors.items())}:{text}".encode()).hexdigest()


def record_faults(record: Any) -> list[str]:
    """Every entry of a record that is missing or of another type than an edit's."""
    if not isinstance(record, dict):
        return [f"its record is {shown(record)}, not a mapping"]
    wanted = {"base": str, "sha256": str, "layers": dict, "provenance": dict}
    faults = [
        f"{name} is {shown(record.get(name))}, not {'text' if kind is str else 'a mapping'}"
        for name, kind in wanted.items()
        if not isinstance(record.get(name), kind)
    ]
    if faults:
        return faults
    faults += [
        f"whether {shown(name)} is transposed is {shown(value)}, not true or false"
        for name, value in record["layers"].items()
        if not isinstance(value, bool)
    ]
    return faults + _provenance_faults(record["provenance"])


def targets_faults(targets: Tensor | None, groups: Sequence[Any] | None) -> list[str]:
    """What is wrong with the targets of an edit [n, d], one for each of its groups."""
    if targets is None:
        return []
    if targets.dim() != 2 or targets.dtype != torch.float32:
        return [f"targets: {tuple(targets.shape)} of type {targets.dtype}"]
    if groups is not None and len(groups) != len(targets):
        return [f"targets: {len(targets)}, but there are {len(groups)} groups"]
    return [] if bool(targets.isfinite().all()) else ["targets: numbers that are not finite"]


def _provenance_faults(provenance: Mapping[str, Any]) -> list[str]:
    """Entries that an edit knows; they may be missing, and there may be others."""
    faults = []

    def check(name: str, right: bool, wanted: str) -> None:
        if not right:
            faults.append(f"{name} is {shown(provenance[name])}, not {wanted}")

    for name in _MAPPINGS:
        check(name, isinstance(provenance.get(name, {}), dict), "a mapping")
    for name in _TEXTS:
        check(name, isinstance(provenance.get(name, ""), str), "text")
    check("log", _is_list(provenance.get("log", []), str), "a list of texts")
    check("layers", _is_list(provenance.get("layers", []), dict), "a list of mappings")
    replaced = provenance.get("replaced", [])
    right = _is_list(replaced, dict) and all(
        isinstance(change.get(name), str) for change in replaced for name in _REPLACED
    )
    check("replaced", right, f"a list of mappings with {', '.join(_REPLACED)}")
    # `${...}` is a reference to the reader's own environment, not a value
    if "${" in json.dumps(provenance.get("hparams", {})):
        faults.append("hparams holds a reference (`${...}`) in place of a value")
    requests = provenance.get("requests", [])
    if not _is_list(requests, dict):
        check("requests", False, "a list of mappings")
        return faults
    for index, request in enumerate(requests):
        try:
            EditRequest.from_mapping(request)
        except RoSEError as error:
            faults.append(f"request {index}: {error}")
    losses = provenance.get("losses", [])
    right = _is_list(losses, (int, float, type(None))) and len(losses) in (0, len(requests))
    right = right and not any(isinstance(loss, int) and abs(loss) > 10**9 for loss in losses)
    check("losses", right, f"{len(requests)} numbers, one for each request")
    n_losses = len(losses) if isinstance(losses, list) else 0
    faults += _self_check_faults(provenance.get("self_check"), len(requests), n_losses)
    groups = provenance.get("groups", [])
    right = _is_list(groups, list) and all(_are_places(group, len(requests)) for group in groups)
    check("groups", right, f"lists of request numbers below {len(requests)}")
    steps = provenance.get("steps", [])
    right = _is_list(steps, int) and isinstance(groups, list) and len(steps) in (0, len(groups))
    check("steps", right, "whole numbers, one for each group")
    return faults


def _self_check_faults(checked: Any, n_requests: int, n_losses: int) -> list[str]:
    """What is wrong with what an edit says that its check of itself found, if it says so."""
    if checked is None:
        return []
    right = isinstance(checked, dict) and _is_list(checked.get("warnings"), str)
    if right:
        facts, drift, limits = (checked.get(name) for name in ("facts", "drift", "limits"))
        right = (
            _is_list(facts, dict)
            and len(facts) == n_requests == n_losses
            and all(_has_numbers(fact, _OF_FACT) for fact in facts)
            and isinstance(drift, dict)
            and drift.keys() <= {"generic", "neighbours"}
            and all(_has_numbers(found, _OF_DRIFT) for found in drift.values())
            and all(found["top1"] is not None for found in drift.values())
            and _has_numbers(limits, _LIMITS)
            and None not in limits.values()
        )
    return [] if right else [f"self_check is {shown(checked)}, not what an edit says of itself"]


def _has_numbers(value: Any, names: Sequence[str]) -> bool:
    """Whether a value is a mapping with numbers, or None, of these names."""
    return isinstance(value, dict) and all(
        name in value
        and isinstance(value[name], (int, float, type(None)))
        and not (isinstance(value[name], int) and abs(value[name]) > 10**9)
        for name in names
    )


def _is_list(value: Any, of: type | tuple[type, ...]) -> bool:
    return isinstance(value, list) and all(isinstance(item, of) for item in value)


def _are_places(group: Any, count: int) -> bool:
    return _is_list(group, int) and all(0 <= index < count for index in group)
