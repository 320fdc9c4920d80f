"""What an edit says of itself, and what of it is damage: numbers in, warnings out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rose_easyedit.config.hparams import SelfCheckHyperParams
from rose_easyedit.files.records import shorten_faults

_ELSEWHERE = "try other layers (`rose-edit locate` suggests some)"
_MILDER = (
    "raise alignment.strength or alignment.protected_share, write fewer facts at once, set "
    "alignment.locality_budget, or try other layers (`rose-edit locate` suggests some)"
)


@dataclass(frozen=True)
class CheckedFact:
    """What became of one fact.

    Attributes:
        reached: share of its way to the target that the subject's hidden state has gone, the mean
            over the fact's contexts: 0 where it was, 1 at the target.
        least_reached: the least over them.
        written: loss of the statement with the edit in place, -log P of a target token in nats, the
            mean over the tokens and the contexts.
        answered: whether the target is the greedy continuation of the statement, in the fact's
            first context: the bare statement, unless that was left out.
    """

    reached: float
    least_reached: float
    written: float
    answered: bool


@dataclass(frozen=True)
class Drift:
    """How far the token after some texts moves.

    Attributes:
        kl: KL(before || after), nats, the mean over the texts.
        top1: share of the texts whose likeliest token is the same one.
        prompts: how many texts there are.
    """

    kl: float
    top1: float
    prompts: int


@dataclass(frozen=True)
class Measured:
    """What was read from the model with the edit in place.

    Attributes:
        facts: of each request.
        drift: of "generic" texts, and of "neighbours": the edit's own prompts with subjects that
            nothing else in the edit has heard of, if there are any.
    """

    facts: Sequence[CheckedFact]
    drift: Mapping[str, Drift]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for an edit's record, None in place of a number that is not finite."""
        return {
            "facts": [_plain(fact) for fact in self.facts],
            "drift": {name: _plain(drift) for name, drift in self.drift.items()},
        }


def warnings_of(
    measured: Measured,
    learned: Sequence[float],
    labels: Sequence[str],
    limits: SelfCheckHyperParams,
) -> list[str]:
    """What is wrong with an edit: a text for each sort of damage, which names the facts.

    A fact is named once, by the first thing that went wrong with it.

    Args:
        measured: the edit.
        learned: the loss of each fact that stage 1 ended with, nats per target token.
        labels: what each fact is called.
        limits: what is no damage yet.
    """
    left = list(range(len(labels)))
    found = []
    for what, advice, fault in _sorts_of_damage(limits):
        faults = {i: text for i in left if (text := fault(learned[i], measured.facts[i]))}
        left = [i for i in left if i not in faults]
        if faults:
            named = shorten_faults([f"{labels[i]} ({text})" for i, text in faults.items()])
            found.append(
                f"{len(faults)} of {len(labels)} facts {what}: {'; '.join(named)}. To mend it, "
                f"{advice}."
            )
    return found + [
        text
        for name, drift in measured.drift.items()
        if (text := _drift_warning(name, drift, _most_drift(name, limits)))
    ]


def _sorts_of_damage(
    limits: SelfCheckHyperParams,
) -> list[tuple[str, str, Callable[[float, CheckedFact], str]]]:
    """What can be wrong with a fact, what mends it, and what of a fact at fault says so.

    The first sort that applies to a fact is what is wrong with it.
    """
    missed = 1 - limits.least_reached
    unanswered = "the target does not follow, or " if limits.must_answer else ""
    return [
        (
            "gave numbers that are not finite",
            "lower the learning rates and hierarchy.clamp_norm, or use precision: weights",
            lambda loss, fact: "" if _is_finite(fact) and math.isfinite(loss) else "not finite",
        ),
        (
            f"not learned: the loss of stage 1 is above {limits.most_loss:g}",
            f"{_ELSEWHERE}, or lower learning rates and more steps",
            lambda loss, _: f"loss {loss:.2f}" if loss > limits.most_loss else "",
        ),
        (
            f"not reached by {missed:g} of the way",
            "lower alignment.strength, edit more layers, or write fewer facts at once",
            lambda _, fact: (
                f"{fact.reached:.2f} of its way" if abs(1 - fact.reached) > missed else ""
            ),
        ),
        (
            f"not written: {unanswered}the loss of the statement is above {limits.most_loss:g}",
            f"lower alignment.strength, {_ELSEWHERE.removeprefix('try ')}, or fewer facts at once",
            lambda _, fact: (
                f"loss {fact.written:.2f}"
                if fact.written > limits.most_loss or (limits.must_answer and not fact.answered)
                else ""
            ),
        ),
    ]


def _drift_warning(name: str, drift: Drift, most: float) -> str:
    if drift.kl <= most:
        return ""
    texts = {"generic": "generic texts", "neighbours": "of its prompts with other subjects"}[name]
    far = f"by {drift.kl:.2f} nats" if math.isfinite(drift.kl) else "to numbers not finite"
    return (
        f"the edit moves what follows {drift.prompts} {texts} {far}, where {most:g} is the most "
        f"that is no damage, and the likeliest token is the same after {drift.top1:.0%} of them. "
        f"To mend it, {_MILDER}."
    )


def _most_drift(name: str, limits: SelfCheckHyperParams) -> float:
    return limits.most_drift if name == "generic" else limits.most_neighbour_drift


def _is_finite(record: CheckedFact | Drift) -> bool:
    return all(map(math.isfinite, asdict(record).values()))


def _plain(record: CheckedFact | Drift) -> dict[str, Any]:
    return {name: value if math.isfinite(value) else None for name, value in asdict(record).items()}
