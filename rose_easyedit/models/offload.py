"""Weights that Accelerate keeps off the device where the model computes, in memory or on disk.

The module of such a weight holds an empty one (on "meta"), and a hook that fills it for the time of
a forward pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn


def is_offloaded(module: nn.Module) -> bool:
    """Whether a module, or one in it, has a weight that comes only for a forward pass."""
    return any(parameter.is_meta for parameter in module.parameters())


def computing_device(model: Any) -> torch.device:
    """Where the first layers of a `transformers` model compute, and so where its input belongs."""
    if model.device.type != "meta":
        found: torch.device = model.device
        return found
    name, _ = next(model.named_parameters())
    return _computes_on(model, name)


def computing_devices(model: nn.Module) -> set[torch.device]:
    """Every device that a model computes on; "meta" stands for a weight that nothing fills."""
    return {_computes_on(model, name) for name, _ in model.named_parameters()}


def stored_weight(model: nn.Module, name: str) -> Tensor:
    """The numbers of a weight, without gradients.

    Args:
        model: a model.
        name: of the weight, as in `named_parameters`.

    Returns:
        The weight itself; where it is offloaded to memory, what is kept there, so that writing to
        it changes the model; where it is offloaded to disk, a copy; empty, where nothing fills it.
    """
    weight = model.get_parameter(name).detach()
    if weight.is_meta and (found := _keeper(model, name)):
        hook, key = found
        result: Tensor = hook.weights_map[key].detach()
        return result
    return weight


def is_on_disk(model: nn.Module, name: str) -> bool:
    """Whether a weight is read from disk for every forward pass, so that no copy of it counts."""
    if not model.get_parameter(name).is_meta or (found := _keeper(model, name)) is None:
        return False
    hook, key = found
    one, other = hook.weights_map[key], hook.weights_map[key]
    result: bool = one.data_ptr() != other.data_ptr()
    return result


def stored_state(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """As `state_dict().items()`, with the numbers of offloaded weights and buffers, one by one."""
    for name, tensor in model.state_dict().items():
        if tensor.is_meta and (found := _keeper(model, name)):
            hook, key = found
            tensor = hook.weights_map[key]
        yield name, tensor


def _keeper(model: nn.Module, name: str) -> tuple[Any, str] | None:
    """The hook that fills a tensor, and what it calls it; None where there is no such hook."""
    path, _, key = name.rpartition(".")
    while True:
        hook = getattr(model.get_submodule(path), "_hf_hook", None)
        for each in getattr(hook, "hooks", [hook]):
            if getattr(each, "weights_map", None) is not None:
                return each, key
        if not path:
            return None
        path, _, last = path.rpartition(".")
        key = f"{last}.{key}"


def _computes_on(model: nn.Module, name: str) -> torch.device:
    device = model.get_parameter(name).device
    if device.type != "meta" or (found := _keeper(model, name)) is None:
        return device
    device = found[0].execution_device
    return torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
