"""The edit of a memory, solved once: kept on this machine under all that it depends on.

One file for each memory, in the cache. It can be computed again, and is where it is missing,
damaged, or of something else: other facts or targets, another model, another version.
"""

from __future__ import annotations

import logging
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rose_easyedit.cache.entries import Cache, CacheEntry, key_of
from rose_easyedit.config.paths import cache_dir
from rose_easyedit.config.results_version import EDITS
from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.edits.file import content_of, edit_of
from rose_easyedit.errors import RoSEError
from rose_easyedit.memory.entries import Snapshot, group_digest
from rose_easyedit.models.fingerprint import computation_fingerprint
from rose_easyedit.text.token_ids import token_ids

if TYPE_CHECKING:
    from rose_easyedit.config.hparams import RoSEHyperParams

logger = logging.getLogger(__name__)

_FORMAT = 2


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
    return key_of(parts)


def load_solved(memory: Path, key: str, model: Any) -> EditDelta | None:
    """What is kept of a memory under a key; None if nothing is, or what is there is damaged.

    What the edit's check of itself has warned of is warned of again.

    Args:
        memory: its file.
        key: from `solved_key`.
        model: the base model, unedited; what is of another one is damaged.
    """
    try:
        cache = Cache(default_folder())
    except RoSEError as error:
        logger.warning("the edit of the memory is computed again: %s", error)
        return None
    kept = cache.read(key, _delta, name=_name(memory))
    if kept is None:
        return None
    delta, warnings = kept
    try:
        if not delta.is_of(model):
            return None
    except RoSEError as error:  # it has other weights
        logger.warning("the kept edit of the memory is computed again: %s", error)
        return None
    for line in warnings:
        logger.warning("%s", line)
    return delta


def keep_solved(memory: Path, key: str, delta: EditDelta) -> None:
    """Keeps the edit of a memory in place of an earlier one; says so where it cannot.

    Args:
        memory: its file.
        key: from `solved_key`.
        delta: its edit; not changed.
    """
    record, tensors = content_of(delta.as_record())
    try:
        Cache(default_folder()).write(key, CacheEntry(tensors, record), name=_name(memory))
    except RoSEError as error:
        logger.warning("the edit of the memory is not kept for the next question: %s", error)


def _delta(entry: CacheEntry) -> tuple[EditDelta, list[str]]:
    """The edit of an entry, and what it has warned of."""
    delta = EditDelta.from_record(edit_of(entry.record, entry.tensors, "the kept edit"))
    log, checked = delta.provenance.log, delta.provenance.self_check
    return delta, [*log, *(checked.warnings if checked else ())]


def _name(memory: Path) -> str:
    """Of the one file for a memory; it tells nothing but which one that is."""
    return key_of([_FORMAT, str(memory)])
