"""Targets that were found before: a group of facts that is asked for again is not optimised again.

A group's target depends on its own facts, the settings and the base model, and on no other group.
Who keeps targets keeps them for one model and one set of settings, and looks them up by facts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rose_easyedit.method.stage1.shifts import Shifts
from rose_easyedit.requests import EditRequest

# (subject, prompt, target) of each fact, in order: a subject's, or of one fact alone
GroupKey = tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class CachedTarget:
    """The target of one group.

    Attributes:
        value: z_s, [d], float32.
        losses: the last loss of each of its facts (nats per target token).
        steps: that were taken to find it.
    """

    value: Tensor
    losses: Sequence[float]
    steps: int


def group_key(requests: Iterable[EditRequest]) -> GroupKey:
    """What a group is looked up by; where a fact comes from is of no concern."""
    return tuple(request.identity for request in requests)


def joined(
    hidden: Tensor, found: Shifts, new: Sequence[int], cached: Mapping[int, CachedTarget]
) -> tuple[Tensor, Shifts]:
    """The targets of all n groups, those of some found now and those of the others before.

    Args:
        hidden: the unedited hidden state of each group, [n, d].
        found: the shifts of the new groups.
        new: which groups these are.
        cached: the other groups' targets, by group.

    Returns:
        The targets [n, d], and the shifts of all groups; their curves are those of the new ones.
    """
    values, deltas = hidden.clone(), torch.zeros_like(hidden)
    losses: list[list[float]] = [[] for _ in hidden]
    steps = [0] * len(hidden)
    for place, group in enumerate(new):
        deltas[group] = found.deltas[place].to(hidden)
        values[group] += deltas[group]
        losses[group], steps[group] = found.losses[place], found.steps[place]
    for group, target in cached.items():
        values[group] = target.value.to(hidden)
        deltas[group] = values[group] - hidden[group]
        losses[group], steps[group] = list(target.losses), target.steps
    return values, Shifts(deltas, losses, steps, found.trajectories)
