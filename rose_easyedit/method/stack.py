"""Columns read through the edited layers, one layer after the other, without starting anew.

The residual of a layer is found under the updates of the layers before it. The layers before the
first edited one never change, so what they give is kept, and each edited layer is gone through
once more for each one before it, instead of the whole model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from rose_easyedit.architectures import EditableModel, first_tensor
from rose_easyedit.method.activations import (
    Batch,
    Enough,
    SubjectStates,
    batches,
    run_until_enough,
)
from rose_easyedit.method.halving import within_memory
from rose_easyedit.method.prefixes import FrozenLayer
from rose_easyedit.method.replay import Call, further_arguments
from rose_easyedit.method.tokens import Query


@dataclass(frozen=True)
class _Rows:
    """Rows on their way through the stack.

    Attributes:
        hidden: residual stream before the layer that comes next, [B, T, d].
        calls: for each layer of the stack, the further arguments of the model's own call.
    """

    hidden: Tensor
    calls: Sequence[Call]


@dataclass(frozen=True)
class _Part:
    """One batch.

    Attributes:
        batch: its tokens.
        opening: what opens every row, as one row, if anything does.
        rows: what comes behind it.
    """

    batch: Batch
    opening: _Rows | None
    rows: _Rows


@dataclass(frozen=True)
class Stack:
    """N queries before one of the edited layers.

    Attributes:
        editable: the model.
        first: the layer that the calls begin with.
        next: the layer that comes next.
        last: the layer after which hidden states are read.
        batch: most of them in a batch.
        parts: the queries in batches.
    """

    editable: EditableModel
    first: int
    next: int
    last: int
    batch: int
    parts: Sequence[_Part]

    @classmethod
    @torch.no_grad()
    def before(
        cls, editable: EditableModel, queries: Sequence[Query], first: int, last: int, batch: int
    ) -> Stack:
        """The queries up to their subjects, before the layer `first`.

        They are run to the layer `last` once, for what the model calls its layers with.

        Args:
            editable: the model; call inside `frozen`.
            queries: N queries.
            first: the layer to stop before.
            last: the layer after which hidden states will be read.
            batch: sequences at once; fewer where the memory does not hold them. Their hidden
                states are kept, [T, d] for each.

        Raises:
            RoSEError: the memory does not hold one sequence.
        """
        rows = [query.key_prefix for query in queries]

        def run(size: int) -> Stack:
            parts = [
                _captured(editable, part, first, last)
                for part in batches(rows, size, editable.device)
            ]
            return cls(editable, first, first, last, size, parts)

        return within_memory(run, batch)[0]

    @torch.no_grad()
    def advanced(self, layer: int) -> Stack:
        """The queries before a later layer, with the model's weights and hooks as they are now."""
        parts = list(self.parts)
        for number in range(self.next, layer):
            parts = [self._through(part, number) for part in parts]
        return replace(self, next=layer, parts=parts)

    @torch.no_grad()
    def read(self) -> SubjectStates:
        """Keys of the next layer, and hidden states after the last one, at each subject."""
        found = [self._read(part) for part in self.parts]
        order = [index for part in self.parts for index in part.batch.indices]
        back = torch.tensor(order, device=self.editable.device).argsort()
        keys, outputs, hidden = map(torch.cat, zip(*found, strict=True))
        return SubjectStates(keys[back], outputs[back], hidden[back])

    def _read(self, part: _Part) -> tuple[Tensor, Tensor, Tensor]:
        last = part.batch.mask.sum(1) - 1
        places = torch.arange(len(last), device=last.device), last
        seen: list[Tensor] = []

        def keep(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            seen.extend((args[0][places].float(), output[places].float()))

        part = self._through(part, self.next, keep)
        for number in range(self.next + 1, self.last + 1):
            part = self._through(part, number)
        keys, outputs = seen[-2:]  # the rows come after their opening
        return keys, outputs, part.rows.hidden[places].float()

    def _through(self, part: _Part, layer: int, keep: Any = None) -> _Part:
        """A batch after one layer; `keep` sees what its down projection does to the rows."""
        cache = DynamicCache()
        opening = part.opening
        if opening is not None:
            opening = self._step(opening, layer, cache)
            stored = cache.layers[layer]
            cache = _only(layer, stored.keys, stored.values, len(part.rows.hidden))
        down = self.editable.down_projections[layer]
        handle = down.register_forward_hook(keep) if keep is not None else None
        try:
            return replace(part, opening=opening, rows=self._step(part.rows, layer, cache))
        finally:
            if handle is not None:
                handle.remove()

    def _step(self, rows: _Rows, layer: int, cache: Cache) -> _Rows:
        args, kwargs = _with_cache(rows.calls[layer - self.first], cache)
        output = self.editable.layers[layer](rows.hidden, *args, **kwargs)
        return replace(rows, hidden=first_tensor(output))


class Reader:
    """Reads columns layer after layer, fewer at once where the memory does not hold them."""

    def __init__(self, start: Callable[[int], Stack], batch: int) -> None:
        """`start` gives the stack before its first layer, of so many sequences at once."""
        self._start = start
        self._stack: Stack | None = start(batch)
        self._batch = self._stack.batch

    def states(self, layer: int) -> SubjectStates:
        """What the columns hold at a layer, with the model's weights and hooks as they are now.

        Args:
            layer: no earlier one than at the last call.

        Raises:
            RoSEError: the memory does not hold one sequence.
        """

        def read(batch: int) -> SubjectStates:
            stack = self._stack
            if stack is None or batch != self._batch:
                self._stack = stack = None  # given up before another takes its place
                stack = self._start(batch)
            self._stack = stack = stack.advanced(layer)
            return stack.read()

        states, self._batch = within_memory(read, self._batch)
        return states


def _with_cache(call: Call, cache: Cache) -> Call:
    """A layer's call with a cache in place of the one that was used, if one was."""
    swap = partial(_swapped, cache=cache)
    args, kwargs = call
    return tuple(map(swap, args)), {name: swap(value) for name, value in kwargs.items()}


def _swapped(value: Any, cache: Cache) -> Any:
    return cache if isinstance(value, Cache) else value


def _only(layer: int, keys: Tensor, values: Tensor, n_rows: int) -> Cache:
    """A cache with the keys and values [1, heads, O, d_head] of one layer, for each row."""
    stored = FrozenLayer(keys.expand(n_rows, -1, -1, -1), values.expand(n_rows, -1, -1, -1))
    return Cache(layers=[*(DynamicLayer() for _ in range(layer)), stored])


def _captured(editable: EditableModel, batch: Batch, first: int, last: int) -> _Part:
    n_shared = len(batch.opening)
    positions = torch.arange(n_shared + batch.ids.shape[1], device=batch.ids.device)[None]
    run = partial(_capture, editable, first=first, last=last)
    if not n_shared:
        rows = run(batch.ids, batch.mask, positions, None)
        return _Part(batch, None, rows)
    cache = DynamicCache()
    ids = torch.tensor([batch.opening], device=batch.ids.device)
    opening = run(ids, torch.ones_like(ids), positions[:, :n_shared], cache)
    cache.batch_repeat_interleave(len(batch.ids))
    mask = nn.functional.pad(batch.mask, (n_shared, 0), value=1)
    return _Part(batch, opening, run(batch.ids, mask, positions[:, n_shared:], cache))


def _capture(
    editable: EditableModel,
    ids: Tensor,
    mask: Tensor,
    positions: Tensor,
    cache: Cache | None,
    *,
    first: int,
    last: int,
) -> _Rows:
    """Runs rows to the last layer, and keeps what it takes to start again before the first."""
    calls: list[Call] = []
    seen: list[Tensor] = []

    def keep(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not calls:
            seen.append(args[0] if args else kwargs["hidden_states"])
        # what the cache held is made anew at each step, and would be most of what a stack keeps
        calls.append(_with_cache(further_arguments(args, kwargs), DynamicCache()))

    def stop(*_: Any) -> None:
        raise Enough

    wanted = editable.layers[first : last + 1]
    handles = [layer.register_forward_pre_hook(keep, with_kwargs=True) for layer in wanted]
    handles.append(wanted[-1].register_forward_hook(stop))
    run_until_enough(editable.model.base_model, ids, mask, positions, cache, handles)
    return _Rows(seen[0], calls)
