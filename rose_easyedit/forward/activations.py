"""Reading a model: keys and hidden states at the subject, without touching a weight."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import DynamicCache
from transformers.cache_utils import Cache

from rose_easyedit.edits.factors import Factors
from rose_easyedit.forward.batches import Batch, batches, last_tokens, places_in
from rose_easyedit.forward.oom import within_memory
from rose_easyedit.forward.shared_prefix import distinct, read_shared_prefix
from rose_easyedit.models.architectures import EditableModel, first_tensor
from rose_easyedit.models.lock import model_lock
from rose_easyedit.models.modes import evaluation_mode
from rose_easyedit.models.offload import is_offloaded
from rose_easyedit.restoring import restoring, uninterrupted
from rose_easyedit.text.locate_subject import TokenQuery


@dataclass(frozen=True)
class SubjectStates:
    """What the model holds at the last subject token of N queries.

    Attributes:
        keys: input of the down projection of one layer, [N, d_ff].
        outputs: output of that down projection, before any norm, [N, d].
        hidden: residual stream after the target layer, [N, d].
    """

    keys: Tensor
    outputs: Tensor
    hidden: Tensor

    @classmethod
    def of_parts(cls, parts: Sequence[SubjectStates], places: Tensor) -> SubjectStates:
        """What several parts hold, one after the other, at some places among them [N]."""
        return cls(
            keys=torch.cat([part.keys for part in parts])[places],
            outputs=torch.cat([part.outputs for part in parts])[places],
            hidden=torch.cat([part.hidden for part in parts])[places],
        )


class StopForward(Exception):
    """Ends a forward pass once everything wanted has been read."""


def may_end_within(layer: nn.Module) -> bool:
    """Whether a pass may end within a layer: weights that come for its pass alone would stay."""
    return not is_offloaded(layer)


@restoring
def frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients for weights, both put back afterwards."""
    with model_lock(model):
        gradients = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
        try:
            model.requires_grad_(False)
            with evaluation_mode(model):
                yield
        finally:
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(gradients[name])


@restoring
def hooked(register: Callable[[], Iterable[RemovableHandle]]) -> Iterator[None]:
    """Hooks on a model in the block, and none of them after it; `register` puts them there."""
    handles: list[RemovableHandle] = []
    try:
        # an interrupt between a hook and the note of it would leave it there
        uninterrupted(lambda: handles.extend(register()))
        yield
    finally:
        for handle in handles:
            handle.remove()


@restoring
def with_updates(editable: EditableModel, updates: Mapping[int, Factors]) -> Iterator[None]:
    """The model as if `updates` (layer to low-rank update) were in its weights, by hooks."""

    def add(update: Factors) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def hook(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            shift = args[0].to(update.right.dtype) @ update.right.T @ update.left.T
            return output + shift.to(output.dtype)

        return hook

    downs = editable.down_projections
    with hooked(
        lambda: [downs[n].register_forward_hook(add(update)) for n, update in updates.items()]
    ):
        yield


@torch.no_grad()
def read_subject_states(
    editable: EditableModel,
    queries: Sequence[TokenQuery],
    *,
    key_layer: int,
    hidden_layer: int,
    batch: int,
) -> SubjectStates:
    """Keys of one layer and hidden states of another at the subject of each query.

    Only the tokens up to the subject are read, since nothing after them can matter, those that are
    the same once, and only the layers up to the later of the two.

    Args:
        editable: the model; call inside `frozen`.
        queries: N queries.
        key_layer: layer whose down projection is read.
        hidden_layer: layer after which the residual stream is read.
        batch: sequences per forward pass; fewer where the memory does not hold them.

    Raises:
        RoSEError: the memory does not hold one sequence.
    """
    read = partial(_read_states, editable, queries, key_layer, hidden_layer)
    return within_memory(read, batch)[0]


def _read_states(
    editable: EditableModel,
    queries: Sequence[TokenQuery],
    key_layer: int,
    hidden_layer: int,
    batch: int,
) -> SubjectStates:
    prefixes, place_of = distinct([query.key_prefix for query in queries], tuple)
    parts = list(batches(prefixes, batch, editable.device))
    found = []
    for part in parts:
        at = last_tokens(part.mask)
        seen = _read(editable, part, key_layer, hidden_layer)
        wanted = (seen[name][at].float() for name in ("key", "output", "hidden"))
        found.append(SubjectStates(*wanted))
    return SubjectStates.of_parts(found, places_in(parts, editable.device)[place_of])


@torch.no_grad()
def read_keys(
    editable: EditableModel, batch: Batch, wanted: Tensor, layers: Sequence[int]
) -> dict[int, Tensor]:
    """Keys of several layers at the wanted tokens of a batch: layer to [n_wanted, d_ff].

    Args:
        editable: the model; call inside `frozen`.
        batch: B rows of T tokens.
        wanted: true where keys are wanted, [B, T].
        layers: the layers to read.
    """
    seen: dict[int, Tensor] = {}
    may_end = may_end_within(editable.layers[max(layers)])

    def keep(layer: int) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            seen[layer] = args[0][wanted].float()
            if layer == max(layers) and may_end:
                raise StopForward

        return hook

    downs = editable.down_projections
    run_batch(
        editable,
        batch,
        DynamicCache() if batch.shared_prefix else None,
        lambda: [downs[layer].register_forward_pre_hook(keep(layer)) for layer in layers],
    )
    return seen


def _read(
    editable: EditableModel, batch: Batch, key_layer: int, hidden_layer: int
) -> dict[str, Tensor]:
    seen: dict[str, Tensor] = {}

    def stop_when_complete() -> None:
        if len(seen) == 3:
            raise StopForward

    def key_hook(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        seen["key"], seen["output"] = args[0], output
        stop_when_complete()

    def hidden_hook(_module: nn.Module, _args: Any, output: Any) -> None:
        seen["hidden"] = first_tensor(output)
        stop_when_complete()

    run_batch(
        editable,
        batch,
        DynamicCache() if batch.shared_prefix else None,
        lambda: [
            editable.down_projections[key_layer].register_forward_hook(key_hook),
            editable.layers[hidden_layer].register_forward_hook(hidden_hook),
        ],
    )
    return seen


def run_batch(
    editable: EditableModel,
    batch: Batch,
    cache: Cache | None,
    register: Callable[[], Sequence[RemovableHandle]] = tuple,
) -> Tensor:
    """Runs a batch behind its shared prefix.

    Args:
        editable: the model.
        batch: B rows.
        cache: an empty one, for keys and values of all tokens; None if there is no shared prefix.
        register: puts hooks on the model once that is read, one of which may raise
            `StopForward`.

    Returns:
        The mask of real tokens, those of the shared prefix first, [B, O + T].
    """
    base, n_shared = editable.model.base_model, len(batch.shared_prefix)
    if n_shared and cache is not None:
        read_shared_prefix(base, batch.shared_prefix, cache, len(batch.ids))
    positions = torch.arange(n_shared, n_shared + batch.ids.shape[1], device=batch.ids.device)
    mask = nn.functional.pad(batch.mask, (n_shared, 0), value=1)
    run_until_stopped(base, batch.ids, mask, positions[None], cache, register)
    return mask


def run_until_stopped(
    base: nn.Module,
    ids: Tensor,
    mask: Tensor,
    positions: Tensor,
    cache: Cache | None,
    register: Callable[[], Sequence[RemovableHandle]],
) -> None:
    """Runs tokens until a hook raises `StopForward`, and removes the hooks.

    Args:
        base: the model without its head.
        ids: [B, T].
        mask: 1 at real tokens, those in the cache first, [B, O + T].
        positions: of the tokens, [1, T].
        cache: what comes before them, if anything does.
        register: puts the hooks on the model.
    """
    with hooked(register), suppress(StopForward):
        base(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=cache is not None,
        )
