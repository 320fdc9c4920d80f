"""What the record in an edit's file must be: whole, and of the types that are worked with.

A file may come from anywhere. What passes here can be shown, applied and evaluated without a
further look at its types.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, TypeAdapter
from torch import Tensor

from rose_easyedit.edits.provenance import Provenance
from rose_easyedit.files.validation import Flag, Text, validated
from rose_easyedit.models.fingerprint import weights_fingerprint


def _readable(provenance: Mapping[str, Any]) -> Mapping[str, Any]:
    Provenance.from_dict(provenance)
    return provenance


@dataclass(frozen=True)
class _Record:
    """What stands in the header; `layers` says of each weight whether it is transposed."""

    base: Text
    sha256: Text
    layers: Mapping[str, Flag]
    provenance: Annotated[Mapping[str, Any], AfterValidator(_readable)]


_READER = TypeAdapter(_Record)


def record_digest(record: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of all that a file holds: its record but for the entry `sha256`, and its tensors."""
    rest = {name: value for name, value in record.items() if name != "sha256"}
    text = json.dumps(rest, ensure_ascii=True, sort_keys=True)
    return hashlib.sha256(f"{weights_fingerprint(tensors.items())}:{text}".encode()).hexdigest()


def check_record(record: Any, name: str) -> None:
    """Refuses a record that is no edit's, or that says of itself what cannot be read.

    Args:
        record: from the header of a file.
        name: what the errors call it.

    Raises:
        RoSEError: with every entry that is missing or of another type.
    """
    validated(_READER, record, damaged(name))


def damaged(name: str) -> str:
    """The title of an error that lists what is wrong with an edit."""
    return f"{name} is damaged; save or copy it again:"


def targets_faults(targets: Tensor | None, groups: Sequence[Any] | None) -> list[str]:
    """What is wrong with the targets of an edit [n, d], one for each of its groups."""
    if targets is None:
        return []
    if targets.dim() != 2 or targets.dtype != torch.float32:
        return [f"targets: {tuple(targets.shape)} of type {targets.dtype}"]
    if groups is not None and len(groups) != len(targets):
        return [f"targets: {len(targets)}, but there are {len(groups)} groups"]
    return [] if bool(targets.isfinite().all()) else ["targets: numbers that are not finite"]
