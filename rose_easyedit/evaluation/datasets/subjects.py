"""The same-subject view of a data set: subjects with several facts, and draws of them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter

from rose_easyedit.errors import RoSEError
from rose_easyedit.evaluation.facts import MOST_FACTS, Fact


def same_subject_view(
    facts: Iterable[Fact],
    *,
    at_least: int = 2,
    facts_per_subject: int | None = None,
    subjects: int | None = None,
    seed: int = 0,
) -> tuple[Fact, ...]:
    """The facts of subjects that have several, subject by subject.

    Of facts with the same subject and prompt the first is kept: the others repeat it, or
    contradict it with another target. Subjects and their facts are in the order of `facts`.

    A draw depends on the seed and on what is drawn from, not on its order, and a smaller draw is
    part of a larger one: with `at_least` set to the largest number, 2 facts of each subject are
    among the 3 facts of the same subjects.

    Args:
        facts: Facts of any subjects.
        at_least: Keep the subjects with this many facts or more.
        facts_per_subject: Draw this many facts of each subject, 1 to 10; all facts by default.
        subjects: Draw this many subjects; all by default.
        seed: Chooses the draw.

    Raises:
        RoSEError: If a number is out of range, or there are too few subjects with so many facts;
            with how many there are.
    """
    _check(at_least, facts_per_subject, subjects)
    needed = max(at_least, facts_per_subject or 1)
    groups = _by_subject(facts)
    names = sorted(name for name, group in groups.items() if len(group) >= needed)
    if len(names) < (subjects or 1):
        raise _too_few(groups, needed, subjects or 1)
    random.Random(seed).shuffle(names)
    chosen = set(names[:subjects])
    return tuple(
        fact
        for name, group in groups.items()
        if name in chosen
        for fact in _draw(group, facts_per_subject, f"{seed}/{name}")
    )


def _by_subject(facts: Iterable[Fact]) -> dict[str, list[Fact]]:
    first: dict[tuple[str, str], Fact] = {}
    for fact in facts:
        first.setdefault((fact.subject, fact.prompt), fact)
    groups: dict[str, list[Fact]] = {}
    for fact in first.values():
        groups.setdefault(fact.subject, []).append(fact)
    return groups


def _draw(group: Sequence[Fact], count: int | None, seed: str) -> list[Fact]:
    drawn = sorted(group, key=attrgetter("prompt"))
    random.Random(seed).shuffle(drawn)
    prompts = {fact.prompt for fact in drawn[:count]}
    return [fact for fact in group if fact.prompt in prompts]


def _check(at_least: int, facts_per_subject: int | None, subjects: int | None) -> None:
    faults = []
    if at_least < 1:
        faults.append(f"at_least is {at_least}; give 1 or more")
    if facts_per_subject is not None and not 1 <= facts_per_subject <= MOST_FACTS:
        faults.append(f"facts_per_subject is {facts_per_subject}; give 1 to {MOST_FACTS}")
    if subjects is not None and subjects < 1:
        faults.append(f"subjects is {subjects}; give 1 or more")
    if faults:
        raise RoSEError.of("This view of the subjects cannot be had:", faults)


def _too_few(groups: Mapping[str, Sequence[Fact]], needed: int, wanted: int) -> RoSEError:
    def having(number: int) -> int:
        return sum(len(group) >= number for group in groups.values())

    counts = ", ".join(f"{number}: {having(number)}" for number in range(1, needed + 1))
    return RoSEError(
        f"{wanted} subject(s) with {needed} or more facts are asked for, and {having(needed)} have "
        f"as many; ask for fewer. Subjects by how many facts they have at least: {counts}."
    )
