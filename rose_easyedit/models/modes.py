"""A model in evaluation mode for a while, each of its modules in its own mode afterwards."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from rose_easyedit.models.lock import model_lock
from rose_easyedit.restoring import restoring


@restoring
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode; afterwards the mode that each module had.

    `model.train(was_training)` would give all modules that of the outermost one.
    """
    with model_lock(model):
        training = [(module, module.training) for module in model.modules()]
        try:
            model.eval()
            yield
        finally:
            for module, was_training in training:
                module.training = was_training
