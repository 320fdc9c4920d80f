"""The answers of an evaluation as the rows of a page, with what each showed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rose_easyedit.evaluation.facts import SUBJECT
from rose_easyedit.text.names import Names


@dataclass(frozen=True)
class TextPart:
    """A piece of an answer; `marked` where it is the target."""

    text: str
    marked: bool


@dataclass(frozen=True)
class Badge:
    """What a query showed; `tone` is "good", "bad" or neither."""

    name: str
    tone: str = ""


FAITHFUL = Badge("faithful", "good")
NAMED, MISSED = Badge("target named"), Badge("target missed", "bad")
REPLACED, DROPPED = Badge("subject replaced", "bad"), Badge("subject not kept", "bad")
BROKEN = Badge("broken", "bad")
OLD_ANSWER = Badge("old answer", "bad")
INTERFERENCE = Badge("another fact's target", "bad")
KEPT, LOST = Badge("true answer kept", "good"), Badge("true answer lost", "bad")
UNKNOWN_BEFORE = Badge("not known before")
SAME, CHANGED = Badge("same answer", "good"), Badge("answer changed", "bad")


@dataclass(frozen=True)
class Answer:
    """One row of the page's list."""

    subject: str
    relation: str
    form: str
    query: str
    target: str
    before: Sequence[TextPart]
    after: Sequence[TextPart]
    verdicts: Sequence[Badge]


def answers_of(report: Mapping[str, Any]) -> list[Answer]:
    """Every answer of `EvaluationResult.as_dict()`: edited facts, others, and other prompts."""
    return [
        *(_of_record(record) for record in report["records"]),
        *(_of_other(record) for record in report["others"]),
        *(_of_prompt(prompt) for prompt in report["locality"] if "answer" in prompt),
    ]


def parts_of(answer: str, names: Sequence[str]) -> list[TextPart]:
    """The answer in pieces, those marked that are one of the names as a whole word."""
    return [TextPart(text, marked) for text, marked in Names.of(names).split(answer.strip())]


def _of_record(record: Mapping[str, Any]) -> Answer:
    names = [record["target"], *record["aliases"]]
    verdicts = [FAITHFUL if record["faithful"] else NAMED if record["success"] else MISSED]
    if not record["kept"]:
        verdicts.append(REPLACED if record["replaced"] else DROPPED)
    if record["broken"]:
        verdicts.append(BROKEN)
    if record["old_answer"]:
        verdicts.append(OLD_ANSWER)
    if record["other_target"]:
        verdicts.append(INTERFERENCE)
    return Answer(
        subject=record["subject"],
        relation=record["relation"],
        form=record["form"],
        query=record["query"],
        target=record["target"],
        before=parts_of(record["before"], names),
        after=parts_of(record["answer"], names),
        verdicts=verdicts,
    )


def _of_other(record: Mapping[str, Any]) -> Answer:
    verdicts = [KEPT if record["kept"] else LOST] if record["known"] else [UNKNOWN_BEFORE]
    if record["edited_target"]:
        verdicts.append(INTERFERENCE)
    return Answer(
        subject=record["subject"],
        relation=record["relation"],
        form="other fact",
        query=record["query"],
        target=f"not edited: {record['truth']}",
        before=parts_of(record["before"], [record["truth"]]),
        after=parts_of(record["answer"], [record["truth"]]),
        verdicts=verdicts,
    )


def _of_prompt(prompt: Mapping[str, Any]) -> Answer:
    kind = prompt["kind"]
    return Answer(
        subject=prompt["subject"] if kind == SUBJECT else "",
        relation="",
        form="about the subject" if kind == SUBJECT else kind,
        query=prompt["text"],
        target="not edited",
        before=parts_of(prompt["before"], []),
        after=parts_of(prompt["answer"], []),
        verdicts=[SAME if prompt["before"] == prompt["answer"] else CHANGED],
    )
