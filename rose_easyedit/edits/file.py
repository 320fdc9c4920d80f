"""The file of an edit: safetensors, with one JSON record in the header."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from rose_easyedit.edits.checks import check_record, damaged, record_digest, targets_faults
from rose_easyedit.edits.factors import Factors, factor_faults
from rose_easyedit.errors import RoSEError, no_file, shown
from rose_easyedit.files.tensors import read_tensors
from rose_easyedit.files.writing import write_whole

# Of 70 billion weights, five layers of rank 10,000 have 7 GB.
_LARGEST = 8 << 30
FORMAT = "rose_easyedit.delta/2"


class EditRecord(NamedTuple):
    """What a file holds; see `EditDelta`."""

    layers: dict[str, Factors]
    base: str
    provenance: dict[str, Any]
    targets: Tensor | None


def write_edit(path: Path, edit: EditRecord, *, replace: bool = True) -> Path:
    """Writes a file; equal edits are equal files, byte for byte."""
    from safetensors.torch import save

    record, tensors = content_of(edit)
    # One entry: safetensors writes several in random order, and equal edits are equal files.
    metadata = {FORMAT: json.dumps(record, ensure_ascii=False, sort_keys=True)}
    return write_whole(path, save(tensors, metadata), replace=replace)


def content_of(edit: EditRecord) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a file holds: the record in its header, and its tensors."""
    tensors = _tensors(edit.layers, edit.targets)
    record: dict[str, Any] = {
        "base": edit.base,
        "layers": {name: factors.transposed for name, factors in edit.layers.items()},
        "provenance": json.loads(json.dumps(edit.provenance)),  # as it will be read
    }
    record["sha256"] = record_digest(record, tensors)
    return record, tensors


def read_edit(path: Path) -> EditRecord:
    """Reads what `write_edit` wrote, once: what becomes of the file then changes nothing.

    Raises:
        RoSEError: there is no such file, it is damaged, it is too large, or it is no edit.
    """
    from safetensors import SafetensorError

    try:
        if not path.exists() or path.is_dir():
            raise no_file(path, "edit file", "`rose-edit edit` or `EditDelta.save` writes one")
        metadata, found = read_tensors(path, _LARGEST)
        if set(metadata) == {"format"}:
            raise RoSEError(
                f"{str(path)!r} holds the weights of a model or an adapter and is no edit; "
                "name the file that `rose-edit edit` or `EditDelta.save` wrote."
            )
        if FORMAT not in metadata:
            raise RoSEError(
                f"{str(path)!r} is not an edit of this version (its header has "
                f"{', '.join(map(shown, sorted(metadata)[:3])) or 'nothing'}, expected "
                f"{FORMAT!r})."
            )
        return edit_of(json.loads(metadata[FORMAT]), found, repr(str(path)))
    except RoSEError:
        raise
    # RuntimeError: nested too deep, or a type of number that PyTorch does not compute with
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError) as error:
        raise RoSEError(
            f"{str(path)!r} is damaged or no edit ({shown(str(error))}); save or copy it again."
        ) from error


def edit_of(record: Any, found: Mapping[str, Tensor], name: str) -> EditRecord:
    """What `content_of` gave, checked: it is whole, and of the types that are worked with.

    Args:
        record: from the header of a file.
        found: its tensors.
        name: what the errors call it.

    Raises:
        RoSEError: it is damaged.
        KeyError: it has no tensors for some layer.
    """
    check_record(record, name)
    layers = {
        name: Factors(found[f"{name}.left"], found[f"{name}.right"], transposed)
        for name, transposed in sorted(record["layers"].items(), key=_by_number)
    }
    targets = found.get("targets")
    tensors = _tensors(layers, targets)
    if found.keys() != tensors.keys() or record["sha256"] != record_digest(record, tensors):
        raise RoSEError(f"{name} is damaged (its content has changed); save or copy it again.")
    groups = record["provenance"].get("groups")
    if faults := [*factor_faults(layers), *targets_faults(targets, groups)]:
        raise RoSEError.of(damaged(name), faults)
    return EditRecord(layers, record["base"], record["provenance"], targets)


def _by_number(item: tuple[str, Any]) -> list[tuple[int, str]]:
    """Sorts weights by name, with layer 9 before layer 10."""
    # longer numbers are larger ones, and no length is too long to compare
    return [(len(part) if part.isdecimal() else -1, part) for part in item[0].split(".")]


def _tensors(layers: Mapping[str, Factors], targets: Tensor | None) -> dict[str, Tensor]:
    """What a file holds."""
    tensors = {} if targets is None else {"targets": targets.cpu().contiguous()}
    for name, factors in layers.items():
        tensors[f"{name}.left"] = factors.left.cpu().contiguous()
        tensors[f"{name}.right"] = factors.right.cpu().contiguous()
    return tensors
