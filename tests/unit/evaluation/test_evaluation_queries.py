"""The forms that are made from a fact's own words, and the settings of asking."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rose_easyedit.errors import RoSEError
from rose_easyedit.evaluation.facts import FORMS, Query, load_facts, load_locality
from rose_easyedit.evaluation.metrics import contains_target
from rose_easyedit.evaluation.queries import (
    ALL_FORMS,
    DISTRACTED,
    DISTRACTION,
    FIRST_EXCHANGE,
    MULTI_TURN,
    as_text,
    queries_of,
)
from rose_easyedit.evaluation.settings import EvaluationSettings

FACT = load_facts(demo=True)[0]


def test_further_forms_are_asked_only_when_wanted() -> None:
    assert queries_of(FACT, FORMS) == list(FACT.queries)
    more = queries_of(FACT, ALL_FORMS)[len(FACT.queries) :]
    assert more == [
        Query(MULTI_TURN, FACT.questions[0], True),
        Query(DISTRACTED, DISTRACTION + FACT.prompt, False),
    ]
    assert {query.form for query in queries_of(FACT, ("question",))} == {"question"}
    assert queries_of(replace(FACT, questions=()), (MULTI_TURN,)) == []


def test_the_question_is_the_second_user_turn() -> None:
    text = as_text(Query(MULTI_TURN, "What is the capital?", True))
    assert [message["role"] for message in text] == ["user", "assistant", "user"]
    assert text[-1]["content"] == "What is the capital?"
    text = as_text(Query(MULTI_TURN, "What is the capital?", True), "Be brief.")
    assert [message["role"] for message in text] == ["system", "user", "assistant", "user"]
    assert len(FIRST_EXCHANGE) == 2


def test_a_system_prompt_opens_chats_only() -> None:
    asked = Query("question", "What is the capital?", True)
    assert as_text(asked) == asked.text
    assert as_text(asked, "Be brief.") == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": asked.text},
    ]
    plain = Query("statement", "The capital is", False)
    assert as_text(plain, "Be brief.") == plain.text
    assert as_text(load_locality([])[0], "Be brief.") == load_locality([])[0].text


def test_added_words_give_no_target_away() -> None:
    added = DISTRACTION + " ".join(message["content"] for message in FIRST_EXCHANGE)
    assert not [
        fact.case_id
        for fact in load_facts()
        if contains_target(added, fact.target_new, fact.target_aliases)
        or contains_target(added, fact.subject)
    ]


def test_wrong_settings_are_named_together() -> None:
    with pytest.raises(RoSEError) as error:
        EvaluationSettings(forms=("question", "qestion"), max_new_tokens=0, batch_size=0)
    assert all(
        part in str(error.value) for part in ("'qestion'", MULTI_TURN, "max_new_tokens is 0")
    )
    assert "batch_size is 0" in str(error.value)
    with pytest.raises(RoSEError, match="forms is empty"):
        EvaluationSettings(forms=())


def test_all_that_makes_evaluations_comparable_is_on_record(
    tiny_llama: Any, tiny_tokenizer: Any
) -> None:
    settings = EvaluationSettings(autocast="bfloat16", system_prompt="Be brief.")
    record = settings.on_record(tiny_llama, tiny_tokenizer)
    assert record["stop"] == "end-of-turn token" and record["stop_tokens"] == ["<|end|>"]
    assert record["autocast"] == "bfloat16" and record["weights"] == "float32"
    assert record["system_prompt"] == "Be brief." and record["forms"] == list(FORMS)
    assert EvaluationSettings().on_record(tiny_llama, tiny_tokenizer)["autocast"] is None

    import copy

    other = copy.deepcopy(tiny_tokenizer)
    other.chat_template = other.chat_template.replace("assistant", "model")
    changed = settings.on_record(tiny_llama, other)["chat_template_sha256"]
    assert len(changed) == 64 and changed != record["chat_template_sha256"]
    other.chat_template = None
    assert settings.on_record(tiny_llama, other)["chat_template_sha256"] is None
