"""An edit as a GGUF LoRA adapter, which llama.cpp puts beside a model of any quantisation.

As llama.cpp's own converter of PEFT adapters writes it (`convert_lora_to_gguf.py`) and its loader
reads it (`src/llama-adapter.cpp`): for each weight `lora_a` [r, d_ff] and `lora_b` [d, r], whose
product is scaled by `adapter.lora.alpha` / r. llama.cpp reorders the rows of queries and keys, but
those of no weight that an edit changes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rose_easyedit.edits.factors import common_rank
from rose_easyedit.errors import RoSEError, shown
from rose_easyedit.files.writing import whole_file
from rose_easyedit.models.architectures import ARCHITECTURES, Architecture

if TYPE_CHECKING:
    from rose_easyedit.edits.delta import EditDelta


def write_gguf_lora(delta: EditDelta, path: Path, card: str) -> Path:
    """Writes the adapter, in float32, and its model card beside it.

    Args:
        delta: the edit; not changed.
        path: a new file, `japan.gguf` say; the card is `japan.md` then.
        card: the text of the card.

    Raises:
        RoSEError: there is a file under one of the names already, llama.cpp does not run this
            architecture, or the edit is of weights that it does not have.
    """
    beside = path.with_name(f"{path.name.removesuffix('.gguf')}.md")
    if taken := [str(file) for file in (path, beside) if file.exists()]:
        exist = "exists" if len(taken) == 1 else "exist"
        raise RoSEError(f"{' and '.join(map(repr, taken))} {exist} already; name a new file.")
    row = _row(delta)
    names = gguf_names(row, delta.layers)
    with whole_file(beside, replace=False) as part:
        part.write_text(card, encoding="utf-8")
        with whole_file(path, replace=False) as adapter:
            _write(delta, row, names, adapter)
    return path


def gguf_names(row: Architecture, weights: Iterable[str]) -> dict[str, str]:
    """What llama.cpp calls the edited weights of a family, by their names in transformers.

    Raises:
        RoSEError: with every name that is none of an edited weight.
    """
    import gguf

    head, tail = row.weight_name(0).split("0", 1)
    # more layers than any model has, few enough to list
    pattern = re.compile(f"{re.escape(head)}(0|[1-9][0-9]{{0,2}}){re.escape(tail)}")
    found = {name: pattern.fullmatch(name) for name in weights}
    if unknown := [name for name, match in found.items() if match is None]:
        raise RoSEError.of(
            f"llama.cpp has no such weights as these (expected {row.weight_name(0)}, say):",
            [shown(name) for name in unknown],
        )
    numbers = [int(match[1]) for match in found.values() if match]
    (architecture,) = (key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == row.gguf)
    table = gguf.get_tensor_name_map(architecture, max(numbers) + 1)
    return {name: table.get_name(name, try_suffixes=(".weight",)) for name in found}


def _row(delta: EditDelta) -> Architecture:
    family = delta.provenance.architecture
    row = ARCHITECTURES.get(str(family))
    if row is None or row.gguf is None:
        able = ", ".join(sorted(name for name, row in ARCHITECTURES.items() if row.gguf))
        raise RoSEError(
            f"An adapter for llama.cpp cannot be made of an edit of the architecture "
            f"{shown(family)}; it can of {able}. Export a LoRA folder or the edited model."
        )
    return row


def _write(delta: EditDelta, row: Architecture, names: dict[str, str], path: Path) -> None:
    import gguf

    rank = common_rank(delta.layers)
    writer = gguf.GGUFWriter(path, row.gguf)
    try:
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_file_type(gguf.LlamaFileType.ALL_F32)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        # one alpha serves all weights, so all get the rank of the largest
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(rank))
        for name, factors in delta.layers.items():
            padded = factors.padded(rank)
            for part, tensor in (("lora_a", padded.right), ("lora_b", padded.left)):
                numbers = tensor.float().cpu().contiguous().numpy()
                writer.add_tensor(f"{names[name]}.{part}", numbers)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()
