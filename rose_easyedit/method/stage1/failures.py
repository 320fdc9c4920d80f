"""Facts whose loss is not finite: left out, so that the others of a batch can be written.

The optimisation marks such a fact with a loss of NaN and gives up its group. Here the group is
optimised again without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import isnan

from torch import Tensor

from rose_easyedit.method.stage1.pieces import Group
from rose_easyedit.method.stage1.shifts import Shifts

Optimise = Callable[[Sequence[Group], Tensor], Shifts]


def without_failures(optimise: Optimise, groups: Sequence[Group], start: Tensor) -> Shifts:
    """Optimises groups, those with a failed fact once more from the same start without it.

    Args:
        optimise: from groups and where they begin [n, d] to their shifts.
        groups: n groups.
        start: where each begins, [n, d].

    Returns:
        The shifts; the loss of a fact that was left out is NaN. A group of which every fact was
        left out has a shift of no use.
    """
    found = optimise(groups, start)
    kept = [_finite(losses) for losses in found.losses]
    again = [i for i, group in enumerate(groups) if 0 < len(kept[i]) < len(group.facts)]
    if not again:
        return found
    smaller = [
        replace(groups[i], facts=tuple(groups[i].facts[place] for place in kept[i])) for i in again
    ]
    more = without_failures(optimise, smaller, start[again])
    deltas, losses, steps = found.deltas.clone(), list(found.losses), list(found.steps)
    deltas[again] = more.deltas
    for i, of_kept, taken in zip(again, more.losses, more.steps, strict=True):
        by_place = dict(zip(kept[i], of_kept, strict=True))
        losses[i] = [by_place.get(place, float("nan")) for place in range(len(groups[i].facts))]
        steps[i] = taken
    return replace(found, deltas=deltas, losses=losses, steps=steps)


def usable(found: Shifts, members: Sequence[Sequence[int]]) -> tuple[Shifts, list[int]]:
    """The shifts without those of groups of which every fact was left out.

    Args:
        found: from `without_failures`.
        members: the facts of each group, by index.

    Returns:
        The shifts of the groups that remain, and the facts that they have, in ascending order.
    """
    kept = [_finite(losses) for losses in found.losses]
    rows = [i for i, places in enumerate(kept) if places]
    return (
        replace(
            found,
            deltas=found.deltas[rows],
            losses=[[found.losses[i][place] for place in kept[i]] for i in rows],
            steps=[found.steps[i] for i in rows],
        ),
        sorted(members[i][place] for i in rows for place in kept[i]),
    )


def _finite(losses: Sequence[float]) -> list[int]:
    return [place for place, loss in enumerate(losses) if not isnan(loss)]
