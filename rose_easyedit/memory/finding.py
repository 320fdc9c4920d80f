"""The targets that a memory lacks: found, and filed as bytes; or what is wrong with their facts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rose_easyedit.errors import FactError
from rose_easyedit.memory.entries import StoredTarget
from rose_easyedit.memory.store import FactStore
from rose_easyedit.requests import EditRequest

if TYPE_CHECKING:
    from rose_easyedit.config.hparams import RoSEHyperParams
    from rose_easyedit.method.stage1.cached_targets import CachedTarget

logger = logging.getLogger(__name__)

Group = Sequence[EditRequest]


class Finder:
    """Stage 1 for the groups of a memory."""

    def __init__(
        self, store: FactStore, model: Any, tokenizer: Any, hparams: RoSEHyperParams
    ) -> None:
        self._store, self._hparams = store, hparams
        self._model, self._tokenizer = model, tokenizer

    def find(self, groups: Sequence[Group]) -> None:
        """Files the targets of groups, or what is wrong with their facts.

        Raises:
            RoSEError: what is wrong is no fault of the facts, which go on waiting.
        """
        try:
            found = self.optimise(groups)
        except FactError as error:
            if len(groups) == 1:
                self._refuse(groups[0], error)
                return
            for group in groups:
                self.find([group])
        else:
            self._store.keep(zip(groups, found, strict=True))

    def optimise(self, groups: Sequence[Group]) -> Sequence[StoredTarget]:
        """The target of each group.

        Raises:
            FactError: there is none for some of the facts.
        """
        from rose_easyedit.method.stage1.cached_targets import CachedTarget, group_key
        from rose_easyedit.method.stage1.targets import compute_targets

        facts = [fact for group in groups for fact in group]
        targets = compute_targets(self._model, self._tokenizer, facts, self._hparams)
        found = {
            group_key(targets.plan.requests[i] for i in group): stored(CachedTarget(*target))
            for group, *target in zip(
                targets.groups,
                targets.values,
                targets.shifts.losses,
                targets.shifts.steps,
                strict=True,
            )
        }
        keys = [group_key(group) for group in groups]
        if not found.keys() >= set(keys):
            raise FactError.of("These facts are left out:", targets.log)
        return [found[key] for key in keys]

    def _refuse(self, group: Group, fault: FactError) -> None:
        """Notes which facts of a group are at fault: those that fail alone, else all of them."""
        faults = {}
        for fact in group if len(group) > 1 else ():
            try:
                self.optimise([[fact]])
            except FactError as error:
                faults[fact] = error
        for fact, found in (faults or dict.fromkeys(group, fault)).items():
            reason = _reason(found, fact)
            logger.warning("%s is left out: %s", fact.label, reason)
            self._store.refuse(fact, reason)


def _reason(error: FactError, fact: EditRequest) -> str:
    """What is wrong with a fact or its group, without the fact's name, which stands beside it."""
    faults = [fault.removeprefix(f"{fact.label}: ") for fault in error.faults]
    return "; ".join(faults) or str(error)


def cached(target: StoredTarget) -> CachedTarget:
    """A target as the method takes it."""
    import numpy as np
    import torch

    from rose_easyedit.method.stage1.cached_targets import CachedTarget

    value = torch.from_numpy(np.frombuffer(target.value, "<f4").astype(np.float32))
    return CachedTarget(value, target.losses, target.steps)


def stored(target: CachedTarget) -> StoredTarget:
    """A target as the file has it."""
    value = target.value.float().cpu().numpy().astype("<f4")
    return StoredTarget(value.tobytes(), target.losses, target.steps)
