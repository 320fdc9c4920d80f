"""Chats in the model's own template: what it is told, and what becomes of one that refuses."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from tiny_models import settings

from rose_easyedit.cli.main import main
from rose_easyedit.errors import RoSEError
from rose_easyedit.evaluation.evaluate import Baseline, EvaluationSettings
from rose_easyedit.evaluation.facts import Fact
from rose_easyedit.forward.generation import generate_greedy, render
from rose_easyedit.geometry.places import locate
from rose_easyedit.memory.memory import FactMemory
from rose_easyedit.method.edit import compute_edit
from rose_easyedit.text.chat import (
    arguments_used,
    find_content,
    in_questions,
    own_turn,
    render_messages,
    render_turn,
)

# the switch as the template of Qwen3 has it
THINKING = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n"
    "{% endif %}{% endif %}"
)
REFUSES = (
    "{% if messages[0]['role'] != 'system' %}{{ raise_exception('a system message first') }}"
    "{% endif %}"
)
REQUEST = {"prompt": "In London she met Marie Curie", "subject": "Marie Curie", "target_new": "one"}
FACT = Fact(**REQUEST, relation="r", ground_truth="x", questions=("Whom did Marie Curie meet?",))
CLOSED = "<think>\n\n</think>\n\n"


def with_template(tokenizer: Any, template: Any) -> Any:
    """A copy of a tokenizer with another chat template."""
    other = copy.deepcopy(tokenizer)
    other.chat_template = template
    return other


@pytest.fixture
def thinking(tiny_tokenizer: Any) -> Any:
    """A tokenizer whose template lets the model think unless it is told not to."""
    return with_template(tiny_tokenizer, THINKING)


def quick(**overrides: Any) -> Any:
    """Settings with every kind of chat form, of few steps."""
    few = {"fact_steps": 1, "subject_steps": 1}
    some = dict(chat_contexts=4, answered_queries=2, query_formats=1, hierarchy=few)
    alignment = {"protected_directions": 2, "preserved_columns": 8, "statistics_tokens": 64}
    return settings(**some, alignment=alignment).with_overrides(**overrides)


def test_thinking_is_off_where_the_template_knows_it(thinking: Any, tiny_tokenizer: Any) -> None:
    assert arguments_used(thinking) == {"enable_thinking": False}
    assert arguments_used(thinking, {"enable_thinking": True}) == {"enable_thinking": True}
    assert arguments_used(tiny_tokenizer) == {}
    assert arguments_used(with_template(tiny_tokenizer, None), {"any": 1}) == {}
    assert render_turn(thinking, "Hi") == f"<|user|>Hi<|end|>\n<|assistant|>{CLOSED}"
    assert render_turn(thinking, "Hi", {"enable_thinking": True}).endswith("<|assistant|>")
    assert render(thinking, ["Hi"], chat=True)[0].endswith(CLOSED)


def test_an_argument_that_the_template_does_not_know_is_refused(
    thinking: Any, tiny_tokenizer: Any
) -> None:
    with pytest.raises(RoSEError, match=r"'thinking'.*does not know.*, or give enable_thinking\."):
        arguments_used(thinking, {"thinking": False})
    with pytest.raises(RoSEError, match=r"leave it out\."):
        render_turn(tiny_tokenizer, "Hi", {"enable_thinking": False})


def test_an_edit_an_evaluation_a_diagnosis_and_a_memory_are_told_the_same(
    tiny_llama: Any, thinking: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    rendered = type(thinking).apply_chat_template

    def listen(self: Any, *args: Any, **kwargs: Any) -> str:
        said.append(rendered(self, *args, **kwargs))
        return said[-1]

    monkeypatch.setattr(type(thinking), "apply_chat_template", listen)

    def opened(number: int, told: dict[str, Any]) -> None:
        said.clear()
        hparams = quick(template_arguments=told)
        delta = compute_edit(tiny_llama, thinking, [REQUEST], hparams)
        on_record = delta.provenance.template_arguments
        asking = EvaluationSettings(max_new_tokens=1, template_arguments=told)
        baseline = Baseline.of(tiny_llama, thinking, [FACT], locality=[], settings=asking)
        assert (
            baseline.on_record["template_arguments"] == on_record == {"enable_thinking": bool(told)}
        )
        locate(thinking, [FACT], told)
        with FactMemory.open(
            tmp_path / f"{number}.memory", tiny_llama, thinking, hparams
        ).edited() as model:
            assert model is tiny_llama
        memory = FactMemory.open(tmp_path / f"{number}.memory", tiny_llama, thinking)
        memory.ask("Who is Marie Curie?", max_new_tokens=1)

    opened(0, {})
    assert len(said) > 20 and all(text.endswith(CLOSED) for text in said)
    opened(1, {"enable_thinking": True})
    assert len(said) > 20 and not any("think" in text for text in said)


def test_a_template_without_the_switch_gives_the_edit_that_it_always_gave(
    tiny_llama: Any, tiny_tokenizer: Any
) -> None:
    delta = compute_edit(tiny_llama, tiny_tokenizer, [REQUEST], quick())
    assert delta.provenance.template_arguments == {}
    assert delta.provenance.hparams["template_arguments"] == {}


def test_a_template_that_tells_the_date_tells_the_same_one_on_any_day(tiny_tokenizer: Any) -> None:
    today = """{%- if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% endif %}
{{ strftime_now( "%Y" ) }}: """
    dated = with_template(tiny_tokenizer, today + tiny_tokenizer.chat_template)
    assert render_turn(dated, "Hi").startswith("26 Jul 20242024: <|user|>Hi")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ({"tool_use": "a", "rag": "b"}, r"several chat templates \(rag, tool_use\)"),
        (REFUSES, r"refuses these messages, of user \(a system message first\): set another"),
        ("{{ messages[0].content + 1 }}", r"refuses these messages, of user \(.*\): set another"),
        ("{% if %}", r"refuses these messages, of user"),
        (None, "no chat template"),
    ],
    ids=["several", "a role", "a bug", "no template at all", "none"],
)
def test_a_template_that_cannot_be_used_is_told_in_the_packages_words(
    template: Any, message: str, tiny_tokenizer: Any, tiny_llama: Any
) -> None:
    other = with_template(tiny_tokenizer, template)
    with pytest.raises(RoSEError, match=message):
        render_turn(other, "Hi")
    with pytest.raises(RoSEError, match=message):
        generate_greedy(tiny_llama, other, ["Hi"], chat=True)
    if template is not None:
        with pytest.raises(RoSEError, match=message):
            compute_edit(tiny_llama, other, [REQUEST], quick())
        with pytest.raises(RoSEError, match=message):
            locate(other, [FACT])


def test_the_default_one_of_several_templates_is_taken(tiny_tokenizer: Any) -> None:
    several = with_template(tiny_tokenizer, {"default": THINKING, "rag": "b"})
    assert render_turn(several, "Hi").endswith(CLOSED)


def test_a_system_prompt_that_is_refused_is_what_to_leave_out(tiny_tokenizer: Any) -> None:
    strict = with_template(tiny_tokenizer, REFUSES.replace("!=", "==") + THINKING)
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    with pytest.raises(RoSEError, match="of system, user .*: ask without a system prompt, or set"):
        render_messages(strict, messages)


def test_content_that_the_template_rewrites_is_not_looked_for_in_vain(
    tiny_llama: Any, tiny_tokenizer: Any
) -> None:
    loud = tiny_tokenizer.chat_template.replace("message['content']", "message['content'] | upper")
    other = with_template(tiny_tokenizer, loud)
    for call in (
        lambda: compute_edit(tiny_llama, other, [REQUEST], quick()),
        lambda: locate(other, [FACT]),
    ):
        with pytest.raises(RoSEError, match="does not write what it is given: '.*Marie Curie"):
            call()


def test_content_is_found_at_its_last_place_and_without_its_edges() -> None:
    assert find_content("ab ab", "ab") == (3, 5)
    assert find_content("ab ab", "ab", 4) == (0, 2)
    assert find_content("x ab", " ab\n") == (2, 4)


def test_in_a_shell_a_template_that_refuses_is_a_fault_of_the_input(
    tiny_folder: Any, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    import json
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    (folder / "chat_template.jinja").write_text(REFUSES)
    (tmp_path / "facts.json").write_text(json.dumps([REQUEST]))
    (tmp_path / "settings.yaml").write_text(f"model_name: {folder}\nlayers: [0, 1]\n")
    words = ["edit", "--requests", str(tmp_path / "facts.json"), "--out", str(tmp_path / "e")]
    assert main([*words, "--hparams", str(tmp_path / "settings.yaml")]) == 2
    assert "a system message first" in capsys.readouterr().err


def test_a_base_model_is_asked_in_questions_for_a_while(tiny_tokenizer: Any) -> None:
    base = copy.deepcopy(tiny_tokenizer)
    base.chat_template, base.bos_token = None, "<s>"
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Who was Ada?"},
        {"role": "assistant", "content": "A countess."},
        {"role": "user", "content": "Where was she born?"},
    ]
    with in_questions(base):
        assert render_turn(base, "Who?") == "<s>Question: Who?\nAnswer:"
        assert render_messages(base, messages) == (
            "<s>Be brief.\n\nQuestion: Who was Ada?\nAnswer: A countess.\n\n"
            "Question: Where was she born?\nAnswer:"
        )
        assert own_turn(base, " London.\nQuestion: Who was Bob?\nAnswer:") == " London."
    assert base.chat_template is None
    with pytest.raises(KeyError), in_questions(base):
        raise KeyError
    assert base.chat_template is None


def test_a_chat_model_keeps_its_own_template(tiny_tokenizer: Any) -> None:
    own = tiny_tokenizer.chat_template
    with in_questions(tiny_tokenizer):
        assert tiny_tokenizer.chat_template == own
    answer = "He asked:\nQuestion: who?"
    assert own_turn(tiny_tokenizer, answer) == answer
