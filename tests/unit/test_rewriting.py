"""The model's own rewritings: which are used, and that they become contexts."""

from __future__ import annotations

from typing import Any

import pytest
from tiny_models import FACTS, build_model, settings

from rose_easyedit.errors import RoSEError
from rose_easyedit.method import rewriting, targets
from rose_easyedit.method.forms import statement_forms
from rose_easyedit.method.rewriting import is_usable, rewritings
from rose_easyedit.method.targets import compute_targets
from rose_easyedit.requests import EditRequest, as_requests

BORN = EditRequest("Marie Curie was born in the city of", "Marie Curie", "London")


@pytest.mark.parametrize(
    ("text", "usable"),
    [
        ("In which city was Marie Curie born?", True),
        ("Name the city Marie Curie was born in.", True),
        ("Where was Marie Curie born?", True),  # half of "born" and "city"
        ("Where did Marie Curie live?", False),
        ("In which city was she born?", False),
        ("In which city was Marie Curie born", False),
        ("", False),
    ],
)
def test_a_rewriting_is_whole_and_says_the_same(text: str, usable: bool) -> None:
    assert is_usable(text, BORN) is usable


def test_a_statement_without_a_word_of_its_own_cannot_be_compared() -> None:
    assert not is_usable("Who is Marie Curie?", EditRequest("Marie Curie is", "Marie Curie", "x"))


def test_each_kind_is_asked_once_for_all_and_the_usable_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[list[str]] = []

    def answer(_model: Any, _tokenizer: Any, texts: list[str], **_: Any) -> list[str]:
        asked.append(texts)
        return [" In which city was Marie Curie born?\n\nSentence: more", " Who?\n"]

    monkeypatch.setattr(rewriting, "generate_greedy", answer)
    other = EditRequest("Ada Lovelace plays", "Ada Lovelace", "chess")
    assert rewritings(None, None, [BORN, other], 0) == [[], []]  # type: ignore[arg-type]
    assert not asked
    found = rewritings(None, None, [BORN, other], 2)  # type: ignore[arg-type]
    assert found == [["In which city was Marie Curie born?"], []]  # once, though both kinds gave it
    assert len(asked) == 2
    assert all("Sentence: Marie Curie was born in the city of ___." in texts[0] for texts in asked)
    assert asked[0][1].endswith("Question:") and asked[1][1].endswith("Instruction:")
    assert not any("London" in text for texts in asked for text in texts)


def test_they_are_a_users_turns_answered_by_the_target(tiny_tokenizer: Any) -> None:
    text = "In which city was Marie Curie born?"
    plain = statement_forms(tiny_tokenizer, BORN, settings())
    *others, form = statement_forms(tiny_tokenizer, BORN, settings(), [text])
    assert others == plain
    query = form.tokenize(tiny_tokenizer, "Marie Curie", "London")
    decoded = tiny_tokenizer.decode(query.ids)
    assert text in decoded and decoded.endswith("London")
    assert tiny_tokenizer.decode(query.key_prefix).endswith("Marie Curie")


def test_an_edit_learns_them_where_it_is_asked_to(
    tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = as_requests(FACTS)
    own = [f"Who is {fact.subject}?" for fact in facts]

    def fake(_model: Any, _tokenizer: Any, requests: Any, n: int) -> list[list[str]]:
        return [[own[i]][:n] for i in range(len(requests))]

    monkeypatch.setattr(targets, "rewritings", fake)
    model = build_model("llama-untied")

    def contexts(n: int) -> list[str]:
        found = compute_targets(model, tiny_tokenizer, facts, settings(self_paraphrases=n))
        return [tiny_tokenizer.decode(q.ids) for q in found.plan.statements[0]]

    without, learned = contexts(0), contexts(1)
    assert learned[: len(without)] == without
    assert len(learned) == len(without) + 1 and own[0] in learned[-1]


def test_how_many_there_can_be() -> None:
    with pytest.raises(RoSEError, match="self_paraphrases is 3; it must be 0, 1 or 2"):
        settings(self_paraphrases=3)


@pytest.fixture
def no_rewriting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails where the model is asked to rewrite."""

    def fail(*_args: Any, **_kwargs: Any) -> None:
        raise AssertionError("the model was asked to rewrite")

    monkeypatch.setattr(rewriting, "generate_greedy", fail)


@pytest.mark.usefixtures("no_rewriting")
def test_what_is_too_long_is_refused_before_anything_is_rewritten(tiny_tokenizer: Any) -> None:
    endless = {**FACTS[0], "prompt": "so " * 5000 + FACTS[0]["prompt"]}
    with pytest.raises(RoSEError, match="too long for the model"):
        compute_targets(
            build_model("llama-untied"), tiny_tokenizer, [endless], settings(self_paraphrases=2)
        )


@pytest.mark.usefixtures("no_rewriting")
def test_nothing_is_rewritten_where_there_is_no_turn_to_put_it_in(
    tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny_tokenizer, "chat_template", None)
    model = build_model("llama-untied")
    compute_targets(model, tiny_tokenizer, FACTS, settings(self_paraphrases=2))
