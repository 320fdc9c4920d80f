"""Attention sinks: what they are measured by, and the contexts that are left out for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn

from rose_easyedit.errors import FactError
from rose_easyedit.forward.activations import StopForward, run_batch
from rose_easyedit.forward.batches import batches
from rose_easyedit.forward.oom import within_memory
from rose_easyedit.method.generic import generic_lines
from rose_easyedit.method.plan import Plan
from rose_easyedit.method.prepared import Prepared
from rose_easyedit.method.read_once import read_once
from rose_easyedit.models.architectures import EditableModel, first_tensor
from rose_easyedit.text.locate_subject import TokenQuery
from rose_easyedit.text.token_ids import check_ids

# A median over so many is within a few per cent of that over any number.
_ORDINARY_TOKENS = 512


def usual_norm(prepared: Prepared) -> float:
    """The norm of an ordinary token's hidden state at the target layer, by generic text.

    It is the same for every batch, so whether a subject is an attention sink is the fact's own
    affair.

    Args:
        prepared: the model, and the settings that say which layer and which text it is; call
            inside `activations.frozen`.

    Raises:
        RoSEError: the text cannot be read or is empty, or the memory does not hold one line of it.
    """
    editable, hparams = prepared.editable, prepared.hparams
    text = hparams.alignment.statistics_text
    lines = generic_lines(prepared.tokenizer, text, _ORDINARY_TOKENS)
    lines = [line[: editable.context_length] for line in lines]
    check_ids(editable.model, lines)

    def read() -> Tensor:
        found = partial(median_norm, editable, lines, hparams.target_layer)
        with prepared.autocast():
            norm, _ = within_memory(found, hparams.micro_batch)
        return torch.tensor(norm, dtype=torch.float32, device="cpu")

    return float(read_once(prepared, "usual norm", lines, read))


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
        raise StopForward

    norms = []
    read_in = editable.layers[layer]
    for part in batches(rows, batch, editable.device, share=False):
        run_batch(editable, part, None, lambda: [read_in.register_forward_hook(keep)])
        norms.append(seen.pop()[part.mask.bool()].float().norm(dim=-1))
    return float(torch.cat(norms).median())


def without_sinks(
    plan: Plan, hidden: Tensor, median_norm: float, ratio: float
) -> tuple[Plan, Tensor, list[str]]:
    """Leaves out the contexts whose subject is an attention sink.

    A sink (the first token of a text, often) has a hidden norm many times the usual: no shift
    there changes an answer, and its key would dominate the solve. A state that is not finite is
    none: the loss of its fact will not be finite either, and tells what is wrong.

    Args:
        plan: all queries.
        hidden: residual stream at the subject of each of `plan.queries`, [Q, d].
        median_norm: of the residual stream over ordinary tokens.
        ratio: a norm above this many medians is a sink.

    Returns:
        The usable plan, the rows of `hidden` that belong to its queries, and what was left out.

    Raises:
        FactError: with every fact that has no usable context.
    """
    norms = (hidden.norm(dim=1) / median_norm).tolist()
    usable = [norm <= ratio or not isfinite(norm) for norm in norms]
    place = 0

    def keep(queries: Sequence[TokenQuery]) -> list[TokenQuery]:
        nonlocal place
        kept = [query for i, query in enumerate(queries) if usable[place + i]]
        place += len(queries)
        return kept

    statements = [keep(queries) for queries in plan.statements]
    asked = {subject: keep(queries) for subject, queries in plan.asked.items()}
    faults, log = [], []
    place = 0
    for index, (request, queries) in enumerate(zip(plan.requests, plan.statements, strict=True)):
        highest = max(norms[place : place + len(queries)])
        place += len(queries)
        if not statements[index]:
            faults.append(
                f"{request.label}: hidden norm {highest:.1f} times the median in every context; "
                "put words before the subject, or name the subject in full"
            )
        elif len(statements[index]) < len(queries):
            left_out = len(queries) - len(statements[index])
            log.append(
                f"{request.label}: the subject is an attention sink (hidden norm {highest:.1f} "
                f"times the median) in {left_out} of {len(queries)} contexts, which are left out"
            )
    for subject, queries in plan.asked.items():
        if left_out := len(queries) - len(asked[subject]):
            log.append(
                f"subject {subject!r}: an attention sink in {left_out} of {len(queries)} chat "
                "queries, which are left out"
            )
    if faults:
        raise FactError.of("The subject is an attention sink, where no edit takes hold:", faults)
    rows = torch.tensor(usable, device=hidden.device).nonzero()[:, 0]
    return replace(plan, statements=statements, asked=asked), rows, log
