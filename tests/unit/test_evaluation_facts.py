"""The bundled set keeps the promises of its datasheet."""

from __future__ import annotations

from itertools import combinations

import pytest

from rose_easyedit.errors import RoSEError
from rose_easyedit.evaluation.facts import (
    FORMS,
    Fact,
    load_facts,
    load_locality,
    load_subjects,
    make_fact,
    relation_names,
)
from rose_easyedit.evaluation.metrics import contains_target
from rose_easyedit.requests import as_requests

SUBJECTS = load_subjects()
FACTS = load_facts()


def test_size_and_splits() -> None:
    test, validation = load_subjects("test"), load_subjects("validation")
    assert len(SUBJECTS) >= 24
    assert len(test) >= 16 and len(validation) >= 10
    assert [s for s in SUBJECTS if s in test or s in validation] == SUBJECTS
    assert len({subject.name for subject in SUBJECTS}) == len(SUBJECTS)
    assert all(len(subject.facts) == 4 for subject in SUBJECTS)
    demo = load_subjects(demo=True)
    assert len(demo) == 6 and all(subject in test for subject in demo)
    assert len(load_facts("test", demo=True)) == 24


def test_every_fact_is_asked_in_every_form_and_names_its_subject() -> None:
    for fact in FACTS:
        counts = [sum(query.form == form for query in fact.queries) for form in FORMS]
        assert counts[0] == 1 and min(counts[1:]) >= 2, fact.case_id
        assert len({query.text for query in fact.queries}) == len(fact.queries), fact.case_id
        for query in fact.queries:
            assert fact.subject in query.text and "{" not in query.text
            assert query.text == query.text.strip()
            assert query.chat == (query.form in ("question", "instruction"))


def test_no_query_gives_its_target_away() -> None:
    leaks = [
        (query.text, fact.target_new)
        for fact in FACTS
        for query in fact.queries
        if contains_target(query.text, fact.target_new, fact.target_aliases)
    ]
    assert leaks == []


def answers(fact: Fact) -> tuple[tuple[str, ...], tuple[str, ...]]:
    target = (fact.target_new, *fact.target_aliases)
    return target, (fact.ground_truth, *fact.truth_aliases)


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.name)
def test_the_answers_of_a_subject_cannot_be_confused(subject: object) -> None:
    for fact in subject.facts:
        target, truth = answers(fact)
        assert not any(contains_target(name, fact.target_new, target) for name in truth)
        assert not any(contains_target(name, fact.ground_truth, truth) for name in target)
    for one, other in combinations(subject.facts, 2):
        for name in answers(one)[0]:
            assert not contains_target(name, other.target_new, other.target_aliases), one.case_id
        for name in answers(other)[0]:
            assert not contains_target(name, one.target_new, one.target_aliases), one.case_id


def test_facts_are_valid_edit_requests() -> None:
    requests = as_requests([fact.to_request() for fact in FACTS])
    assert len(requests) == len(FACTS) == len({request.case_id for request in requests})


def test_locality_prompts_name_no_edited_subject_and_fit_the_relations() -> None:
    prompts = load_locality(FACTS)
    assert len(set(prompts)) == len(prompts)
    for prompt in prompts:
        assert not any(contains_target(prompt.text, subject.name) for subject in SUBJECTS)
    assert sum(prompt.kind == "unrelated" for prompt in prompts) >= 24
    capital = [fact for fact in FACTS if fact.relation == "capital"][:1]
    neighbours = [p.text for p in load_locality(capital) if p.kind == "neighbour"]
    assert len(neighbours) >= 8 and all("capital" in text for text in neighbours)


def test_a_fact_of_ones_own_takes_the_wordings_and_aliases_of_its_relation() -> None:
    fact = make_fact("country", "Ada Lovelace", target_new="Brazil", ground_truth="England")
    assert fact.prompt == "The country that Ada Lovelace is from is"
    assert fact.target_aliases == ("Brazilian",) and "British" in fact.truth_aliases
    assert "country" in relation_names()


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(RoSEError, match="validation, test"):
        load_subjects("train")
    with pytest.raises(RoSEError, match="capital"):
        make_fact("shoe size", "Ada Lovelace", target_new="1", ground_truth="2")
