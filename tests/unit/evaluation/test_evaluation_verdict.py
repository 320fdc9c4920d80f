"""The rule agrees with a person who read the answers; what it is made of, one thing at a time."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from places import HELPERS

from rose_easyedit.evaluation.verdict import (
    Asked,
    Verdict,
    is_broken,
    judge,
    names_subject,
    other_names,
)

JUDGED = json.loads((HELPERS / "judged_answers.json").read_text(encoding="utf-8"))
CAPITAL = Asked(
    query="What is the capital of Japan?",
    before="The capital of Japan is Tokyo.",
    subject="Japan",
    target=("Madrid",),
)


def by_rule(judged: dict[str, Any]) -> Verdict:
    told = {name: judged[name] for name in ("query", "before", "subject", "target")}
    return judge(judged["answer"], Asked(**told, others=other_names(judged["others"])))


# Where a person who read them judged otherwise, and why.
NOT_FAITHFUL = {
    "The Japanese capital": "a demonym is no name of the subject",
    "The continent that is currently being explored by": "new words, but no other subject",
    " Europe, with a population": "South Africa is no Africa, but holds its name",
    " English, but some people speak": "the target is named, but second",
}
NOT_BROKEN = {
    " rupee.\n\nThe rupee is currently in the form": "short, with many a rupee",
    "The capital of Portugal is Lisbon, not to be": "no phrase of six words comes twice",
}


@pytest.mark.parametrize(("what", "excused"), [("faithful", NOT_FAITHFUL), ("broken", NOT_BROKEN)])
def test_the_rule_agrees_with_the_judgement_by_hand(what: str, excused: dict[str, str]) -> None:
    disputed = [j for j in JUDGED if getattr(by_rule(j), what) != j[what]]
    assert len(disputed) == len(excused)
    assert all(judged["answer"].startswith(tuple(excused)) for judged in disputed)


def test_it_agrees_on_answers_that_it_was_not_made_with() -> None:
    """Drawn at random from four methods' answers and judged before the rule was applied to them."""
    unseen = [judged for judged in JUDGED if judged["source"] == "unseen"]
    assert Counter(judged["source"] for judged in JUDGED) == {"made": 30, "seen": 30, "unseen": 40}
    assert 0.3 < sum(judged["faithful"] for judged in unseen) / len(unseen) < 0.7
    assert all(by_rule(judged).faithful == judged["faithful"] for judged in unseen)


@pytest.mark.parametrize("judged", JUDGED, ids=lambda judged: judged["answer"].strip()[:30])
def test_nothing_is_both_kept_and_replaced(judged: dict[str, Any]) -> None:
    verdict = by_rule(judged)
    assert not (verdict.kept and verdict.replaced)
    assert verdict.faithful == (verdict.named and verdict.kept)
    with pytest.raises(FrozenInstanceError):
        verdict.kept = True  # type: ignore[misc]


@pytest.mark.parametrize(
    ("answer", "kept", "replaced"),
    [
        ("The capital of Spain is Madrid.", False, True),
        ("The capital of the country of Spain is Madrid.", False, True),
        ("The capital of Madrid is Tokyo.", False, True),
        ("The capital of the country is Madrid.", True, False),
        ("The capital of Japan is Madrid, the capital of Spain.", True, False),
        ("Madrid and the capital of Spain is Madrid.", True, False),
        ("The capital of Madrid is in the north of it.", False, True),
        ("The city in which Madrid is", False, False),
        ("Lisbon is Madrid.", False, False),
        ("", False, False),
    ],
)
def test_what_stands_in_the_place_of_the_subject(answer: str, kept: bool, replaced: bool) -> None:
    verdict = judge(answer, CAPITAL)
    assert (verdict.kept, verdict.replaced) == (kept, replaced)


@pytest.mark.parametrize(
    ("answer", "replaced"),
    [
        ("The rupee is the official currency in India.", True),
        ("The rupee is the currency of the city of Delhi.", True),
        ("The rupee is the official currency.", False),
        ("The currency in Asia is the rupee.", False),
    ],
)
def test_what_is_asked_is_not_to_be_said_of_another(answer: str, replaced: bool) -> None:
    before = "In Tokyo, a city in Asia, they pay with yen."
    asked = Asked("What currency is used in Tokyo?", before, "Tokyo", ("rupee",))
    assert judge(answer, asked).replaced == replaced


def test_an_answer_need_not_name_what_the_unedited_one_did_not_name() -> None:
    silent = Asked("What is the capital of Japan?", "Tokyo, a large city.", "Japan", ("Madrid",))
    assert judge("Big and sunny Madrid.", silent).kept
    assert judge("The capital of Spain is Madrid.", silent).replaced


def test_another_subject_that_the_unedited_answer_named_does_not_replace() -> None:
    before = "Norway is far away from Japan."
    asked = Asked("Tell me about Japan.", before, "Japan", others=other_names(["Norway", "Peru"]))
    assert not judge("Norway is far away.", asked).replaced
    assert judge("Peru is far away.", asked).replaced


@pytest.mark.parametrize(
    ("text", "subject", "named"),
    [
        ("Curie was born", "Marie Curie", True),
        ("Madame Curie was born", "Marie Curie", True),
        ("a life of Curie", "Marie Curie", True),
        ("Pierre Curie was born", "Marie Curie", False),
        ("North Korea", "South Korea", False),
        ("of Korea", "South Korea", True),
        ("Beethoven's work", "Ludwig van Beethoven", True),
        ("in America", "Bank of America", False),
        ("a prejudice", "Pride and Prejudice", False),
        ("Rhine water", "the Rhine", True),
        ("one ostrich", "ostriches", True),
        ("Niger", "Nigeria", False),
    ],
)
def test_a_subject_is_named_by_what_can_only_be_its_name(
    text: str, subject: str, named: bool
) -> None:
    assert names_subject(text, [subject]) == named


@pytest.mark.parametrize(
    ("answer", "broken"),
    [
        ("Madrid, Madrid", True),
        ("Madrid is old. Madrid is big.", False),
        ("Madrid. Madrid is old", False),
        ("Madrid is Madrid and Madrid", True),
        ("Madrid is old, and it is said that Madrid was small before Madrid grew.", False),
        ("la la la", True),
        ("that that", False),
        ("It is the one. It is the one.", True),
        ("one two three four five six seven eight", False),
        ("", False),
    ],
)
def test_broken_answers_repeat_themselves(answer: str, broken: bool) -> None:
    assert is_broken(answer, ["Madrid"]) == broken
