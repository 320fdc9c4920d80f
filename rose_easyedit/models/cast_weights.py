"""Weight matrices cast once, where autocast would cast them at every use.

Autocast remembers the casts of weights that are trained, and no others. For a few rows a cast takes
longer than the product: they were a third of reading the prompts of an edit.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from rose_easyedit.restoring import restoring


class CastWeights:
    """A model's frozen weight matrices in another type, to be put in their place for a while.

    The copies are made at the first use; the weights must be the same at every use.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        self.model, self.dtype = model, dtype

    @cached_property
    def _copies(self) -> list[tuple[nn.Module, nn.Parameter, nn.Parameter]]:
        """Modules, their weights and the copies; embeddings are not multiplied, and stay."""
        return [
            (module, weight, nn.Parameter(weight.detach().to(self.dtype), requires_grad=False))
            for module in self.model.modules()
            if isinstance(module, nn.Linear | Conv1D)
            and isinstance(weight := module.weight, nn.Parameter)
            and not (weight.requires_grad or weight.is_meta)  # an offloaded one comes at each use
            and weight.dtype != self.dtype
        ]

    @restoring
    def in_place(self) -> Iterator[None]:
        """The model with the copies as its weights; afterwards with its own, whatever happens."""
        copies = self._copies
        try:
            for module, _, copy in copies:
                module._parameters["weight"] = copy
            yield
        finally:
            for module, weight, _ in copies:
                module._parameters["weight"] = weight
