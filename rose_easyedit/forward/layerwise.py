"""Columns read through the edited layers, one layer after the other, without starting anew.

The residual of a layer is found under the updates of the layers before it. The layers before the
first edited one never change, so what they give is kept. For a residual, the layers from the next
to the target layer are gone through; for a key alone, the next one, up to its down projection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from rose_easyedit.forward.activations import StopForward, SubjectStates, hooked, may_end_within
from rose_easyedit.forward.batches import batches, places_in
from rose_easyedit.forward.captured import CapturedPart, Rows, captured, key_kept, with_cache
from rose_easyedit.forward.oom import within_memory
from rose_easyedit.forward.prefixes import FrozenLayer
from rose_easyedit.models.architectures import EditableModel, first_tensor
from rose_easyedit.text.locate_subject import TokenQuery

Result = TypeVar("Result")


@dataclass(frozen=True)
class Stack:
    """N queries before one of the edited layers.

    Attributes:
        editable: the model.
        first: the layer that the stack began before.
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
    parts: Sequence[CapturedPart]

    @classmethod
    @torch.no_grad()
    def before(
        cls,
        editable: EditableModel,
        queries: Sequence[TokenQuery],
        first: int,
        last: int,
        batch: int,
    ) -> tuple[Stack, SubjectStates]:
        """The queries up to their subjects, before the layer `first`, and what `read` gives there.

        They are run to the layer `last` once, which also says what the model calls its layers with.

        Args:
            editable: the model; call inside `frozen`.
            queries: N queries.
            first: the layer that the stack begins before.
            last: the layer after which hidden states will be read.
            batch: sequences at once; fewer where the memory does not hold them. Their hidden
                states are kept, [T, d] for each.

        Raises:
            RoSEError: the memory does not hold one sequence.
        """
        rows = [query.key_prefix for query in queries]

        def run(size: int) -> tuple[Stack, SubjectStates]:
            found = [
                captured(editable, part, first, last)
                for part in batches(rows, size, editable.device)
            ]
            stack = cls(editable, first, first, last, size, [part for part, _ in found])
            return stack, SubjectStates.of_parts([states for _, states in found], stack._places)

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
        return SubjectStates.of_parts(list(map(self._read, self.parts)), self._places)

    @torch.no_grad()
    def read_keys(self) -> Tensor:
        """Keys of the next layer at each subject, [N, d_ff]."""
        return torch.cat(list(map(self._read_keys, self.parts)))[self._places]

    @property
    def _places(self) -> Tensor:
        """Where each query is among the rows of the parts, [N]."""
        return places_in([part.batch for part in self.parts], self.editable.device)

    def _read(self, part: CapturedPart) -> SubjectStates:
        at = part.subjects
        seen: list[Tensor] = []
        down = self.editable.down_projections[self.next]
        keep = key_kept(seen, at)
        part = self._through(part, self.next, lambda: down.register_forward_hook(keep))
        for number in range(self.next + 1, self.last + 1):
            part = self._through(part, number)
        keys, outputs = seen
        return SubjectStates(keys, outputs, part.rows.hidden[at].float())

    def _read_keys(self, part: CapturedPart) -> Tensor:
        at = part.subjects
        seen: list[Tensor] = []
        may_end = may_end_within(self.editable.layers[self.next])

        def keep(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            seen.append(args[0][at].float())
            if may_end:
                raise StopForward

        down = self.editable.down_projections[self.next]
        with suppress(StopForward):
            self._through(part, self.next, lambda: down.register_forward_pre_hook(keep))
        return seen[0]

    def _through(
        self, part: CapturedPart, layer: int, register: Callable[[], RemovableHandle] | None = None
    ) -> CapturedPart:
        """A batch after one layer; `register` puts a hook on the model that the rows alone meet."""
        cache = DynamicCache()
        shared_prefix = part.shared_prefix
        if shared_prefix is not None:
            shared_prefix = self._step(shared_prefix, layer, cache)
            stored = cache.layers[layer]
            cache = _only(layer, stored.keys, stored.values, len(part.rows.hidden))
        with nullcontext() if register is None else hooked(lambda: [register()]):
            return replace(
                part, shared_prefix=shared_prefix, rows=self._step(part.rows, layer, cache)
            )

    def _step(self, rows: Rows, layer: int, cache: Cache) -> Rows:
        args, kwargs = with_cache(rows.calls[layer - self.first], cache)
        output = self.editable.layers[layer](rows.hidden, *args, **kwargs)
        return replace(rows, hidden=first_tensor(output))


Start = Callable[[int], tuple[Stack, SubjectStates]]


class Reader:
    """Reads columns layer after layer, fewer at once where the memory does not hold them.

    Attributes:
        batch: how many at once.
    """

    def __init__(self, start: Start, stack: Stack) -> None:
        """`start` gives the stack before its first layer again, of so many sequences at once."""
        self._start = start
        self._stack: Stack | None = stack
        self.batch = stack.batch

    @classmethod
    def begin(cls, start: Start, batch: int) -> tuple[Reader, SubjectStates]:
        """A reader, and what its columns hold as long as nothing is written."""
        stack, unedited = start(batch)
        return cls(start, stack), unedited

    def states(self, layer: int) -> SubjectStates:
        """What the columns hold at a layer, with the model's weights and hooks as they are now.

        Args:
            layer: no earlier one than at the last call.

        Raises:
            RoSEError: the memory does not hold one sequence.
        """
        return self._read(layer, Stack.read)

    def keys(self, layer: int) -> Tensor:
        """As `states`, but the keys alone, [N, d_ff]."""
        return self._read(layer, Stack.read_keys)

    def _read(self, layer: int, read: Callable[[Stack], Result]) -> Result:
        def run(batch: int) -> Result:
            stack = self._stack
            if stack is None or batch != self.batch:
                self._stack = stack = None  # given up before another takes its place
                stack, _ = self._start(batch)
            self._stack = stack = stack.advanced(layer)
            return read(stack)

        found, self.batch = within_memory(run, self.batch)
        return found


def _only(layer: int, keys: Tensor, values: Tensor, n_rows: int) -> Cache:
    """A cache with the keys and values [1, heads, O, d_head] of one layer, for each row."""
    stored = FrozenLayer(keys.expand(n_rows, -1, -1, -1), values.expand(n_rows, -1, -1, -1))
    return Cache(layers=[*(DynamicLayer() for _ in range(layer)), stored])
