"""One pass through the unedited model, which keeps what it takes to start anew in its midst."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers.cache_utils import Cache, DynamicCache

from rose_easyedit.forward.activations import StopForward, SubjectStates, run_until_stopped
from rose_easyedit.forward.batches import Batch, last_tokens
from rose_easyedit.forward.replay import Call, further_arguments
from rose_easyedit.models.architectures import EditableModel, first_tensor


@dataclass(frozen=True)
class Rows:
    """Rows on their way through the stack.

    Attributes:
        hidden: residual stream before the layer that comes next, [B, T, d].
        calls: for each layer of the stack, the further arguments of the model's own call.
    """

    hidden: Tensor
    calls: Sequence[Call]


@dataclass(frozen=True)
class CapturedPart:
    """One batch.

    Attributes:
        batch: its tokens.
        shared_prefix: what opens every row, as one row, if anything does.
        rows: what comes behind it.
    """

    batch: Batch
    shared_prefix: Rows | None
    rows: Rows

    @property
    def subjects(self) -> tuple[Tensor, Tensor]:
        """Row and column of each subject, the last token of its row, [B] each."""
        return last_tokens(self.batch.mask)


def captured(
    editable: EditableModel, batch: Batch, first: int, last: int
) -> tuple[CapturedPart, SubjectStates]:
    """A batch before the layer `first`, and what its rows hold at it and after the layer `last`."""
    n_shared = len(batch.shared_prefix)
    positions = torch.arange(n_shared + batch.ids.shape[1], device=batch.ids.device)[None]
    run = partial(_capture, editable, first=first, last=last)
    if not n_shared:
        rows, seen = run(batch.ids, batch.mask, positions, None)
        return CapturedPart(batch, None, rows), seen
    cache = DynamicCache()
    ids = torch.tensor([batch.shared_prefix], device=batch.ids.device)
    shared_prefix, _ = run(ids, torch.ones_like(ids), positions[:, :n_shared], cache)
    cache.batch_repeat_interleave(len(batch.ids))
    mask = nn.functional.pad(batch.mask, (n_shared, 0), value=1)
    rows, seen = run(batch.ids, mask, positions[:, n_shared:], cache)
    return CapturedPart(batch, shared_prefix, rows), seen


def _capture(
    editable: EditableModel,
    ids: Tensor,
    mask: Tensor,
    positions: Tensor,
    cache: Cache | None,
    *,
    first: int,
    last: int,
) -> tuple[Rows, SubjectStates]:
    """Runs rows [B, T] behind what is cached, up to the layer `last`; the mask is [B, O + T]."""
    calls: list[Call] = []
    start: list[Tensor] = []
    found: list[Tensor] = []
    at = last_tokens(mask[:, -ids.shape[1] :])

    def keep_call(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not calls:
            start.append(args[0] if args else kwargs["hidden_states"])
        # what the cache held is made anew at each step, and would be most of what a stack keeps
        calls.append(with_cache(further_arguments(args, kwargs), DynamicCache()))

    def keep_hidden(_module: nn.Module, _args: Any, output: Any) -> None:
        found.append(first_tensor(output)[at].float())
        raise StopForward

    wanted = editable.layers[first : last + 1]
    down = editable.down_projections[first]
    base = editable.model.base_model

    def register() -> list[RemovableHandle]:
        return [
            *(layer.register_forward_pre_hook(keep_call, with_kwargs=True) for layer in wanted),
            down.register_forward_hook(key_kept(found, at)),
            wanted[-1].register_forward_hook(keep_hidden),
        ]

    run_until_stopped(base, ids, mask, positions, cache, register)
    return Rows(start[0], calls), SubjectStates(*found)


def key_kept(found: list[Tensor], at: tuple[Tensor, Tensor]) -> Callable[..., None]:
    """A hook that adds a down projection's key and output at some tokens, [B, ...] each."""

    def hook(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        found.extend((args[0][at].float(), output[at].float()))

    return hook


def with_cache(call: Call, cache: Cache) -> Call:
    """A layer's call with a cache in place of the one that was used, if one was."""
    swap = partial(_swapped, cache=cache)
    args, kwargs = call
    return tuple(map(swap, args)), {name: swap(value) for name, value in kwargs.items()}


def _swapped(value: Any, cache: Cache) -> Any:
    return cache if isinstance(value, Cache) else value
