"""The interactive chat: what each model is told, and when it forgets."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import pytest

from rose_easyedit.cli import main
from rose_easyedit.cli.conversation import conversation
from rose_easyedit.errors import RoSEError


def type_in(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    typed = iter(lines)

    def read(_prompt: str) -> str:
        try:
            return next(typed)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", read)


def contents(messages: Any) -> Any:
    return messages if isinstance(messages, str) else [m["content"] for m in messages]


@pytest.fixture
def told() -> list[Any]:
    return []


@pytest.fixture
def answers(told: list[Any]) -> Any:
    def answers(before: Sequence[Any], after: Sequence[Any]) -> list[tuple[str, str]]:
        told.append((contents(before[0]), contents(after[0])))
        return [(f"old {len(told)}", f"new {len(told)}")]

    return answers


def test_each_model_remembers_its_own_answers(
    told: list[Any], answers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    type_in(monkeypatch, "one", "two")
    conversation(answers, chat=True)
    assert told == [(["one"], ["one"]), (["one", "old 1", "two"], ["one", "new 1", "two"])]


def test_a_question_that_cannot_be_asked_is_forgotten(
    told: list[Any], answers: Any, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def short(before: Sequence[Any], after: Sequence[Any]) -> list[tuple[str, str]]:
        if "long" in contents(before[0]):
            raise RoSEError("The prompt has 99 tokens.")
        return answers(before, after)

    type_in(monkeypatch, "one", "long", "two")
    conversation(short, chat=True)
    assert told[1] == (["one", "old 1", "two"], ["one", "new 1", "two"])
    assert "The prompt has 99 tokens. An empty line" in capsys.readouterr().out


def test_an_empty_line_starts_anew(
    told: list[Any], answers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    type_in(monkeypatch, "one", "  ", "two")
    conversation(answers, chat=True)
    assert told[1] == (["two"], ["two"])


def test_plain_texts_stand_alone(
    told: list[Any], answers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    type_in(monkeypatch, "one", "two")
    conversation(answers, chat=False)
    assert told == [("one", "one"), ("two", "two")]


def test_the_answers_are_shown(
    answers: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    type_in(monkeypatch, "one")
    conversation(answers, chat=True)
    shown = capsys.readouterr().out
    assert "old 1" in shown and "new 1" in shown and "Ctrl-D" in shown


def test_a_question_that_is_not_utf8_ends_nothing(
    told: list[Any], answers: Any, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    typed = io.TextIOWrapper(io.BytesIO(b"caf\xe9?\none\n"), encoding="utf-8")
    monkeypatch.setattr("sys.stdin", typed)
    conversation(answers, chat=True)
    assert told == [(["one"], ["one"])]
    assert "is no text" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["ask", "memory ask"])
def test_a_prompt_that_is_not_utf8_is_refused(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = ["--memory", "none"] if command.startswith("memory") else ["--delta", "none"]
    assert main([*command.split(), *source, "--prompt", "caf\udce9"]) == 2
    assert "is no text" in capsys.readouterr().err
