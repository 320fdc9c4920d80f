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

from rose_easyedit.edits.provenance import provenance_faults
from rose_easyedit.errors import shown
from rose_easyedit.models.fingerprint import weights_fingerprint


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
    return faults + provenance_faults(record["provenance"])


def targets_faults(targets: Tensor | None, groups: Sequence[Any] | None) -> list[str]:
    """What is wrong with the targets of an edit [n, d], one for each of its groups."""
    if targets is None:
        return []
    if targets.dim() != 2 or targets.dtype != torch.float32:
        return [f"targets: {tuple(targets.shape)} of type {targets.dtype}"]
    if groups is not None and len(groups) != len(targets):
        return [f"targets: {len(targets)}, but there are {len(groups)} groups"]
    return [] if bool(targets.isfinite().all()) else ["targets: numbers that are not finite"]
