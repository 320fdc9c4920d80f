"""An edit as a folder of other tools' forms: a PEFT LoRA adapter, or the whole edited model."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rose_easyedit.edits.factors import common_rank
from rose_easyedit.errors import RoSEError
from rose_easyedit.export.model_card import base_name
from rose_easyedit.files.disks import disk_errors, unwritable
from rose_easyedit.models.offload import is_offloaded, stored_state
from rose_easyedit.restoring import restoring

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from rose_easyedit.edits.delta import EditDelta


CARD = "README.md"


def write_peft_lora(delta: EditDelta, folder: Path, card: str) -> Path:
    """Writes `adapter_config.json`, `adapter_model.safetensors` and the text of a model card.

    All layers get the rank of the largest, padded with zeros, and alpha equal to it, so that
    PEFT's scaling is 1 and the adapter is the edit itself.

    Raises:
        RoSEError: the folder exists and is not an empty folder, or the ranks are too far apart.
    """
    from safetensors.torch import save_file

    rank = common_rank(delta.layers)
    tensors = {}
    for name, factors in delta.layers.items():
        module = name.removesuffix(".weight")
        padded = factors.padded(rank)
        tensors[f"base_model.model.{module}.lora_A.weight"] = padded.right.cpu().contiguous()
        tensors[f"base_model.model.{module}.lora_B.weight"] = padded.left.cpu().contiguous()
    with new_folder(folder) as part:
        save_file(tensors, part / "adapter_model.safetensors", metadata={"format": "pt"})
        config = json.dumps(_lora_config(delta, rank), indent=2)
        (part / "adapter_config.json").write_text(config, encoding="utf-8")
        (part / CARD).write_text(card, encoding="utf-8")
    return folder


def write_merged(
    delta: EditDelta,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    card: str,
) -> Path:
    """Writes the edited model, its tokenizer and a card; the model given is as before afterwards.

    Raises:
        RoSEError: the folder exists and is not an empty folder, or the model is not the base.
    """
    with new_folder(folder) as part, delta.applied(model):
        # transformers finds offloaded weights itself only where it has placed them
        lost = is_offloaded(model) and not hasattr(model, "hf_device_map")
        model.save_pretrained(part, state_dict=dict(stored_state(model)) if lost else None)
        tokenizer.save_pretrained(part)
        (part / CARD).write_text(card, encoding="utf-8")
    return folder


@restoring
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder that appears under its name only once it is complete.

    Raises:
        RoSEError: there is something under that name already.
        DiskError: it cannot be written; nothing is left of it.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise RoSEError(f"{str(folder)!r} exists already; name a new or empty folder.")
    folder = folder.resolve()  # of a link, what it leads to
    if folder == Path.cwd():
        raise RoSEError(f"{str(folder)!r} is where this runs and stays there; name a new folder.")
    part = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}")
    try:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            part.mkdir(mode=0o700)
        except OSError as error:
            raise unwritable(folder, error) from error
        with disk_errors(folder):
            yield part
            _open_to_all(part)
            os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _open_to_all(folder: Path) -> None:
    """Lets others read what is in a new folder, as far as the user lets them read new files."""
    umask = os.umask(0o077)
    os.umask(umask)
    for path in folder.rglob("*"):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~umask)
    folder.chmod(0o777 & ~umask)


def _lora_config(delta: EditDelta, rank: int) -> dict[str, Any]:
    modules = [name.removesuffix(".weight") for name in delta.layers]
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name(delta),
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": any(factors.transposed for factors in delta.layers.values()),
        "target_modules": modules,
        "inference_mode": True,
    }
