"""Replay of the layers after the target layer: one forward pass captured, then repeated cheaply.

A shift of the hidden state at the subject's last token changes nothing before that token. So
queries are aligned at it: the tokens before it give keys and values once, and a step of the
optimisation runs only the tokens from the subject on through only the layers after the target
layer, with the arguments that the model itself passed to them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from rose_easyedit.forward.activations import hooked
from rose_easyedit.forward.batches import pad_right
from rose_easyedit.forward.prefixes import FrozenLayer, Prefixes
from rose_easyedit.models.architectures import EditableModel, first_tensor
from rose_easyedit.models.offload import is_offloaded
from rose_easyedit.models.precision import attention_as_now
from rose_easyedit.text.locate_subject import TokenQuery

# Arguments by place and by name.
Call = tuple[tuple[Any, ...], dict[str, Any]]


def further_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    """What a layer is called with beside the hidden states."""
    return args[1:], {name: value for name, value in kwargs.items() if name != "hidden_states"}


@dataclass(frozen=True)
class Replay:
    """B queries, aligned at the subject's last token, ready to be run from the target layer on.

    Attributes:
        editable: the model.
        hidden: residual stream after the target layer from the subject's last token on, [B, S, d].
        layers: the later layers.
        calls: for each later layer, the further arguments of the model's own call.
        rows, columns: where logits are wanted: M places, each [M].
        targets: token that should follow at each place, [M]; -1 where none is asked for.
        again: where from the subject on it is named once more, and shifted too, [B]; 0 if nowhere.
        unshifted: residual stream behind all layers at the M places, [M, d], without a shift.
    """

    editable: EditableModel
    hidden: Tensor
    layers: Sequence[nn.Module]
    calls: Sequence[Call]
    rows: Tensor
    columns: Tensor
    targets: Tensor
    again: Tensor
    unshifted: Tensor

    @property
    def subject_hidden(self) -> Tensor:
        """Residual stream after the target layer at the subject's last token, [B, d]."""
        return self.hidden[:, 0]

    def log_probabilities(self, shift: Tensor) -> Tensor:
        """Log-probabilities [M, vocabulary] with each subject's hidden state shifted by [B, d]."""
        return self.read_out(self.final_states(shift))

    def read_out(self, final: Tensor) -> Tensor:
        """Log-probabilities [n, vocabulary] of n of the final states."""
        return self.editable.log_probabilities(final)

    def final_states(self, shift: Tensor) -> Tensor:
        """Residual stream behind all layers at the M places, [M, d]; subjects shifted by [B, d]."""
        shift = shift.to(self.hidden.dtype).expand(len(self.hidden), -1)
        hidden = torch.cat([self.hidden[:, :1] + shift[:, None], self.hidden[:, 1:]], dim=1)
        if len(named_again := self.again.nonzero()[:, 0]):
            places = named_again, self.again[named_again]
            hidden = hidden.index_put(places, shift[named_again], accumulate=True)  # [B, S, d]
        model = self.editable.model
        for layer, (args, kwargs) in zip(self.layers, self.calls, strict=True):
            hidden = _run(model, layer, (hidden, *args), kwargs)
        return hidden[self.rows, self.columns]

    def advance(self) -> Replay:
        """The replay from one layer later on; there must be a later layer."""
        args, kwargs = self.calls[0]
        return replace(
            self,
            hidden=_run(self.editable.model, self.layers[0], (self.hidden, *args), kwargs),
            layers=self.layers[1:],
            calls=self.calls[1:],
        )

    def select(self, keep: Tensor) -> Replay:
        """The replay of some of the queries, as often as each is named.

        Args:
            keep: indices of the queries, [B'].
        """
        n_rows, memo = len(self.hidden), {}

        def pick(value: Any) -> Any:
            if id(value) not in memo:
                memo[id(value)] = _select_rows(value, keep, n_rows, pick)
            return memo[id(value)]

        rows, wanted = (keep[:, None] == self.rows).nonzero(as_tuple=True)
        return replace(
            self,
            hidden=self.hidden[keep],
            again=self.again[keep],
            calls=[pick(call) for call in self.calls],
            rows=rows,
            columns=self.columns[wanted],
            targets=self.targets[wanted],
            unshifted=self.unshifted[wanted],
        )


def _run(
    model: PreTrainedModel, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Tensor:
    """The hidden states behind a layer of a model, [B, S, d]."""
    if torch.is_grad_enabled() and is_offloaded(layer):
        # Its weights would wait for the gradients on a device that does not hold all layers; so
        # they come once more then.
        output = checkpoint(
            layer,
            *args,
            **kwargs,
            use_reentrant=False,
            preserve_rng_state=False,
            early_stop=False,  # to the end of the layer, where its weights go away again
            context_fn=lambda: (nullcontext(), attention_as_now(model)),
        )
    else:
        output = layer(*args, **kwargs)
    return first_tensor(output)


@torch.no_grad()
def capture(
    editable: EditableModel,
    queries: Sequence[TokenQuery],
    layer: int,
    prefixes: Prefixes | None = None,
) -> Replay:
    """Runs queries once and keeps what a replay of the layers after `layer` needs.

    Args:
        editable: the model; call inside `frozen`.
        queries: B queries; logits are wanted where their targets are predicted, or at the last
            token of those without a target.
        layer: the target layer.
        prefixes: with what comes before these queries' subjects; None reads it.
    """
    device = editable.device
    read = [query.key_prefix for query in queries]
    cache, before = (prefixes or Prefixes.read(editable, read)).of(read)
    # Nothing is asked for behind the last target token, so it is not read.
    texts = [query.ids[query.subject : -1 if query.n_target else None] for query in queries]
    ids, after = pad_right(texts, device)
    mask = torch.cat([before, after], dim=1)
    positions = (mask.cumsum(1) - 1).clamp(min=0)

    later = editable.layers[layer + 1 :]
    calls: list[Call] = []
    seen: list[Tensor] = []

    def keep_call(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.append(further_arguments(args, kwargs))

    def keep_hidden(_module: nn.Module, _args: Any, output: Any) -> None:
        seen.append(first_tensor(output))

    def register() -> list[RemovableHandle]:
        return [
            *(module.register_forward_pre_hook(keep_call, with_kwargs=True) for module in later),
            editable.layers[layer].register_forward_hook(keep_hidden),
            editable.layers[-1].register_forward_hook(keep_hidden),
        ]

    with hooked(register):
        editable.model.base_model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions[:, before.shape[1] :],
            past_key_values=cache,
            use_cache=cache is not None,
        )
    rows, columns, targets = _wanted_places(queries, device)
    again = torch.tensor([(q.again or q.subject) - q.subject for q in queries], device=device)
    hidden, final = seen
    unshifted = final[rows, columns]
    return Replay(editable, hidden, later, calls, rows, columns, targets, again, unshifted)


def _wanted_places(
    queries: Sequence[TokenQuery], device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    rows, columns, targets = [], [], []
    for row, query in enumerate(queries):
        length = len(query.ids)
        for index in range(length - query.n_target, length):
            rows.append(row)
            columns.append(index - 1 - query.subject)
            targets.append(query.ids[index])
        if query.n_target == 0:
            rows.append(row)
            columns.append(length - 1 - query.subject)
            targets.append(-1)
    return (
        torch.tensor(rows, device=device),
        torch.tensor(columns, device=device),
        torch.tensor(targets, device=device),
    )


def _select_rows(value: Any, keep: Tensor, n_rows: int, pick: Callable[[Any], Any]) -> Any:
    if isinstance(value, Tensor):
        # One-dimensional arguments are positions, which all rows share.
        return value[keep] if value.dim() > 1 and len(value) == n_rows else value
    if isinstance(value, Cache):
        return Cache(
            layers=[FrozenLayer(layer.keys[keep], layer.values[keep]) for layer in value.layers]
        )
    if isinstance(value, tuple):
        return tuple(pick(item) for item in value)
    if isinstance(value, dict):
        return {key: pick(item) for key, item in value.items()}
    return value
