"""The model that a process has loaded, kept for its next job."""

from __future__ import annotations

import gc
from functools import cache
from typing import Any

from rose_easyedit.config.hparams import RoSEHyperParams


class LoadedModel:
    """Holds one model and its tokenizer; another one takes its place."""

    def __init__(self) -> None:
        self._name: tuple[str, ...] | None = None
        self._pair: tuple[Any, Any] | None = None

    def get(self, hparams: RoSEHyperParams) -> tuple[Any, Any]:
        """The model that the settings name, loaded if it is not the one that is held.

        Raises:
            RoSEError: as `load_model`.
        """
        from rose_easyedit.models.loading import load_model

        dtype = "float16" if hparams.fp16 else "auto"
        name = (hparams.model_name, str(hparams.device), dtype)
        if self._pair is None or name != self._name:
            self.forget()  # two models may not fit side by side
            self._pair = load_model(hparams.model_name, hparams.device, dtype)
            self._name = name
        return self._pair

    def forget(self) -> None:
        """Lets go of the model, as after a failure, which may have left it changed."""
        self._pair = self._name = None
        gc.collect()


@cache
def model_of_this_process() -> LoadedModel:
    """The one holder of a process.

    A launcher calls the same function for each job, in this process or in a worker that does
    several jobs, and can hand no object from one to the next.
    """
    return LoadedModel()
