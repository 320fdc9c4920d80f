"""A model that is given away and comes back as it was, whatever was done to it meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from rose_easyedit.errors import RoSEError
from rose_easyedit.models.fingerprint import model_fingerprint
from rose_easyedit.restoring import restoring


@restoring
def model_left_as_it_was(model: nn.Module) -> Iterator[None]:
    """Puts everything back that the block has changed of a model, bit for bit, also after an error.

    Weights and buffers, their types, places and gradients; modules that others were put in place
    of, hooks, modes and any other attribute of a module; the configuration. It takes the memory of
    the weights once more, the main memory's.

    Raises:
        RoSEError: the weights are not what they were for all that.
    """
    before = model_fingerprint(model)
    tensors = [_Tensor(found) for found in [*model.parameters(), *model.buffers()]]
    configs = [getattr(model, name, None) for name in ("config", "generation_config")]
    objects = [_Attributes(found) for found in [*model.modules(), *configs] if found is not None]
    try:
        yield
    finally:
        for attributes in objects:
            attributes.put_back()
        for tensor in tensors:
            tensor.put_back()
    if model_fingerprint(model) != before:
        raise RoSEError(
            "The model's weights are not as they were before the edit, so that nothing measured "
            "after this would count; load the model again, and report this as a fault."
        )


@restoring
def attributes_left_as_they_were(*objects: Any) -> Iterator[None]:
    """Puts the attributes of some objects back, also after an error."""
    kept = [_Attributes(found) for found in objects if found is not None]
    try:
        yield
    finally:
        for attributes in kept:
            attributes.put_back()


class _Attributes:
    """What an object's attributes were, and what those that are dictionaries held.

    The dictionaries stay the same objects: the handle of a hook refers to the one that holds it.
    """

    def __init__(self, found: Any) -> None:
        self._own: dict[str, Any] = vars(found)
        self._values = dict(self._own)
        self._held = [(v, v.copy()) for v in self._own.values() if isinstance(v, dict)]

    def put_back(self) -> None:
        self._own.clear()
        self._own.update(self._values)
        for dictionary, content in self._held:
            dictionary.clear()
            dictionary.update(content)


class _Tensor:
    """A weight, and a copy of it in main memory."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor, self._device = tensor, tensor.device
        self._copy = tensor.detach().to("cpu", copy=True)
        self._requires_grad, self._gradient = tensor.requires_grad, tensor.grad

    def put_back(self) -> None:
        now, then = self._tensor, self._copy
        same_kind = (now.dtype, now.shape, now.device) == (then.dtype, then.shape, self._device)
        with torch.no_grad():
            if same_kind:
                now.detach().copy_(then)
            else:
                now.data = then.to(self._device)
        if now.is_leaf:
            now.requires_grad_(self._requires_grad)
        now.grad = self._gradient
