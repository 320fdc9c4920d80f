"""Subjects with several facts are found, cleaned of contradictions, and drawn reproducibly."""

from __future__ import annotations

from collections import Counter

import pytest

from rose_easyedit.errors import RoSEError
from rose_easyedit.evaluation.datasets import same_subject_view
from rose_easyedit.evaluation.facts import Fact


def fact(subject: str, number: int, target: str = "x") -> Fact:
    return Fact(subject, f"r{number}", f"{subject} has {number} of", target, "y")


def facts(**sizes: int) -> list[Fact]:
    """Facts of each subject, those of different subjects mixed."""
    everything = [fact(name, n) for name, size in sizes.items() for n in range(size)]
    return sorted(everything, key=lambda fact: fact.relation)


SIZES = {"D": 1, "B": 2, "A": 4, "E": 4, "C": 7}
FACTS = facts(**SIZES)


def sizes(view: tuple[Fact, ...]) -> dict[str, int]:
    return dict(Counter(fact.subject for fact in view))


def test_subjects_with_several_facts_stay_in_order_subject_by_subject() -> None:
    view = same_subject_view(FACTS)
    assert sizes(view) == {"B": 2, "A": 4, "E": 4, "C": 7}
    assert list(sizes(view)) == ["B", "A", "E", "C"]
    assert view == tuple(fact(name, n) for name in "BAEC" for n in range(SIZES[name]))
    assert list(sizes(same_subject_view(FACTS, at_least=5))) == ["C"]
    assert len(same_subject_view(FACTS, at_least=1)) == len(FACTS)


def test_of_one_prompt_the_first_fact_is_kept() -> None:
    one, two, three = fact("A", 1), fact("A", 2), fact("A", 3)
    contradiction, repeated = fact("A", 1, "z"), fact("A", 2)
    same_words_elsewhere = fact("B", 1)
    assert same_subject_view(
        [one, contradiction, same_words_elsewhere, two, repeated, three], at_least=3
    ) == (one, two, three)
    with pytest.raises(RoSEError):
        same_subject_view([one, contradiction, one])


def test_a_draw_has_the_sizes_asked_for_and_keeps_the_order() -> None:
    view = same_subject_view(FACTS, facts_per_subject=3, subjects=2)
    assert list(sizes(view).values()) == [3, 3] and "B" not in sizes(view)
    for name in sizes(view):
        drawn = [fact.relation for fact in view if fact.subject == name]
        assert drawn == sorted(drawn)
    assert sizes(same_subject_view(FACTS, facts_per_subject=1)) == {"B": 1, "A": 1, "E": 1, "C": 1}


def test_a_draw_depends_on_the_seed_and_not_on_the_order_of_the_file() -> None:
    many = facts(**{f"S{n}": 5 for n in range(30)})
    views = [
        frozenset(same_subject_view(order, facts_per_subject=2, subjects=5, seed=seed))
        for seed in (0, 1)
        for order in (many, many[::-1])
    ]
    assert views[0] == views[1] and views[2] == views[3] and views[0] != views[2]


def test_a_smaller_draw_is_part_of_a_larger_one() -> None:
    many = facts(**{f"S{n}": 10 for n in range(12)})
    draws = [set(same_subject_view(many, at_least=10, facts_per_subject=n)) for n in range(1, 11)]
    assert all(small < large for small, large in zip(draws, draws[1:], strict=False))
    few, more = (set(sizes(same_subject_view(many, subjects=n))) for n in (4, 9))
    assert few < more


def test_the_draw_of_a_seed_stays_what_it_is() -> None:
    view = same_subject_view(FACTS, at_least=4, facts_per_subject=2, subjects=2, seed=7)
    assert [fact.prompt for fact in view] == [
        "A has 0 of",
        "A has 3 of",
        "E has 1 of",
        "E has 2 of",
    ]


def test_what_cannot_be_had_is_said_with_what_can() -> None:
    with pytest.raises(RoSEError, match="2 subject.* with 7 or more .* and 1 have") as caught:
        same_subject_view(FACTS, facts_per_subject=7, subjects=2)
    assert "1: 5, 2: 4, 3: 3, 4: 3, 5: 1, 6: 1, 7: 1" in str(caught.value)
    with pytest.raises(RoSEError, match="1 subject.* with 9 or more .* and 0 have"):
        same_subject_view(FACTS, at_least=9)
    with pytest.raises(RoSEError, match="1: 0, 2: 0"):
        same_subject_view([])


def test_numbers_out_of_range_are_reported_together() -> None:
    with pytest.raises(RoSEError) as caught:
        same_subject_view(FACTS, at_least=0, facts_per_subject=11, subjects=0)
    for fault in ("at_least is 0", "facts_per_subject is 11; give 1 to 10", "subjects is 0"):
        assert fault in str(caught.value)
    with pytest.raises(RoSEError, match="facts_per_subject is 0"):
        same_subject_view(FACTS, facts_per_subject=0)
