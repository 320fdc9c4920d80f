"""The forms of a statement: plain prefixes, chat turns, and queries that name no relation."""

from __future__ import annotations

from typing import Any

import pytest
from tiny_models import settings

from rose_easyedit.config.hparams import RoSEHyperParams
from rose_easyedit.errors import RoSEError
from rose_easyedit.method.contexts import (
    ANSWERED_QUERIES,
    CHAT_CONTEXTS,
    KEPT_BEGINNINGS,
    KEPT_QUESTIONS,
    PREFIXES,
    QUERY_FORMATS,
    RESTATED,
    Form,
    essence_form,
    generic_subject_forms,
    kept_forms,
    neighbour_form,
    reading_forms,
    statement_forms,
    subject_forms,
)
from rose_easyedit.requests import EditRequest

THINKING = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>\n{% endfor %}<|assistant|>"
    "{% if enable_thinking is false %}<think></think>{% endif %}"
)
REQUEST = EditRequest("Marie Curie was born in", "Marie Curie", "London")
MIDDLE = EditRequest("The profession of Marie Curie is", "Marie Curie", "lawyer")


def test_settings_may_ask_for_as_many_forms_as_there_are() -> None:
    forms = {
        "n_contexts": PREFIXES,
        "chat_contexts": CHAT_CONTEXTS,
        "answered_queries": ANSWERED_QUERIES,
        "restatements": RESTATED,
        "query_formats": QUERY_FORMATS,
        "kept_queries": KEPT_BEGINNINGS,
    }
    for name, those in forms.items():
        RoSEHyperParams(**{name: len(those)})
        with pytest.raises(RoSEError, match=f"{name} is {len(those) + 1}; give a whole number"):
            RoSEHyperParams(**{name: len(those) + 1})
    assert len(KEPT_QUESTIONS) == len(KEPT_BEGINNINGS)


@pytest.fixture
def plain_tokenizer(tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The tiny tokenizer without its chat template."""
    monkeypatch.setattr(tiny_tokenizer, "chat_template", None)
    return tiny_tokenizer


def test_prefixes_come_in_order_and_the_first_is_bare(tiny_tokenizer: Any) -> None:
    forms = statement_forms(tiny_tokenizer, REQUEST, settings(n_contexts=3))
    assert [form.text for form in forms] == [prefix + REQUEST.prompt for prefix in PREFIXES[:3]]
    assert forms[0].text == REQUEST.prompt
    assert all(form.special and form.joint("Polish") == " " for form in forms)


def test_own_contexts_replace_the_built_in_ones(tiny_tokenizer: Any) -> None:
    forms = statement_forms(tiny_tokenizer, REQUEST, settings(contexts=["Note: ", ""]))
    assert [form.text for form in forms] == ["Note: Marie Curie was born in", REQUEST.prompt]


def test_chat_contexts_hold_the_statement_in_the_template(tiny_tokenizer: Any) -> None:
    hparams = settings(n_contexts=1, chat_contexts=len(CHAT_CONTEXTS))
    _, *chats = statement_forms(tiny_tokenizer, REQUEST, hparams)
    assert [form.text for form in chats] == [
        "<|user|>Tell me a fact.<|end|>\n<|assistant|>Marie Curie was born in",
        "<|user|>Complete the following sentence: Marie Curie was born in<|end|>\n<|assistant|>",
        "<|user|>Please go on.<|end|>\n<|assistant|>Marie Curie was born in",
        "<|user|>Finish this statement in a few words: Marie Curie was born in<|end|>\n"
        "<|assistant|>",
    ]
    # the target goes on with a sentence after a space, and begins a turn without one
    assert [form.joint("Polish") for form in chats] == [" ", "", " ", ""]
    assert not any(form.special for form in chats)


def test_answered_queries_name_the_subject_in_both_turns(tiny_tokenizer: Any) -> None:
    hparams = settings(n_contexts=1, answered_queries=2)
    _, *forms = statement_forms(tiny_tokenizer, REQUEST, hparams)
    assert [form.text for form in forms] == [
        "<|user|>Tell me about Marie Curie.<|end|>\n<|assistant|>Marie Curie was born in",
        "<|user|>I have a question about Marie Curie.<|end|>\n<|assistant|>Marie Curie was born in",
    ]
    for form in forms:
        query = form.tokenize(tiny_tokenizer, "Marie Curie", "London")
        first, second = query.mentions
        assert tiny_tokenizer.decode(first.key_prefix).endswith("about Marie Curie")
        assert tiny_tokenizer.decode(second.key_prefix).endswith("<|assistant|>Marie Curie")
        assert tiny_tokenizer.decode(query.ids).endswith("Marie Curie was born in London")
        assert (first.ids, first.again, second.again) == (query.ids, None, None)


@pytest.mark.parametrize("request_", [REQUEST, MIDDLE], ids=["start", "middle"])
def test_a_restatement_is_learned_as_a_whole_sentence(
    request_: EditRequest, tiny_tokenizer: Any
) -> None:
    hparams = settings(n_contexts=1, restatements=len(RESTATED))
    _, *forms = statement_forms(tiny_tokenizer, request_, hparams)
    sentence = f"{request_.prompt} {request_.target_new}"
    assert len(forms) == len(RESTATED)
    for form, gap in zip(forms, RESTATED, strict=True):
        query = form.tokenize(tiny_tokenizer, request_.subject, request_.target_new)
        turn = f"<|user|>{gap.format(request_.prompt)}<|end|>\n<|assistant|>"
        assert tiny_tokenizer.decode(query.ids) == turn + sentence
        assert tiny_tokenizer.decode(query.ids[-query.n_target :]) == sentence
        first, second = (tiny_tokenizer.decode(one.key_prefix) for one in query.mentions)
        assert first.endswith("Marie Curie") and "<|assistant|>" not in first
        assert second.endswith("Marie Curie") and second.startswith(turn)


@pytest.mark.parametrize("subject", ["f{}", "Guards {band}", "a {{b}}", "{0}x", "%s"])
def test_a_subject_with_braces_is_found_in_every_form(subject: str, tiny_tokenizer: Any) -> None:
    request = EditRequest(f"{subject} was born in", subject, "London")
    hparams = settings(
        n_contexts=2, chat_contexts=4, answered_queries=2, restatements=4, query_formats=6
    )
    forms = statement_forms(tiny_tokenizer, request, hparams)
    assert len(forms) == 2 + 4 + 2 + 4
    for form in [*forms, *subject_forms(tiny_tokenizer, subject, hparams)]:
        assert subject in form.text[slice(*form.window)]
        assert form.text.count(subject) == (2 if form.earlier else 1)


def test_a_statement_is_read_behind_a_prefix_and_in_a_chat(tiny_tokenizer: Any) -> None:
    forms = reading_forms(tiny_tokenizer, REQUEST.prompt)
    assert {name: form.text for name, form in forms.items()} == {
        "statement": "It is well known that Marie Curie was born in",
        "chat": "<|user|>Complete the following sentence: Marie Curie was born in<|end|>\n"
        "<|assistant|>",
    }
    assert [form.special for form in forms.values()] == [True, False]


def test_without_a_chat_template_a_statement_is_read_plain(plain_tokenizer: Any) -> None:
    assert list(reading_forms(plain_tokenizer, REQUEST.prompt)) == ["statement"]


@pytest.mark.parametrize("request_", [REQUEST, MIDDLE], ids=["start", "middle"])
def test_every_form_finds_its_subject_and_its_target(
    request_: EditRequest, tiny_tokenizer: Any
) -> None:
    hparams = settings(n_contexts=len(PREFIXES), chat_contexts=len(CHAT_CONTEXTS))
    for form in statement_forms(tiny_tokenizer, request_, hparams):
        query = form.tokenize(tiny_tokenizer, request_.subject, request_.target_new)
        before = tiny_tokenizer.decode(query.key_prefix)
        assert before.endswith("Marie Curie")
        whole = tiny_tokenizer.decode(query.ids)
        assert whole == form.text + form.joint(request_.target_new) + request_.target_new
        target = tiny_tokenizer.decode(query.ids[-query.n_target :])
        assert target == form.joint(request_.target_new) + request_.target_new


def test_a_prefix_that_names_the_subject_is_no_trap(tiny_tokenizer: Any) -> None:
    request = EditRequest("Marie Curie is said to be", "Marie Curie", "Polish")
    prefix = "This is about Marie Curie. "
    (form,) = statement_forms(tiny_tokenizer, request, settings(contexts=[prefix]))
    query = form.tokenize(tiny_tokenizer, request.subject)
    assert tiny_tokenizer.decode(query.key_prefix) == prefix + "Marie Curie"


def test_a_subject_that_is_a_word_of_the_template(tiny_tokenizer: Any) -> None:
    """The user's turn says "sentence" and the template says "user": only the statement counts."""
    request = EditRequest("The user is called", "user", "Ada")
    for form in statement_forms(tiny_tokenizer, request, settings(n_contexts=1, chat_contexts=4)):
        query = form.tokenize(tiny_tokenizer, "user")
        assert tiny_tokenizer.decode(query.key_prefix).endswith("The user")


def test_without_a_chat_template_there_are_no_chat_forms(plain_tokenizer: Any) -> None:
    hparams = settings(
        n_contexts=2, chat_contexts=4, answered_queries=2, restatements=4, query_formats=4
    )
    assert len(statement_forms(plain_tokenizer, REQUEST, hparams)) == 2
    assert subject_forms(plain_tokenizer, "Marie Curie", hparams) == []


def test_queries_name_the_subject_and_no_relation(tiny_tokenizer: Any) -> None:
    hparams = settings(query_formats=len(QUERY_FORMATS))
    forms = subject_forms(tiny_tokenizer, "Marie Curie", hparams)
    assert len({form.text for form in forms}) == len(QUERY_FORMATS)
    assert forms[0].text == "<|user|>Tell me about Marie Curie.<|end|>\n<|assistant|>"
    for form in forms:
        query = form.tokenize(tiny_tokenizer, "Marie Curie")
        assert tiny_tokenizer.decode(query.key_prefix).endswith("Marie Curie")
        assert query.n_target == 0
    assert subject_forms(tiny_tokenizer, "Marie Curie", settings(query_formats=0)) == []


def test_the_essence_prompt_has_words_before_the_subject(tiny_tokenizer: Any) -> None:
    form = essence_form("Marie Curie")
    assert form.text.endswith("Marie Curie is a") and not form.text.startswith("Marie")
    assert form.tokenize(tiny_tokenizer, "Marie Curie").subject > 0


@pytest.mark.parametrize("text", ["50% of {} and {0}", "{{braces}} Marie Curie", "a\\b {x}"])
def test_braces_in_a_statement_stay(text: str, tiny_tokenizer: Any) -> None:
    request = EditRequest(f"{text} Marie Curie is", "Marie Curie", "here")
    for form in statement_forms(tiny_tokenizer, request, settings(n_contexts=2, chat_contexts=4)):
        assert request.prompt in form.text
        assert form.text[slice(*form.window)] == request.prompt


def test_a_subject_with_braces(tiny_tokenizer: Any) -> None:
    (form,) = subject_forms(tiny_tokenizer, "{} {0}", settings(query_formats=1))
    assert "Tell me about {} {0}." in form.text
    assert essence_form("{}").text.endswith("{} is a")


def test_a_template_that_trims(tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many templates strip a turn; a statement that begins with a space must still be found."""
    template = tiny_tokenizer.chat_template.replace("['content']", "['content'] | trim")
    monkeypatch.setattr(tiny_tokenizer, "chat_template", template)
    request = EditRequest(" Marie Curie is", "Marie Curie", "Polish")
    for form in statement_forms(tiny_tokenizer, request, settings(n_contexts=1, chat_contexts=4)):
        assert tiny_tokenizer.decode(
            form.tokenize(tiny_tokenizer, request.subject).key_prefix
        ).endswith("Marie Curie")


def test_a_form_is_tokenised_within_its_window(tiny_tokenizer: Any) -> None:
    text = "Paris, Paris, Paris"
    form = Form(text, special=True, window=(0, 12), continues=True)
    assert (
        tiny_tokenizer.decode(form.tokenize(tiny_tokenizer, "Paris").key_prefix) == "Paris, Paris"
    )


def test_a_statement_in_a_script_without_spaces_goes_on_without_one(tiny_tokenizer: Any) -> None:
    request = EditRequest("法国的首都是", "法国", "柏林")
    hparams = settings(n_contexts=3, chat_contexts=4, answered_queries=2)
    joints = set()
    for form in statement_forms(tiny_tokenizer, request, hparams):
        query = form.tokenize(tiny_tokenizer, request.subject, request.target_new)
        joints.add(form.joint(request.target_new))
        assert tiny_tokenizer.decode(query.ids).endswith(form.text + "柏林")
    assert joints == {""}


def test_what_the_template_is_told_is_in_every_chat_form(
    tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny_tokenizer, "chat_template", THINKING)
    for told, mark in ({}, "<think></think>"), ({"enable_thinking": True}, ""):
        hparams = settings(
            chat_contexts=4,
            answered_queries=2,
            restatements=1,
            query_formats=6,
            kept_queries=1,
            template_arguments=told,
        )
        forms = [
            *statement_forms(tiny_tokenizer, REQUEST, hparams)[2:],
            *kept_forms(tiny_tokenizer, "Marie Curie", hparams)[2:],
            *subject_forms(tiny_tokenizer, "Marie Curie", hparams),
            neighbour_form(tiny_tokenizer, "Ada Lovelace is", hparams, 0.0, in_turn=True),
            *generic_subject_forms(tiny_tokenizer, "Ada Lovelace", 0, told)[1:],
        ]
        assert len(forms) == 4 + 2 + 1 + 1 + 6 + 1 + 1
        assert all(f"<|assistant|>{mark}" in form.text for form in forms)
        assert all("think" in form.text for form in forms) == bool(mark)
    assert "<think>" in reading_forms(tiny_tokenizer, REQUEST.prompt)["chat"].text
