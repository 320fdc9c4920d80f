"""The bundled sets keep the promises of their datasheets."""

from __future__ import annotations

import re
from importlib import resources
from itertools import combinations

import pytest

from rose_easyedit.errors import RoSEError
from rose_easyedit.evaluation.facts import (
    FORMS,
    SETS,
    Fact,
    Subject,
    load_facts,
    load_locality,
    load_subjects,
    make_fact,
    relation_names,
)
from rose_easyedit.evaluation.metrics import contains_target
from rose_easyedit.requests import as_requests

SUBJECTS = {name: load_subjects(name=name) for name in SETS}
FACTS = {name: load_facts(name=name) for name in SETS}


@pytest.mark.parametrize(("name", "most", "each"), [("core", 31, 4), ("wide", 50, 5)])
def test_size_and_splits(name: str, most: int, each: int) -> None:
    subjects = SUBJECTS[name]
    test, validation = load_subjects("test", name=name), load_subjects("validation", name=name)
    assert len(subjects) == most
    assert len(test) >= 16 and len(validation) >= 10
    assert [s for s in subjects if s in test or s in validation] == subjects
    assert len({subject.name for subject in subjects}) == len(subjects)
    assert all(len(subject.facts) == each for subject in subjects)
    demo = load_subjects(demo=True, name=name)
    assert len(demo) == 6 and all(subject in test for subject in demo)
    assert len(load_facts("test", demo=True, name=name)) == 6 * each


def test_the_wide_set_has_the_facts_of_the_core_and_more_relations() -> None:
    core, wide = ({(f.case_id, f.target_new) for f in FACTS[name]} for name in ("core", "wide"))
    assert core < wide
    assert set(relation_names("core")) < set(relation_names("wide"))
    for name in SETS:
        assert {fact.relation for fact in FACTS[name]} == set(relation_names(name))


@pytest.mark.parametrize("name", SETS)
def test_every_fact_is_asked_in_every_form_and_names_its_subject(name: str) -> None:
    for fact in FACTS[name]:
        counts = [sum(query.form == form for query in fact.queries) for form in FORMS]
        assert counts[0] == 1 and min(counts[1:]) >= 2, fact.case_id
        assert len({query.text for query in fact.queries}) == len(fact.queries), fact.case_id
        for query in fact.queries:
            assert fact.subject in query.text and "{" not in query.text
            assert query.text == query.text.strip()
            assert query.chat == (query.form in ("question", "instruction"))


@pytest.mark.parametrize("name", SETS)
def test_no_query_gives_its_target_away(name: str) -> None:
    leaks = [
        (query.text, fact.target_new)
        for fact in FACTS[name]
        for query in fact.queries
        if contains_target(query.text, fact.target_new, fact.target_aliases)
    ]
    assert leaks == []


def answers(fact: Fact) -> tuple[tuple[str, ...], tuple[str, ...]]:
    target = (fact.target_new, *fact.target_aliases)
    return target, (fact.ground_truth, *fact.truth_aliases)


@pytest.mark.parametrize(
    "subject",
    [subject for name in SETS for subject in SUBJECTS[name]],
    ids=lambda subject: f"{subject.name}-{len(subject.facts)}",
)
def test_the_answers_of_a_subject_cannot_be_confused(subject: Subject) -> None:
    for fact in subject.facts:
        target, truth = answers(fact)
        assert not any(contains_target(name, fact.target_new, target) for name in truth)
        assert not any(contains_target(name, fact.ground_truth, truth) for name in target)
    for one, other in combinations(subject.facts, 2):
        for name in answers(one)[0]:
            assert not contains_target(name, other.target_new, other.target_aliases), one.case_id
        for name in answers(other)[0]:
            assert not contains_target(name, one.target_new, one.target_aliases), one.case_id


@pytest.mark.parametrize("name", SETS)
def test_facts_are_valid_edit_requests(name: str) -> None:
    requests = as_requests([fact.to_request() for fact in FACTS[name]])
    assert len(requests) == len(FACTS[name]) == len({request.case_id for request in requests})


@pytest.mark.parametrize("name", SETS)
def test_locality_prompts_name_no_edited_subject_and_fit_the_relations(name: str) -> None:
    prompts = load_locality(FACTS[name], name)
    assert len(set(prompts)) == len(prompts)
    for prompt in prompts:
        assert not any(contains_target(prompt.text, subject.name) for subject in SUBJECTS[name])
    assert sum(prompt.kind == "unrelated" for prompt in prompts) >= 24
    capital = [fact for fact in FACTS[name] if fact.relation == "capital"][:1]
    neighbours = [p.text for p in load_locality(capital, name) if p.kind == "neighbour"]
    assert len(neighbours) >= 8 and all("capital" in text for text in neighbours)


def test_the_wide_set_puts_words_before_every_subject_and_copies_no_statement() -> None:
    for fact in FACTS["wide"]:
        assert not fact.prompt.startswith(fact.subject), fact.case_id
        assert not any(set(words(fact.prompt)) == set(words(p)) for p in fact.paraphrases)


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("file", ["generic_subjects.txt", "held_out_subjects.txt"])
def test_no_neighbour_is_a_subject_that_an_edit_protects_or_measures(file: str, name: str) -> None:
    data = resources.files("rose_easyedit.method") / "data" / file
    generic = [line for line in data.read_text("utf-8").splitlines() if line]
    neighbours = [p.text for p in load_locality(FACTS[name], name) if p.kind == "neighbour"]
    found = [(text, each) for text in neighbours for each in generic if contains_target(text, each)]
    assert found == []


def test_a_fact_of_ones_own_takes_the_wordings_and_aliases_of_its_relation() -> None:
    fact = make_fact("country", "Ada Lovelace", target_new="Brazil", ground_truth="England")
    assert fact.prompt == "The country that Ada Lovelace is from is"
    assert fact.target_aliases == ("Brazilian",) and "British" in fact.truth_aliases
    assert "country" in relation_names()


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(RoSEError, match="validation, test"):
        load_subjects("train")
    with pytest.raises(RoSEError, match="core, wide"):
        load_facts(name="narrow")
    with pytest.raises(RoSEError, match="capital"):
        make_fact("shoe size", "Ada Lovelace", target_new="1", ground_truth="2")
