"""Entries of the cache: a file for each, with one digest and one rule for what is damaged.

An entry is a safetensors file of tensors and a JSON record. Its digest covers its key and all that
is in it, so that no entry stands for another one. What is missing, of another key, damaged or
unreadable is None, and computed again; what cannot be written is told of, and the work goes on.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from rose_easyedit.cache.limit import Limit
from rose_easyedit.errors import first_line
from rose_easyedit.files.tensors import read_tensors
from rose_easyedit.files.writing import write_whole
from rose_easyedit.models.fingerprint import weights_fingerprint

logger = logging.getLogger(__name__)

FORMAT = "rose_easyedit.cache/1"
# Of a model of 70 billion weights, the statistics of a layer may have 3.3 GB.
_LARGEST = 16 << 30

Made = TypeVar("Made")


@dataclass(frozen=True)
class CacheEntry:
    """What is kept.

    Attributes:
        tensors: on the CPU, by name.
        record: what JSON can hold.
    """

    tensors: Mapping[str, Tensor]
    record: Any = None


def key_of(parts: Any) -> str:
    """A key made of all that a value depends on: as much as JSON can hold, in 32 letters."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


class Cache:
    """A folder of entries.

    Where it is a part of the user's cache, entries that were used least recently make room for new
    ones (`Limit`). Several processes may use it: one that is removed meanwhile is missing.
    """

    def __init__(self, folder: Path) -> None:
        """A folder, which need not be there.

        Raises:
            RoSEError: the limit that is set is no number of gigabytes.
        """
        self.folder = folder
        self._limit = Limit.of(folder)

    def read(
        self,
        key: str,
        made: Callable[[CacheEntry], Made],
        *,
        name: str | None = None,
        rows: int | None = None,
    ) -> Made | None:
        """What is made of the entry of a key; None if there is none that is whole.

        Args:
            key: from `key_of`, say.
            made: makes it; an error of its own means that the entry is damaged.
            name: of the file, where entries of other keys take its place; None is the key.
            rows: of each tensor, the first alone, as many as `write` was told of; the others are
                neither read nor checked. None reads all.
        """
        path = self._path(name or key)
        try:
            if not path.is_file():
                return None
            metadata, tensors = read_tensors(path, _LARGEST) if rows is None else _read(path, rows)
            header = json.loads(metadata[FORMAT])
            if header["key"] != key:
                return None
            if header["sha256"][_place(rows)] != _digest(key, header["record"], tensors):
                raise ValueError("its content has changed")
            found = made(CacheEntry(tensors, header["record"]))
        except FileNotFoundError:  # another process has removed it
            return None
        # RuntimeError: nested too deep, or a type of number that PyTorch does not compute with
        except (
            *(OSError, SafetensorError, RuntimeError),
            *(ValueError, TypeError, LookupError, AttributeError),
        ) as error:
            reason = first_line(str(error)) or type(error).__name__
            logger.warning("%s is damaged (%s); it is computed again", path, reason)
            return None
        with suppress(OSError):  # one that others have written
            os.utime(path)
        return found

    def write(
        self, key: str, entry: CacheEntry, *, name: str | None = None, rows: int | None = None
    ) -> None:
        """Keeps an entry, in place of one of that name; says so where it cannot.

        Equal entries are equal files, byte for byte.

        Args:
            key: from `key_of`, say.
            entry: what to keep.
            name: of the file; None is the key.
            rows: of each tensor, that `read` may ask for without the others.
        """
        tensors = {n: each.cpu().contiguous() for n, each in entry.tensors.items()}
        record = json.loads(json.dumps(entry.record))  # as it will be read
        digests = [_digest(key, record, tensors)]
        if rows is not None:
            digests.append(_digest(key, record, {n: each[:rows] for n, each in tensors.items()}))
        # one entry of metadata: safetensors writes several in random order
        header = json.dumps({"key": key, "sha256": digests, "record": record})
        content = save(tensors, {FORMAT: header})
        path = self._path(name or key)
        if self._limit is not None and not self._limit.make_room(path, len(content)):
            logger.info("%s has %d bytes, more than the cache may have", path, len(content))
            return
        try:
            write_whole(path, content)
        except OSError as error:
            logger.warning("what was computed is not kept for the next time: %s", error)

    def drop(self, key: str) -> None:
        """Removes the entry of a key, if it can be."""
        with suppress(OSError):
            self._path(key).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"


def _read(path: Path, rows: int) -> tuple[dict[str, str], dict[str, Tensor]]:
    # a slice is made on the default device, unlike a whole tensor
    with safe_open(path, framework="pt") as file, torch.device("cpu"):
        # copies: what is checked is used, whatever becomes of the file
        tensors = {name: file.get_slice(name)[:rows].clone() for name in file.keys()}
        return file.metadata(), tensors


def _place(rows: int | None) -> int:
    """Of a digest in the list of an entry's."""
    return 0 if rows is None else 1


def _digest(key: str, record: Any, tensors: Mapping[str, Tensor]) -> str:
    text = json.dumps([key, record, weights_fingerprint(tensors.items())], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
