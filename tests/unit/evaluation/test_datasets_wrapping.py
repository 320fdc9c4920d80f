"""Facts without questions and instructions get them; neighbours become locality prompts."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from rose_easyedit.evaluation.datasets import neighbour_prompts, with_wrapped_forms, wrapping
from rose_easyedit.evaluation.facts import Fact, LocalityPrompt, Query, load_facts
from rose_easyedit.method.contexts import CHAT_CONTEXTS

FACT = Fact("Lothria", "capital", 'The "seat" {of} Lothria is', "Graz", "Aachen")
ZSRE = replace(FACT, prompt="Where is Lothria ruled from?")


def test_a_statement_is_wrapped_in_a_question_and_instructions() -> None:
    (fact,) = with_wrapped_forms([FACT])
    assert fact.queries == (
        Query("statement", 'The "seat" {of} Lothria is', chat=False),
        Query(
            "question", 'What completes this sentence? "The "seat" {of} Lothria is ..."', chat=True
        ),
        Query("instruction", 'How does this go on? The "seat" {of} Lothria is', chat=True),
        Query(
            "instruction",
            'Which words come next? The "seat" {of} Lothria is ...',
            chat=True,
        ),
    )
    assert fact.wrapped == {"question", "instruction"}
    assert with_wrapped_forms([fact]) == (fact,)


def test_a_statement_that_is_a_question_is_asked_as_it_is() -> None:
    (fact,) = with_wrapped_forms([ZSRE])
    assert fact.questions == ("Where is Lothria ruled from?",)
    assert fact.instructions == (
        "Answer this question: Where is Lothria ruled from?",
        "Give a short answer to the following question: Where is Lothria ruled from?",
    )
    assert fact.wrapped == {"question", "instruction"}


def test_forms_that_the_data_set_has_stay_as_they_are() -> None:
    bundled = load_facts()
    assert with_wrapped_forms(bundled) == tuple(bundled)
    (fact,) = with_wrapped_forms([replace(FACT, questions=("Whose seat is Graz?",))])
    assert fact.questions == ("Whose seat is Graz?",)
    assert len(fact.instructions) == 2 and fact.wrapped == {"instruction"}
    (fact,) = with_wrapped_forms([replace(FACT, instructions=("Name it.",))])
    assert fact.instructions == ("Name it.",) and fact.wrapped == {"question"}


def words(wrapper: str) -> str:
    return " ".join(re.findall(r"\w+", wrapper.casefold()))


@pytest.mark.parametrize(
    "wrapper",
    [
        *wrapping.SENTENCE_QUESTIONS,
        *wrapping.SENTENCE_INSTRUCTIONS,
        *wrapping.ANSWER_QUESTIONS,
        *wrapping.ANSWER_INSTRUCTIONS,
    ],
)
def test_no_wrapper_is_a_context_of_the_training(wrapper: str) -> None:
    assert wrapper.count("{}") == 1
    assert words(wrapper) not in {words(user) for user, _ in CHAT_CONTEXTS}


def test_neighbours_are_locality_prompts_once_each() -> None:
    one = replace(FACT, neighbours=("Murania is ruled from", "Orsinia is ruled from"))
    two = replace(ZSRE, neighbours=("Orsinia is ruled from", "nq question: who sings"))
    assert neighbour_prompts([one, two]) == (
        LocalityPrompt("neighbour", "Murania is ruled from", chat=False),
        LocalityPrompt("neighbour", "Orsinia is ruled from", chat=False),
        LocalityPrompt("neighbour", "nq question: who sings", chat=False),
    )
    assert neighbour_prompts([FACT]) == ()


def test_a_neighbour_that_names_an_edited_subject_is_left_out() -> None:
    texts = (
        "Route 22 is in",
        "Route 223 is in",
        "Old Lothria is ruled from",
        "Dudley F.C. plays",
        "It is (C++)",
    )
    first = replace(FACT, subject="Route 22", neighbours=texts)

    def kept(*subjects: str) -> list[str]:
        others = [replace(FACT, subject=subject) for subject in subjects]
        return [prompt.text for prompt in neighbour_prompts([first, *others])]

    assert kept() == list(texts[1:])
    assert kept("Lothria") == ["Route 223 is in", "Dudley F.C. plays", "It is (C++)"]
    assert kept("Dudley F.C.", "C++") == ["Route 223 is in", "Old Lothria is ruled from"]
