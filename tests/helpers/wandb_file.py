"""Reads what an offline run of W&B has on disk: a log in LevelDB's format, of protobuf records."""

from __future__ import annotations

import importlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK = 32768
HEADER = struct.Struct("<IHB")  # checksum, length, and which part of a record it is
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def run_files(folder: Path) -> list[Path]:
    """The files of the offline runs under a folder."""
    return sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))


def records_of(path: Path) -> list[Any]:
    """Every record of a run's file."""
    # by name: only the tracking module may import it
    protocol = importlib.import_module("wandb.proto.wandb_internal_pb2")
    found = []
    for content in _contents(path.read_bytes()):
        record = protocol.Record()
        record.ParseFromString(content)
        found.append(record)
    return found


def of_kind(found: list[Any], kind: str) -> list[Any]:
    """The content of the records of a kind, in order."""
    return [getattr(r, kind) for r in found if r.WhichOneof("record_type") == kind]


def items(pairs: Any) -> dict[str, Any]:
    """Keys and values of a record, nested as they were logged."""
    found: dict[str, Any] = {}
    for pair in pairs:
        *outer, last = pair.nested_key or [pair.key]
        inner = found
        for key in outer:
            inner = inner.setdefault(key, {})
        inner[last] = json.loads(pair.value_json)
    return found


def _contents(data: bytes) -> Iterator[bytes]:
    assert data[:4] == b":W&B"
    position, parts = 7, b""
    while position + HEADER.size <= len(data):
        left = BLOCK - position % BLOCK
        if left < HEADER.size:
            position += left
            continue
        _, length, part = HEADER.unpack_from(data, position)
        position += HEADER.size
        parts += data[position : position + length]
        position += length
        if part in (WHOLE, LAST):
            yield parts
            parts = b""
        else:
            assert part in (FIRST, MIDDLE)
