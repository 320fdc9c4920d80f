"""Intervals of a mean over facts that are not independent of each other."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

_RESAMPLES = 2000


def bootstrap_interval(
    values: Mapping[str, Sequence[float]], *, level: float = 0.95, seed: int = 0
) -> tuple[float, float] | None:
    """Percentile interval of the mean when whole groups (subjects) are drawn with replacement.

    Facts of one subject succeed and fail together, so drawing single facts would pretend to more
    evidence than there is. None of fewer than two groups, which say nothing of how groups differ.
    """
    groups = [(sum(group), len(group)) for group in values.values() if group]
    if len(groups) < 2:
        return None
    draw = random.Random(seed)
    means = []
    for _ in range(_RESAMPLES):
        sample = draw.choices(groups, k=len(groups))
        means.append(sum(total for total, _ in sample) / sum(count for _, count in sample))
    means.sort()
    tail = round((1 - level) / 2 * (_RESAMPLES - 1))
    return means[tail], means[-1 - tail]
