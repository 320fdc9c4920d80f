"""What an edit reads of its model by generic texts, which is the same for every edit of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rose_easyedit.cache.entries import Cache, CacheEntry, key_of
from rose_easyedit.config.paths import cache_dir
from rose_easyedit.method.prepared import Prepared
from rose_easyedit.models.precision import computing_dtype

# The number changes when what is read does.
_FORMAT = "rose_easyedit.readings/1"


def reading_of(prepared: Prepared) -> list[str]:
    """All but the texts that decides what is read, as plain data: the model and the arithmetic."""
    read_in = computing_dtype(prepared.hparams.precision, prepared.model)
    # threads sum in another order
    computed_by = f"{prepared.editable.device.type}:{torch.get_num_threads()}"
    return [prepared.computation(), str(read_in), computed_by]


def read_once(prepared: Prepared, name: str, texts: Any, read: Callable[[], Tensor]) -> Tensor:
    """A tensor that is read from the model, from the cache where it has been read before.

    Without statistics nothing else needs the model's fingerprint, which takes longer to find than
    such a tensor to read: it is read anew then.

    Args:
        prepared: the model and the settings, whose target layer is where it is read.
        name: what is read.
        texts: that it is read by, as plain data.
        read: reads it, a tensor of float32; it is kept if it is finite.
    """
    if not prepared.hparams.alignment.needs_statistics:
        return read()
    cache = Cache(cache_dir() / "units")
    key = key_of([_FORMAT, name, reading_of(prepared), prepared.hparams.target_layer, texts])
    found = cache.read(key, _finite)
    if found is None:
        found = read()
        if bool(found.isfinite().all()):  # what overflows is no damage of the cache
            cache.write(key, CacheEntry({"found": found}))
    return found.to(prepared.editable.device)


def _finite(entry: CacheEntry) -> Tensor:
    found = entry.tensors["found"]
    if found.dtype != torch.float32 or not bool(found.isfinite().all()):
        raise ValueError("it is no reading")
    return found
