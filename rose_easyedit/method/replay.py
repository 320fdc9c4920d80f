"""Replay of the layers after the target layer: one forward pass captured, then repeated cheaply.

A shift of the hidden state at the subject's last token changes nothing before that token. So
queries are aligned at it: the tokens before it give keys and values once, and a step of the
optimisation runs only the tokens from the subject on through only the layers after the target
layer, with the arguments that the model itself passed to them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from rose_easyedit.architectures import EditableModel, first_tensor
from rose_easyedit.method.tokens import Query
from rose_easyedit.opening import common_opening, read_opening


class FrozenLayer(DynamicLayer):
    """Keys and values of the tokens before the subject; later tokens are joined, never stored."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.keys, self.values = keys, values
        self.dtype, self.device = keys.dtype, keys.device
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *_args: Any, **_kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """The stored and the new keys and values, [B, heads, P + S, d_head]."""
        return (
            torch.cat([self.keys, key_states], dim=-2),
            torch.cat([self.values, value_states], dim=-2),
        )


@dataclass(frozen=True)
class Replay:
    """B queries, aligned at the subject's last token, ready to be run from the target layer on.

    Attributes:
        editable: the model.
        hidden: residual stream after the target layer from the subject's last token on, [B, S, d].
        layers: the later layers.
        calls: for each later layer, the further arguments of the model's own call.
        matrices: for each later layer and then the head, weights to take in place of its own.
        rows, columns: where logits are wanted: M places, each [M].
        targets: token that should follow at each place, [M]; -1 where none is asked for.
    """

    editable: EditableModel
    hidden: Tensor
    layers: Sequence[nn.Module]
    calls: Sequence[tuple[tuple[Any, ...], dict[str, Any]]]
    matrices: Sequence[dict[str, Tensor]]
    rows: Tensor
    columns: Tensor
    targets: Tensor

    @property
    def subject_hidden(self) -> Tensor:
        """Residual stream after the target layer at the subject's last token, [B, d]."""
        return self.hidden[:, 0]

    def log_probabilities(self, shift: Tensor) -> Tensor:
        """Log-probabilities [M, vocabulary] with each subject's hidden state shifted by [B, d]."""
        first = self.hidden[:, :1] + shift[:, None].to(self.hidden.dtype)
        hidden = torch.cat([first, self.hidden[:, 1:]], dim=1)  # [B, S, d]
        *matrices, head_matrix = self.matrices
        for layer, weights, (args, kwargs) in zip(self.layers, matrices, self.calls, strict=True):
            hidden = first_tensor(functional_call(layer, weights, (hidden, *args), kwargs))
        wanted = self.editable.final_norm(hidden[self.rows, self.columns])  # [M, d]
        logits = functional_call(self.editable.head, head_matrix, (wanted,)).float()
        if cap := self.editable.logit_softcap:
            logits = cap * torch.tanh(logits / cap)
        return logits.log_softmax(-1)

    def select(self, keep: Tensor) -> Replay:
        """The replay of some of the queries only.

        Args:
            keep: indices of the queries to keep, [B'], in ascending order.
        """
        n_rows, memo = len(self.hidden), {}

        def pick(value: Any) -> Any:
            if id(value) not in memo:
                memo[id(value)] = _select_rows(value, keep, n_rows, pick)
            return memo[id(value)]

        place = torch.full((n_rows,), -1, device=keep.device)
        place[keep] = torch.arange(len(keep), device=keep.device)
        wanted = place[self.rows] >= 0
        return replace(
            self,
            hidden=self.hidden[keep],
            calls=[pick(call) for call in self.calls],
            rows=place[self.rows][wanted],
            columns=self.columns[wanted],
            targets=self.targets[wanted],
        )


@torch.no_grad()
def matrices_in_autocast(editable: EditableModel, layer: int) -> list[dict[str, Tensor]]:
    """Weight matrices of the layers after `layer` and of the head, in autocast's type if it is on.

    Autocast would cast frozen weights at every use, which takes longer than using them on a few
    rows does. Empty without autocast.
    """
    modules = [*editable.layers[layer + 1 :], editable.head]
    device = editable.device.type
    if not torch.is_autocast_enabled(device):
        return [{} for _ in modules]
    dtype = torch.get_autocast_dtype(device)
    return [
        {name: weight.to(dtype) for name, weight in module.named_parameters() if weight.dim() == 2}
        for module in modules
    ]


@torch.no_grad()
def capture(
    editable: EditableModel,
    queries: Sequence[Query],
    layer: int,
    matrices: Sequence[dict[str, Tensor]] | None = None,
) -> Replay:
    """Runs queries once and keeps what a replay of the layers after `layer` needs.

    Args:
        editable: the model; call inside `frozen`.
        queries: B queries; logits are wanted where their targets are predicted, or at the last
            token of those without a target.
        layer: the target layer.
        matrices: from `matrices_in_autocast`, to share them between replays.
    """
    matrices = matrices or matrices_in_autocast(editable, layer)
    device = editable.device
    opening = common_opening([query.key_prefix for query in queries])
    before = max(query.subject for query in queries)
    # Nothing is asked for behind the last target token, so it is not read.
    texts = [query.ids[:-1] if query.n_target else query.ids for query in queries]
    after = max(len(text) - query.subject for text, query in zip(texts, queries, strict=True))
    ids = torch.zeros(len(queries), before + after, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, (text, query) in enumerate(zip(texts, queries, strict=True)):
        start = before - query.subject + opening
        stop = before - query.subject + len(text)
        ids[row, :opening] = torch.tensor(text[:opening])
        ids[row, start:stop] = torch.tensor(text[opening:])
        mask[row, :opening] = mask[row, start:stop] = 1
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    ids, mask, positions = ids.to(device), mask.to(device), positions.to(device)

    cache = _prefix_cache(editable, ids, mask, positions, opening, before)
    later = editable.layers[layer + 1 :]
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    seen: list[Tensor] = []

    def keep_call(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.append((args[1:], {k: v for k, v in kwargs.items() if k != "hidden_states"}))

    def keep_hidden(_module: nn.Module, _args: Any, output: Any) -> None:
        seen.append(first_tensor(output))

    handles = [module.register_forward_pre_hook(keep_call, with_kwargs=True) for module in later]
    handles.append(editable.layers[layer].register_forward_hook(keep_hidden))
    try:
        editable.model.base_model(
            input_ids=ids[:, before:],
            attention_mask=mask,
            position_ids=positions[:, before:],
            past_key_values=cache,
            use_cache=cache is not None,
        )
    finally:
        for handle in handles:
            handle.remove()
    rows, columns, targets = _wanted_places(queries, device)
    return Replay(editable, seen[0], later, calls, matrices, rows, columns, targets)


def _prefix_cache(
    editable: EditableModel, ids: Tensor, mask: Tensor, positions: Tensor, opening: int, before: int
) -> Cache | None:
    """Keys and values [B, heads, before, d_head] of the tokens before the subject.

    The first `opening` of them are the same in every row; padding is between them and the rest.
    """
    if before == 0:
        return None
    cache = DynamicCache()
    if opening:
        read_opening(editable.model.base_model, ids[0, :opening].tolist(), cache, len(ids))
    if before > opening:
        editable.model.base_model(
            input_ids=ids[:, opening:before],
            attention_mask=mask[:, :before],
            position_ids=positions[:, opening:before],
            past_key_values=cache,
            use_cache=True,
        )
    # Padding attends to nothing and may hold NaN, which a weight of zero would not remove.
    real = mask[:, None, :before, None].bool()
    return Cache(
        layers=[
            FrozenLayer(layer.keys.masked_fill(~real, 0.0), layer.values.masked_fill(~real, 0.0))
            for layer in cache.layers
        ]
    )


def _wanted_places(queries: Sequence[Query], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
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
