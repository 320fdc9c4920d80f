"""An edit for other programs, each form with a model card beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rose_easyedit.export.gguf import write_gguf_lora
from rose_easyedit.export.model_card import LORA, MERGED, gguf_form, model_card
from rose_easyedit.export.peft import write_merged, write_peft_lora

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from rose_easyedit.edits.delta import EditDelta

Result = Mapping[str, Any] | None


def save_peft_lora(delta: EditDelta, folder: str | Path, result: Result = None) -> Path:
    """Writes an edit as a PEFT LoRA adapter that gives the same logits on the base model.

    Args:
        delta: the edit.
        folder: a new folder; a link to one is followed.
        result: what was measured of this edit (`EvaluationResult.as_dict`), for its card.

    Raises:
        RoSEError: the folder exists, the result is of another edit, or it cannot be written.
    """
    return write_peft_lora(delta, Path(folder), model_card(delta, LORA, result))


def save_gguf_lora(delta: EditDelta, path: str | Path, result: Result = None) -> Path:
    """Writes an edit as a LoRA adapter for llama.cpp: one GGUF file, and its card beside it.

    Args:
        delta: the edit.
        path: of the file.
        result: as in `save_peft_lora`.

    Raises:
        RoSEError: llama.cpp has no such architecture, the result is of another edit, or the file
            cannot be written.
    """
    return write_gguf_lora(delta, Path(path), model_card(delta, gguf_form(Path(path).name), result))


def save_merged(
    delta: EditDelta,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: str | Path,
    result: Result = None,
) -> Path:
    """Writes the edited model in Hugging Face's form; the model given stays as it is.

    Args:
        delta: the edit.
        model: its base.
        tokenizer: is written beside it.
        folder: a new folder.
        result: as in `save_peft_lora`.

    Raises:
        RoSEError: the model is not the edit's base, the folder exists, or it cannot be written.
    """
    return write_merged(delta, model, tokenizer, Path(folder), model_card(delta, MERGED, result))
