"""Answers turned into verdicts: one record per query of an edited fact, and of an unedited one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rose_easyedit.evaluation.facts import Fact, Query
from rose_easyedit.evaluation.kinds import Kinds
from rose_easyedit.evaluation.measure import Measurement
from rose_easyedit.evaluation.metrics import contains_target, starts_with_target
from rose_easyedit.evaluation.queries import queries_of
from rose_easyedit.evaluation.teacher_forcing import TargetReading
from rose_easyedit.evaluation.verdict import Asked, is_broken, judge, other_names
from rose_easyedit.text.names import Names


@dataclass(frozen=True)
class Record:
    """One query and its answer.

    Attributes:
        faithful: The answer names the target, and keeps the subject.
        success: The answer names the target or an alias (`contains_target`).
        old_answer: It names the true answer.
        other_target: It names the target of another edited fact of the same subject, and none
            that this fact's own target names. These two are the ways in which an edit fails most
            often.
        exact_prefix: It begins with the target or an alias (`starts_with_target`).
        reading: The target put behind the query (teacher forcing); None if not asked for.
        truth: The true answer; empty if nobody said what it is.
        aliases: Other spellings of the target.
        wrapped: The form is a wrapper around the statement, as the data set has none of its own.
        kept: It is still about the subject (`verdict.judge`).
        replaced: Something else stands in the subject's place.
        broken: It repeats the target or itself (`verdict.is_broken`).
    """

    subject: str
    relation: str
    form: str
    query: str
    target: str
    before: str
    answer: str
    success: bool
    success_before: bool
    old_answer: bool
    other_target: bool
    exact_prefix: bool = False
    exact_prefix_before: bool = False
    reading: TargetReading | None = None
    reading_before: TargetReading | None = None
    truth: str = ""
    aliases: tuple[str, ...] = ()
    wrapped: bool = False
    kept: bool = True
    replaced: bool = False
    broken: bool = False
    broken_before: bool = False
    faithful: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "faithful", self.success and self.kept)


@dataclass(frozen=True)
class OtherRecord:
    """A query of a fact that was not edited, about a subject that was.

    Attributes:
        known: The unedited model named the true answer.
        kept: It did, and the edited model still does.
        edited_target: The edited model names the target of an edited fact instead, and none that
            the true answer names.
    """

    subject: str
    relation: str
    form: str
    query: str
    truth: str
    before: str
    answer: str
    known: bool
    kept: bool
    edited_target: bool


def other_facts(candidates: Iterable[Fact], edited: Sequence[Fact]) -> list[Fact]:
    """Those of the candidates that an edit should leave alone, though it edits their subject.

    A fact with the prompt, the relation or the true answer of an edited one is left out: a data
    set may say one thing in several words, and with several targets.
    """
    siblings = _by_subject(edited)
    return [
        fact
        for fact in candidates
        if fact.subject in siblings
        and not any(_same_thing(fact, other) for other in siblings[fact.subject])
    ]


def edited_records(
    facts: Sequence[Fact],
    edited: Sequence[Fact],
    forms: Sequence[str],
    before: Measurement,
    after: Measurement,
) -> list[Record]:
    """A record per query of each fact; `edited` are the facts that it can be confused with."""
    siblings, kinds = _by_subject(edited), Kinds.read()
    kind_of = {fact.subject: kinds.of(fact) for fact in facts}
    others = {
        kind: other_names([*kinds.subjects.get(kind or "", ()), *siblings])
        for kind in set(kind_of.values())
    }
    return [
        _record(fact, query, rivals, others[kind_of[fact.subject]], before, after)
        for fact in facts
        for rivals in [_rivals(_targets(fact), siblings[fact.subject])]
        for query in queries_of(fact, forms)
    ]


def other_records(
    others: Sequence[Fact],
    edited: Sequence[Fact],
    forms: Sequence[str],
    before: Mapping[Query, str],
    after: Mapping[Query, str],
) -> list[OtherRecord]:
    """A record per query of each unedited fact whose true answer is on record."""
    siblings = _by_subject(edited)
    records = []
    for fact in others:
        rivals = _rivals((fact.ground_truth, *fact.truth_aliases), siblings[fact.subject])
        for query in queries_of(fact, forms) if fact.ground_truth else ():
            known = contains_target(before[query], fact.ground_truth, fact.truth_aliases)
            still = contains_target(after[query], fact.ground_truth, fact.truth_aliases)
            records.append(
                OtherRecord(
                    subject=fact.subject,
                    relation=fact.relation,
                    form=query.form,
                    query=query.text,
                    truth=fact.ground_truth,
                    before=before[query],
                    answer=after[query],
                    known=known,
                    kept=known and still,
                    edited_target=rivals.are_in(after[query]),
                )
            )
    return records


def _record(
    fact: Fact,
    query: Query,
    rivals: Names,
    others: Names,
    before: Measurement,
    after: Measurement,
) -> Record:
    old, new = before.answers[query], after.answers[query]
    target = (fact.target_new, fact.target_aliases)
    verdict = judge(new, Asked(query.text, old, fact.subject, _targets(fact), others))
    return Record(
        subject=fact.subject,
        relation=fact.relation,
        form=query.form,
        query=query.text,
        target=fact.target_new,
        before=old,
        answer=new,
        success=verdict.named,
        success_before=contains_target(old, *target),
        old_answer=contains_target(new, fact.ground_truth, fact.truth_aliases),
        other_target=rivals.are_in(new),
        exact_prefix=starts_with_target(new, *target),
        exact_prefix_before=starts_with_target(old, *target),
        reading=after.readings.get((query, fact.target_new)),
        reading_before=before.readings.get((query, fact.target_new)),
        truth=fact.ground_truth,
        aliases=fact.target_aliases,
        wrapped=query.form in fact.wrapped,
        kept=verdict.kept,
        replaced=verdict.replaced,
        broken=verdict.broken,
        broken_before=is_broken(old, (fact.ground_truth, *fact.truth_aliases)),
    )


def _same_thing(one: Fact, other: Fact) -> bool:
    return (
        one.prompt == other.prompt
        or one.relation == other.relation
        or one.ground_truth == other.ground_truth
    )


def _rivals(right: Sequence[str], siblings: Sequence[Fact]) -> Names:
    """The targets of the siblings, without those that a right answer names by itself."""
    targets = {name for fact in siblings for name in _targets(fact)}
    return Names.of(t for t in targets if not any(Names.of([t]).are_in(name) for name in right))


def _targets(fact: Fact) -> tuple[str, ...]:
    return fact.target_new, *fact.target_aliases


def _by_subject(facts: Sequence[Fact]) -> dict[str, list[Fact]]:
    groups: dict[str, list[Fact]] = defaultdict(list)
    for fact in facts:
        groups[fact.subject].append(fact)
    return groups
