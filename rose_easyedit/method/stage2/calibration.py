"""How much of an edit a locality budget lets through: one scale for all its layers.

The user names how far the next token may drift (KL, in nats), not a weight of a constraint. What
drifts is measured on the edit's own prompts with subjects that nothing else in the edit has heard
of, so the answer is not flattered by what was protected.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rose_easyedit.edits.factors import Factors
from rose_easyedit.errors import RoSEError
from rose_easyedit.method.stage2.drift import NextTokens
from rose_easyedit.models.architectures import EditableModel
from rose_easyedit.text.locate_subject import TokenQuery

logger = logging.getLogger(__name__)

# The scale is found to within 1/64.
_HALVINGS = 6


@dataclass(frozen=True)
class Calibration:
    """What a budget did to an edit.

    Attributes:
        budget: the drift allowed, nats.
        drift: of the whole edit, nats.
        scale: of the edit that is within the budget.
        scaled_drift: of that edit, nats.
    """

    budget: float
    drift: float
    scale: float
    scaled_drift: float


def within_budget(drift_at: Callable[[float], float], budget: float) -> Calibration:
    """The largest scale whose drift is within a budget, by bisection.

    Args:
        drift_at: the drift of the edit at a scale from 0 to 1, which grows with it.
        budget: the drift allowed, above 0.
    """
    whole = drift_at(1.0)
    if whole <= budget:
        return Calibration(budget, whole, 1.0, whole)
    low, low_drift, high = 0.0, 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        drift = drift_at(middle)
        if drift <= budget:
            low, low_drift = middle, drift
        else:
            high = middle
    return Calibration(budget, whole, low, low_drift)


def calibrate(
    editable: EditableModel,
    queries: Sequence[TokenQuery],
    updates: Mapping[int, Factors],
    budget: float,
    batch: int,
) -> tuple[dict[int, Factors], Calibration]:
    """An edit scaled to a locality budget.

    Args:
        editable: the unedited model; call inside `frozen`.
        queries: what shall drift no further, up to their last token; at least one.
        updates: layer to its update.
        budget: mean KL(before || after) of the next token allowed, nats.
        batch: sequences at once.

    Raises:
        RoSEError: the budget lets nothing of the edit through, or the memory does not hold one
            sequence.
    """
    next_tokens = NextTokens(editable, [query.ids for query in queries], min(updates), batch)

    def drift_at(scale: float) -> float:
        moved, _ = next_tokens.drift(scaled(updates, scale))
        return float(moved.mean())

    found = within_budget(drift_at, budget)
    if not found.scale:
        raise RoSEError(
            f"locality_budget is {budget:g} nats, and even {0.5**_HALVINGS:.1%} of the edit drifts "
            f"farther (all of it by {found.drift:.3g}), so nothing would be written; raise it, or "
            "set it to null."
        )
    if found.scale < 1.0:
        logger.warning(
            "the edit drifts by %.3f nats, its budget is %.3f: it is scaled to %.2f of itself, "
            "and may be answered less; fewer facts or a larger locality_budget keep more of it",
            found.drift,
            budget,
            found.scale,
        )
    return scaled(updates, found.scale), found


def scaled(updates: Mapping[int, Factors], scale: float) -> dict[int, Factors]:
    """Each update times a number."""
    return {
        layer: Factors(update.left * scale, update.right, update.transposed)
        for layer, update in updates.items()
    }
