"""The certificate: a query that lands within the tolerance, D(q) <= R, should be answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any


@dataclass(frozen=True)
class Certificate:
    """How well D <= R predicts which queries are answered; None where a rate has no denominator.

    Attributes:
        queries: how many there are.
        certified: how many have D <= R.
        answered: how many were answered.
        precision: share of the certified queries that were answered.
        recall: share of the answered queries that were certified.
        accuracy: share of the queries of which the certificate was right.
        auc: area under the ROC curve of the score R / D: the chance that an answered query has
            the higher score of the two, where one is drawn that was answered and one that was not.
    """

    queries: int
    certified: int
    answered: int
    precision: float | None
    recall: float | None
    accuracy: float | None
    auc: float | None

    def as_dict(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


def certify(
    deviations: Sequence[float], radii: Sequence[float], answered: Sequence[bool]
) -> Certificate:
    """Compares the certificate with what was answered.

    Args:
        deviations: D of each query, Q.
        radii: R of each query's fact, Q.
        answered: whether the edited model answered it, Q.
    """
    certified = [d <= r for d, r in zip(deviations, radii, strict=True)]
    both = sum(c and a for c, a in zip(certified, answered, strict=True))
    right = sum(c == a for c, a in zip(certified, answered, strict=True))
    scores = [margin(d, r) for d, r in zip(deviations, radii, strict=True)]
    return Certificate(
        queries=len(answered),
        certified=sum(certified),
        answered=sum(answered),
        precision=_ratio(both, sum(certified)),
        recall=_ratio(both, sum(answered)),
        accuracy=_ratio(right, len(answered)),
        auc=area_under_roc(scores, answered),
    )


def margin(deviation: float, radius: float) -> float:
    """R / D, at least 1 exactly where D <= R, also where D is 0."""
    if deviation > 0:
        return radius / deviation
    return float("inf") if radius > 0 else 1.0


def area_under_roc(scores: Sequence[float], positive: Sequence[bool]) -> float | None:
    """Area under the ROC curve from the ranks of the scores (Mann and Whitney's U), ties halved.

    None unless there are positives and negatives.
    """
    n_positive = sum(positive)
    n_negative = len(positive) - n_positive
    if not n_positive or not n_negative:
        return None
    ordered = sorted(zip(scores, positive, strict=True))
    wins, negatives_below = 0.0, 0
    for _, tied in groupby(ordered, key=lambda pair: pair[0]):
        marks = [mark for _, mark in tied]
        negatives_here = len(marks) - sum(marks)
        wins += sum(marks) * (negatives_below + negatives_here / 2)
        negatives_below += negatives_here
    return wins / (n_positive * n_negative)


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
