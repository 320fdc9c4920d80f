"""The settings of a memory: fixed when it is begun, since its targets depend on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rose_easyedit.config.compare import differences
from rose_easyedit.errors import RoSEError
from rose_easyedit.memory.file import MemoryFile

if TYPE_CHECKING:
    from rose_easyedit.config.hparams import RoSEHyperParams


def settings_to_open(
    path: Path, model: str | None, given: RoSEHyperParams | str | Path | None
) -> RoSEHyperParams | None:
    """The settings that a memory is opened with; None takes those that it was begun with.

    Args:
        path: of its file.
        model: the name of its model, if it is known.
        given: the settings, or the name or path of a settings file.

    Raises:
        RoSEError: none are given for a new memory of another model than the embedded one.
    """
    from rose_easyedit.config.hparams import RoSEHyperParams

    if isinstance(given, (str, Path)):
        given = RoSEHyperParams.from_hparams(given)
    if given is None and not MemoryFile(path).is_begun:
        if model not in (None, "embedded"):
            raise RoSEError(
                f"A new memory for the model {model!r} needs its settings; give hparams, by name, "
                "path or as an object. Where none are shipped for it, model_name and layers are "
                "enough, and `rose-edit locate` suggests the layers."
            )
        given = RoSEHyperParams.from_hparams("smollm2-135m")
    return given if given is None or not model else replace(given, model_name=model)


def fitting_model(
    hparams: RoSEHyperParams, pair: tuple[Any, Any], device: Any, dtype: Any, *, load: bool
) -> tuple[RoSEHyperParams, tuple[Any, Any]]:
    """The settings of a memory that is to be begun, their layers named, and a model that they fit.

    Settings are fixed with the file: one that no model can be edited with would never be of use.

    Args:
        hparams: the settings.
        pair: model and tokenizer, both None where they are only named.
        device: where a named model is loaded; None as the settings say.
        dtype: of its weights, as `load_model` takes it.
        load: a named model now. Otherwise only what names it is checked.

    Raises:
        RoSEError: no such model or device, the model lacks one of the layers, or they are to be
            found (`layers: auto`) in a model that is not loaded.
    """
    from rose_easyedit.config.hparams import AUTO
    from rose_easyedit.models.loading import check_name, load_model, named_device

    place = hparams.device if device is None else device
    if pair[0] is None and not load:
        named_device(place)
        check_name(hparams.model_name)
        if hparams.layers == AUTO:
            raise RoSEError(
                "layers is auto, and a memory keeps the layers that it is begun with; name them "
                "(rose-edit locate finds some), or begin it with its model loaded."
            )
        return hparams, pair

    from rose_easyedit.method.prepared import Prepared

    model, tokenizer = load_model(hparams.model_name, place, dtype) if pair[0] is None else pair
    return Prepared.of(model, tokenizer, hparams).hparams, (model, tokenizer)


def check_same(kept: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Refuses settings that would give other edits than those of the memory."""
    if faults := differences(kept, given):
        raise RoSEError.of(
            "The memory was begun with other settings; leave the settings out, or begin another "
            "memory:",
            faults,
        )
