"""Causal tracing: after which layers does the last subject token carry who is spoken of?

The state of that token is put, layer by layer, into a run about somebody else. Where this alone
brings the first subject's answer back, the later tokens read it there: a value set after such a
layer is read, one set after the layers where it fades comes too late.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rose_easyedit.architectures import EditableModel, first_tensor
from rose_easyedit.method.activations import pad_right
from rose_easyedit.method.tokens import Query


@dataclass(frozen=True)
class Trace:
    """What patching the last subject token does, for n pairs of prompts.

    Attributes:
        clean: P(answer) in the prompt itself, [n]; the answer is the model's own next token.
        exchanged: P(answer) in the prompt about the other subject, [n].
        patched: the same with the state after each layer taken from the prompt itself,
            [n, n_layers].
    """

    clean: Tensor
    exchanged: Tensor
    patched: Tensor

    @property
    def restored(self) -> Tensor:
        """Share of the lost probability that each layer brings back, over all pairs [n_layers]."""
        lost = (self.clean - self.exchanged).sum()
        return (self.patched - self.exchanged[:, None]).sum(0) / lost

    def band(self, least: float = 0.5) -> list[int]:
        """The layers that bring back at least this share."""
        return [layer for layer, share in enumerate(self.restored.tolist()) if share >= least]


@torch.no_grad()
def trace_subject(
    editable: EditableModel, pairs: Sequence[tuple[Query, Query]], batch: int = 64
) -> Trace:
    """Patches the last subject token's state, one layer at a time.

    The exchange of subjects, in place of ROME's noise, keeps every run within what the model was
    trained on (Zhang and Nanda, arXiv 2309.16042).

    Args:
        editable: the model; call inside `activations.frozen`.
        pairs: a prompt, and the same prompt about another subject; targets are not read.
        batch: prompts per forward pass.
    """
    n = len(pairs)
    clean, exchanged = torch.zeros(n), torch.zeros(n)
    patched = torch.zeros(n, editable.n_layers)
    prompts = [[prompt for prompt, _ in pairs], [other for _, other in pairs]]
    ids = [[query.ids[: len(query.ids) - query.n_target] for query in side] for side in prompts]
    subjects = [torch.tensor([query.subject for query in side]) for side in prompts]
    for start in range(0, n, batch):
        part = slice(start, start + batch)
        with _kept(editable, subjects[0][part]) as states:
            logits = _next_token(editable, ids[0][part])
        answers = logits.argmax(1, keepdim=True)
        clean[part] = _probability(logits, answers)
        exchanged[part] = _probability(_next_token(editable, ids[1][part]), answers)
        for layer in range(editable.n_layers):
            with _patched(editable, layer, subjects[1][part], states[layer]):
                logits = _next_token(editable, ids[1][part])
            patched[part, layer] = _probability(logits, answers)
    return Trace(clean, exchanged, patched)


def _next_token(editable: EditableModel, rows: Sequence[Sequence[int]]) -> Tensor:
    """Logits of the token that follows each of B rows, [B, vocabulary]."""
    ids, mask = pad_right(rows, editable.device)
    logits = editable.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    return logits[torch.arange(len(rows)), mask.sum(1) - 1].float()


def _probability(logits: Tensor, answers: Tensor) -> Tensor:
    return logits.softmax(1).gather(1, answers)[:, 0].cpu()


@contextmanager
def _kept(editable: EditableModel, subjects: Tensor) -> Iterator[dict[int, Tensor]]:
    """The state after each layer at one token of each of B rows, by layer, [B, d]."""
    rows = torch.arange(len(subjects))
    states: dict[int, Tensor] = {}

    def keep(layer: int) -> Callable[..., None]:
        def hook(_module: Any, _args: Any, output: Any) -> None:
            states[layer] = first_tensor(output)[rows, subjects].clone()

        return hook

    with _hooked(editable, {layer: keep(layer) for layer in range(editable.n_layers)}):
        yield states


@contextmanager
def _patched(
    editable: EditableModel, layer: int, subjects: Tensor, states: Tensor
) -> Iterator[None]:
    """The state after a layer replaced by `states` [B, d] at one token of each of B rows."""
    rows = torch.arange(len(subjects))

    def put(_module: Any, _args: Any, output: Any) -> Any:
        hidden = first_tensor(output).clone()
        hidden[rows, subjects] = states
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    with _hooked(editable, {layer: put}):
        yield


@contextmanager
def _hooked(editable: EditableModel, hooks: Mapping[int, Callable[..., Any]]) -> Iterator[None]:
    handles = [editable.layers[i].register_forward_hook(hook) for i, hook in hooks.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
