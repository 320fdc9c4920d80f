"""Records that say the same thing, as one fact."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import chain

from rose_easyedit.evaluation.facts import Fact


def merged(facts: Iterable[Fact]) -> list[Fact]:
    """The facts, those of one subject, prompt and target as one that has all their wordings.

    A data set may hold one fact in several records, which differ in a paraphrase, an alias or a
    neighbour. The relation is that of the first; a true answer that differs is one more alias.
    """
    groups: dict[tuple[str, str, str], list[Fact]] = {}
    for fact in facts:
        groups.setdefault(fact.to_request().identity, []).append(fact)
    return [_joined(group) if len(group) > 1 else group[0] for group in groups.values()]


def _joined(group: list[Fact]) -> Fact:
    truths = _each_once((fact.ground_truth, *fact.truth_aliases) for fact in group)
    truth, *truth_aliases = [text for text in truths if text] or [""]
    return replace(
        group[0],
        ground_truth=truth,
        paraphrases=_each_once(fact.paraphrases for fact in group),
        questions=_each_once(fact.questions for fact in group),
        instructions=_each_once(fact.instructions for fact in group),
        target_aliases=_each_once(fact.target_aliases for fact in group),
        truth_aliases=tuple(truth_aliases),
        neighbours=_each_once(fact.neighbours for fact in group),
    )


def _each_once(groups: Iterable[Iterable[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(chain.from_iterable(groups)))
