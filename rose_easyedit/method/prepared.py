"""What an edit derives of its model and settings, once, and hands to each of its steps."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache, cached_property, partial

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rose_easyedit.config.hparams import RoSEHyperParams
from rose_easyedit.errors import RoSEError
from rose_easyedit.method.locating.automatic import with_layers
from rose_easyedit.models.architectures import EditableModel, read_architecture
from rose_easyedit.models.fingerprint import computation_fingerprint, weights_fingerprint
from rose_easyedit.models.precision import precision_context


@dataclass(frozen=True)
class Prepared:
    """A model, its tokenizer and the settings, checked and ready for one edit.

    It lives as long as the edit is computed, while nothing else changes the model: the copies of
    the weights that `autocast` makes, and the fingerprints, are of the unedited model throughout.
    Updates are tried by hooks (`with_updates`), which leave the weights alone.

    Attributes:
        editable: the unedited model.
        tokenizer: its tokenizer.
        hparams: the settings, with their layers named.
        autocast: a fresh context in which the model runs, for each use; all share one set of
            copies of the weights (`precision_context`). Enter it inside `activations.frozen`.
        computation: gives the fingerprint of what the model computes, found at the first call.
    """

    editable: EditableModel
    tokenizer: PreTrainedTokenizerBase
    hparams: RoSEHyperParams
    autocast: Callable[[], AbstractContextManager[None]]
    computation: Callable[[], str]

    @classmethod
    def of(
        cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, hparams: RoSEHyperParams
    ) -> Prepared:
        """Checks the settings and the model, and names the layers where they are "auto".

        Raises:
            RoSEError: faulty settings, or a model that cannot be edited, with the reason.
        """
        hparams.check()
        editable = read_architecture(model)
        computation = cache(partial(computation_fingerprint, model))
        hparams = with_layers(model, tokenizer, hparams, computation)
        _check_layers(editable, hparams)
        autocast = precision_context(hparams.precision, model)
        return cls(editable, tokenizer, hparams, autocast, computation)

    @property
    def model(self) -> PreTrainedModel:
        """The unedited model."""
        return self.editable.model

    @cached_property
    def base(self) -> str:
        """What the edit says of its base: SHA-256 of the weights that it changes."""
        return _fingerprint(self.editable, self.hparams)


def base_fingerprint(model: PreTrainedModel, hparams: RoSEHyperParams) -> str:
    """What an edit with these settings, which name their layers, would say of its base.

    Raises:
        RoSEError: the model cannot be edited, or lacks one of the layers.
    """
    editable = read_architecture(model)
    _check_layers(editable, hparams)
    return _fingerprint(editable, hparams)


def _fingerprint(editable: EditableModel, hparams: RoSEHyperParams) -> str:
    return weights_fingerprint(
        (editable.weight_name(n), editable.weight(n)) for n in hparams.layers
    )


def _check_layers(editable: EditableModel, hparams: RoSEHyperParams) -> None:
    """Refuses settings that name a layer which the model does not have."""
    last = max([*hparams.layers, hparams.target_layer])
    if last >= editable.n_layers:
        raise RoSEError(
            f"Layer {last} is asked for, but the model has {editable.n_layers} layers "
            f"(0 to {editable.n_layers - 1}); set layers and z_layer within them."
        )
