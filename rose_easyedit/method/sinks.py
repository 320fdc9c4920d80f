"""What an attention sink is measured by: the hidden norm of ordinary tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from rose_easyedit.architectures import EditableModel, first_tensor
from rose_easyedit.hparams import RoSEHyperParams
from rose_easyedit.method.activations import Enough, batches, run_batch
from rose_easyedit.method.generic import generic_lines
from rose_easyedit.method.halving import within_memory
from rose_easyedit.method.precision import precision_context

# A median over so many is within a few per cent of that over any number.
_ORDINARY_TOKENS = 512


def usual_norm(
    editable: EditableModel, tokenizer: PreTrainedTokenizerBase, hparams: RoSEHyperParams
) -> float:
    """The norm of an ordinary token's hidden state at the target layer, by generic text.

    It is the same for every batch, so whether a subject is an attention sink is the fact's own
    affair.

    Args:
        editable: the model; call inside `activations.frozen`.
        tokenizer: its tokenizer.
        hparams: the target layer, the text and the precision.

    Raises:
        RoSEError: the text cannot be read or is empty, or the memory does not hold one line of it.
    """
    text = hparams.alignment.statistics_text
    lines = generic_lines(tokenizer, text, _ORDINARY_TOKENS)
    lines = [line[: editable.context_length] for line in lines]

    def read(batch: int) -> float:
        return median_norm(editable, lines, hparams.target_layer, batch)

    with precision_context(hparams.precision, editable.model)():
        return within_memory(read, hparams.micro_batch)[0]


@torch.no_grad()
def median_norm(
    editable: EditableModel, rows: Sequence[Sequence[int]], layer: int, batch: int
) -> float:
    """Median norm of the residual stream after a layer, over the tokens of some texts.

    Args:
        editable: the model; call inside `activations.frozen`.
        rows: token ids, at least one of them.
        layer: the layer after which the residual stream is read.
        batch: rows per forward pass.
    """
    seen: list[Tensor] = []

    def keep(_module: nn.Module, _args: Any, output: Any) -> None:
        seen.append(first_tensor(output))
        raise Enough

    norms = []
    read_in = editable.layers[layer]
    for part in batches(rows, batch, editable.device, share=False):
        run_batch(editable, part, None, lambda: [read_in.register_forward_hook(keep)])
        norms.append(seen.pop()[part.mask.bool()].float().norm(dim=-1))
    return float(torch.cat(norms).median())
