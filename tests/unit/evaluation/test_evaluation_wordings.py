"""A user's own facts are asked in real questions where their relation is known, else in wrapped."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from results import RESULT

from rose_easyedit.evaluation.facts import Fact, load_facts
from rose_easyedit.evaluation.laboratory import population
from rose_easyedit.evaluation.report_front import front_of
from rose_easyedit.evaluation.report_tables import summary_tables
from rose_easyedit.evaluation.selection import select_facts
from rose_easyedit.evaluation.wordings import with_known_wordings, wordings


def request(subject: str, prompt: str, target: str) -> dict[str, Any]:
    return {"subject": subject, "prompt": prompt.format(subject), "target_new": target}


KNOWN = request("Nauru", "The capital of {} is", "Lima")
UNKNOWN = request("Nauru", "The tallest tower of {} stands in", "Lima")


def test_a_statement_of_a_known_relation_brings_its_questions() -> None:
    (fact,) = select_facts([KNOWN], None).asked
    assert fact.relation == "capital" and fact.wrapped == frozenset()
    assert "What is the capital of Nauru?" in fact.questions
    assert fact.prompt == KNOWN["prompt"] and fact.prompt not in fact.paraphrases
    assert select_facts([KNOWN], None).notes == []


def test_any_wording_of_the_relation_is_known_by() -> None:
    (core,) = (fact for fact in load_facts() if fact.case_id == "Japan/capital")
    for paraphrase in core.paraphrases:
        asked = {"subject": "Japan", "prompt": paraphrase, "target_new": core.target_new}
        (fact,) = select_facts([asked], None).asked
        assert fact.questions == core.questions and core.prompt in fact.paraphrases
        assert fact.target_aliases == core.target_aliases
    (laboratory,) = population().facts(1, 1)
    (fact,) = select_facts([laboratory.to_request().as_dict()], None).asked
    assert fact.questions == laboratory.questions


def test_a_statement_that_several_relations_share_tells_none_of_them() -> None:
    asked = [
        request("Paris", "In {}, most people speak", "Spanish"),  # a town, or a country
        request("The Nile", "Maps show {} on the continent of", "Asia"),  # a country, or a river
    ]
    for fact in select_facts(asked, None).asked:
        assert fact.wrapped == {"question", "instruction"} and not fact.paraphrases
    of_every_relation = {template for of in wordings() for template in of.statements[:1]}
    known = with_known_wordings(
        [Fact("Nauru", "", text.replace("{}", "Nauru"), "x", "") for text in of_every_relation]
    )
    assert sum(bool(fact.questions) for fact in known) > 0.9 * len(known)


def test_other_statements_are_wrapped_and_that_is_said() -> None:
    selection = select_facts([KNOWN, UNKNOWN], None)
    assert [sorted(fact.wrapped) for fact in selection.asked] == [[], ["instruction", "question"]]
    (note,) = selection.notes
    assert note.startswith("1 fact is asked in wrapped statements") and "--data FILE" in note
    (note,) = select_facts(
        [UNKNOWN, {**UNKNOWN, "subject": "The", "target_new": "Rome"}], None
    ).notes
    assert note.startswith("2 of 2 facts are asked in wrapped statements")


def test_how_many_queries_are_wrapped_stands_beside_the_number() -> None:
    def summary(n_wrapped: int) -> dict[str, Any]:
        records = [replace(of, wrapped=i < n_wrapped) for i, of in enumerate(RESULT.records)]
        return replace(RESULT, records=records).summary()

    def faithful(of: dict[str, Any]) -> str:
        return next(front.more for front in front_of(of) if front.name == "faithful success")

    n = summary(0)["headline"]["queries"]
    assert f"1 of {n} queries wrap the statement" in faithful(summary(1))
    assert "wrap" not in faithful(summary(0))
    form = RESULT.records[0].form
    cells = [row.cells[0] for table in summary_tables(summary(1)) for row in table.rows]
    assert any(cell.startswith(form) and cell.endswith("wrapped)") for cell in cells)
