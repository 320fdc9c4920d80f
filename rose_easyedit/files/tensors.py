"""Safetensors files, read once: no tensor stays mapped to the file that it came from."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from rose_easyedit.files.reading import TEXT_BYTES, read_bytes


def read_tensors(path: Path, most: int = TEXT_BYTES) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The metadata and the tensors of a file, on the CPU.

    Args:
        path: of the file.
        most: bytes that are read.

    Raises:
        RoSEError, OSError: as `read_bytes`.
        SafetensorError, KeyError, ValueError, RuntimeError: it is no such file, or holds numbers
            that PyTorch does not compute with.
    """
    from safetensors.torch import load

    content = read_bytes(path, most)
    with torch.device("cpu"):
        tensors = load(content)  # which checks the header
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]).get("__metadata__", {}), tensors
