"""Reading a model: keys and hidden states at the subject, without touching a weight."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rose_easyedit.architectures import EditableModel, first_tensor
from rose_easyedit.delta import Factors
from rose_easyedit.method.tokens import Query


@dataclass(frozen=True)
class SubjectStates:
    """What the model holds at the last subject token of N queries.

    Attributes:
        keys: input of the down projection of one layer, [N, d_ff].
        outputs: output of that down projection, before any norm, [N, d].
        hidden: residual stream after the target layer, [N, d].
        median_norm: median norm of the residual stream over all tokens read.
    """

    keys: Tensor
    outputs: Tensor
    hidden: Tensor
    median_norm: float


class _Enough(Exception):
    """Ends a forward pass once everything wanted has been read."""


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients for weights, both put back afterwards."""
    training = {name: module.training for name, module in model.named_modules()}
    gradients = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    model.eval()
    model.requires_grad_(False)
    try:
        yield
    finally:
        for name, module in model.named_modules():
            module.training = training[name]
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(gradients[name])


@contextmanager
def with_updates(editable: EditableModel, updates: Mapping[int, Factors]) -> Iterator[None]:
    """The model as if `updates` (layer to low-rank update) were in its weights, by hooks."""

    def add(update: Factors) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def hook(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            shift = args[0].to(update.right.dtype) @ update.right.T @ update.left.T
            return output + shift.to(output.dtype)

        return hook

    handles = [
        editable.down_projections[layer].register_forward_hook(add(update))
        for layer, update in updates.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def read_subject_states(
    editable: EditableModel,
    queries: Sequence[Query],
    *,
    key_layer: int,
    hidden_layer: int,
    batch: int,
) -> SubjectStates:
    """Keys of one layer and hidden states of another at the subject of each query.

    Only the tokens up to the subject are read, since nothing after them can matter, and only the
    layers up to the later of the two.

    Args:
        editable: the model; call inside `frozen`.
        queries: N queries.
        key_layer: layer whose down projection is read.
        hidden_layer: layer after which the residual stream is read.
        batch: sequences per forward pass.
    """
    device = editable.device
    order = sorted(range(len(queries)), key=lambda i: queries[i].subject)
    keys, outputs, hidden, norms = [], [], [], []
    for start in range(0, len(order), batch):
        prefixes = [queries[i].key_prefix for i in order[start : start + batch]]
        ids, mask = pad_right(prefixes, device)
        last = mask.sum(1) - 1
        rows = torch.arange(len(prefixes), device=device)
        seen = _read(editable, ids, mask, key_layer, hidden_layer)
        keys.append(seen["key"][rows, last].float())
        outputs.append(seen["output"][rows, last].float())
        hidden.append(seen["hidden"][rows, last].float())
        norms.append(seen["hidden"].float().norm(dim=-1)[mask.bool()])
    back = torch.empty(len(order), dtype=torch.long, device=device)
    back[torch.tensor(order, device=device)] = torch.arange(len(order), device=device)
    return SubjectStates(
        keys=torch.cat(keys)[back],
        outputs=torch.cat(outputs)[back],
        hidden=torch.cat(hidden)[back],
        median_norm=float(torch.cat(norms).median()),
    )


@torch.no_grad()
def read_keys(
    editable: EditableModel, ids: Tensor, mask: Tensor, wanted: Tensor, layers: Sequence[int]
) -> dict[int, Tensor]:
    """Keys of several layers at the wanted tokens of a batch: layer to [n_wanted, d_ff].

    Args:
        editable: the model; call inside `frozen`.
        ids: token ids, [B, T].
        mask: 1 at real tokens, [B, T].
        wanted: true where keys are wanted, [B, T].
        layers: the layers to read.
    """
    seen: dict[int, Tensor] = {}

    def keep(layer: int) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            seen[layer] = args[0][wanted].float()
            if layer == max(layers):
                raise _Enough

        return hook

    handles = [
        editable.down_projections[layer].register_forward_pre_hook(keep(layer)) for layer in layers
    ]
    _run_until_enough(editable, ids, mask, handles)
    return seen


def pad_right(sequences: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids [B, T] padded on the right with 0, and the mask of real tokens [B, T]."""
    width = max(len(sequence) for sequence in sequences)
    ids = torch.zeros(len(sequences), width, dtype=torch.long)
    mask = torch.zeros(len(sequences), width, dtype=torch.long)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.tensor(list(sequence))
        mask[row, : len(sequence)] = 1
    return ids.to(device), mask.to(device)


def _read(
    editable: EditableModel, ids: Tensor, mask: Tensor, key_layer: int, hidden_layer: int
) -> dict[str, Tensor]:
    seen: dict[str, Tensor] = {}

    def stop_when_complete() -> None:
        if len(seen) == 3:
            raise _Enough

    def key_hook(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        seen["key"], seen["output"] = args[0], output
        stop_when_complete()

    def hidden_hook(_module: nn.Module, _args: Any, output: Any) -> None:
        seen["hidden"] = first_tensor(output)
        stop_when_complete()

    handles = [
        editable.down_projections[key_layer].register_forward_hook(key_hook),
        editable.layers[hidden_layer].register_forward_hook(hidden_hook),
    ]
    _run_until_enough(editable, ids, mask, handles)
    return seen


def _run_until_enough(
    editable: EditableModel, ids: Tensor, mask: Tensor, handles: Sequence[Any]
) -> None:
    try:
        editable.model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)
    except _Enough:
        pass
    finally:
        for handle in handles:
            handle.remove()
