"""The edit of a memory, solved once: kept on this machine under all that it depends on.

One file for each memory, in the cache. It can be computed again, and is where it is missing,
damaged, or of something else: other facts or targets, another model, another version.
"""

from __future__ import annotations

import hashlib
import json
import logging
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rose_easyedit.config.paths import cache_dir
from rose_easyedit.config.results_version import EDITS
from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.errors import RoSEError
from rose_easyedit.memory.entries import Snapshot, group_digest
from rose_easyedit.models.fingerprint import computation_fingerprint
from rose_easyedit.text.token_ids import token_ids

if TYPE_CHECKING:
    from rose_easyedit.config.hparams import RoSEHyperParams

logger = logging.getLogger(__name__)

_FORMAT = 1
# in the record of a kept edit, and of no other
_KEY = "kept_as"


def default_folder() -> Path:
    """Where the edits of memories are kept; not created here.

    Raises:
        RoSEError: the user has no home, and none is named.
    """
    return cache_dir() / "memory"


def solved_key(model: Any, tokenizer: Any, hparams: RoSEHyperParams, snapshot: Snapshot) -> str:
    """Of all that the edit of a memory depends on.

    Args:
        model: the base model.
        tokenizer: its tokenizer.
        hparams: the settings of the memory.
        snapshot: its facts, each with its target.
    """
    facts = [fact for group in snapshot.groups for fact in group]
    texts = [text for fact in facts for text in (fact.prompt, fact.target_new)]
    parts = {
        "format": _FORMAT,
        "edits": EDITS,
        "versions": [version(name) for name in ("rose-easyedit", "torch", "transformers")],
        "model": computation_fingerprint(model),
        "device": model.device.type,
        "template": tokenizer.chat_template,
        "ids": [token_ids(tokenizer, text, special=True) for text in texts],
        "settings": hparams.as_dict(),
        "facts": [fact.as_dict() for fact in facts],
        "targets": [
            snapshot.targets[number].digest(group_digest(group))
            for number, group in enumerate(snapshot.groups)
        ],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def load_solved(memory: Path, key: str, model: Any) -> EditDelta | None:
    """What is kept of a memory under a key; None if nothing is, or what is there is damaged.

    What the edit's check of itself has warned of is warned of again.

    Args:
        memory: its file.
        key: from `solved_key`.
        model: the base model, unedited; what is of another one is damaged.
    """
    try:
        path = _path(memory)
        if not path.is_file():
            return None
        delta = EditDelta.load(path)
        if delta.provenance.pop(_KEY, None) != key or not delta.is_of(model):
            return None
    except (RoSEError, OSError) as error:
        logger.warning("the kept edit of the memory is computed again: %s", error)
        return None
    checked = delta.provenance.get("self_check") or {"warnings": []}
    for line in [*delta.provenance.get("log", []), *checked["warnings"]]:
        logger.warning("%s", line)
    return delta


def keep_solved(memory: Path, key: str, delta: EditDelta) -> None:
    """Keeps the edit of a memory in place of an earlier one; says so where it cannot.

    Args:
        memory: its file.
        key: from `solved_key`.
        delta: its edit; not changed.
    """
    try:
        record = {**delta.provenance, _KEY: key}
        EditDelta(delta.layers, delta.base, record, delta.targets).save(_path(memory))
    except (RoSEError, OSError) as error:
        logger.warning("the edit of the memory is not kept for the next question: %s", error)


def _path(memory: Path) -> Path:
    """Of the one file for a memory; its name tells nothing but which one that is."""
    name = hashlib.sha256(str(memory).encode("utf-8", "surrogateescape")).hexdigest()
    return default_folder() / f"{name[:32]}.safetensors"
