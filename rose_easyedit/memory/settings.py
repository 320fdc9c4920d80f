"""The settings of a memory: fixed when it is begun, since its targets depend on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rose_easyedit.errors import RoSEError
from rose_easyedit.memory.file import MemoryFile
from rose_easyedit.settings_compared import differences

if TYPE_CHECKING:
    from rose_easyedit.hparams import RoSEHyperParams


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
    from rose_easyedit.hparams import RoSEHyperParams

    if isinstance(given, (str, Path)):
        given = RoSEHyperParams.from_hparams(given)
    if given is None and not MemoryFile(path).is_begun:
        if model not in (None, "embedded"):
            raise RoSEError(
                f"A new memory for the model {model!r} needs its settings; give hparams, by name, "
                "path or as an object."
            )
        given = RoSEHyperParams.from_hparams("smollm2-135m")
    return given if given is None or not model else replace(given, model_name=model)


def check_same(kept: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Refuses settings that would give other edits than those of the memory."""
    if faults := differences(kept, given):
        raise RoSEError.of(
            "The memory was begun with other settings; leave the settings out, or begin another "
            "memory:",
            faults,
        )
