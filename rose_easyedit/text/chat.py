"""Chats as a model's template writes them: the one place, for all who put something to a model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

from rose_easyedit.errors import RoSEError, first_line, shown
from rose_easyedit.restoring import restoring

# What the templates of Llama 3 fall back to without a clock, and where templates ask for the date.
_DATE = date(2024, 7, 26)
_TODAY = re.compile(r"""\bstrftime_now\(\s*(['"])(.*?)\1\s*\)""")

# Without these a template may leave the answer to come after a text of thoughts, which neither an
# edit nor a short answer gets to the end of.
_DEFAULTS: Mapping[str, Any] = {"enable_thinking": False}

# How a base model is asked, which knows no chats but has read of questions and answers.
_QUESTION = "Question: "
_QUESTION_ANSWER = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'user' %}" + _QUESTION + "{{ m.content }}\nAnswer:"
    "{% elif m.role == 'assistant' %} {{ m.content }}\n\n"
    "{% else %}{{ m.content }}\n\n{% endif %}{% endfor %}"
)

Arguments = Mapping[str, Any]
Message = Mapping[str, str]


def arguments_used(tokenizer: Any, given: Arguments | None = None) -> dict[str, Any]:
    """What the tokenizer's chat template is told beside the messages, whole: for the record.

    Args:
        tokenizer: the model's tokenizer; without a template there is nothing to tell.
        given: values by the names that the template knows; `enable_thinking` is false, if the
            template knows it, unless it is given.

    Raises:
        RoSEError: a name that the template does not know, or several templates without a default.
    """
    if tokenizer.chat_template is None:
        return {}
    template, given = _template(tokenizer), given or {}
    if unknown := [name for name in given if not _knows(template, name)]:
        known = [name for name in _DEFAULTS if _knows(template, name)]
        raise RoSEError(
            f"template_arguments has {', '.join(map(shown, unknown))}, which the tokenizer's chat "
            f"template does not know; leave it out"
            + (f", or give {', '.join(known)}." if known else ".")
        )
    return {name: value for name, value in _DEFAULTS.items() if _knows(template, name)} | dict(
        given
    )


def render_messages(
    tokenizer: Any, messages: Sequence[Message], arguments: Arguments | None = None
) -> str:
    """Messages in the tokenizer's chat template, the assistant's turn begun.

    A template that tells the date is given always the same one, 26 July 2024, so that neither an
    edit nor an answer depends on the day.

    Args:
        tokenizer: the model's tokenizer.
        messages: each with "role" and "content".
        arguments: what else the template is told, as `arguments_used` takes it.

    Raises:
        RoSEError: there is no template, there are several and none is the default, or the template
            refuses the messages (a system prompt, in some models).
    """
    told = arguments_used(tokenizer, arguments)
    template = _TODAY.sub(lambda call: repr(_DATE.strftime(call[2])), _template(tokenizer))
    try:
        found: str = tokenizer.apply_chat_template(
            messages, chat_template=template, tokenize=False, add_generation_prompt=True, **told
        )
        return found
    except Exception as error:  # a template is a program of somebody else's, and may raise anything
        roles = ", ".join(message["role"] for message in messages)
        system = any(message["role"] == "system" for message in messages)
        advice = "ask without a system prompt, or set" if system else "set"
        raise RoSEError(
            f"The model's chat template refuses these messages, of {roles} "
            f"({first_line(str(error)) or type(error).__name__}): {advice} another "
            "tokenizer.chat_template, or None to do without chats."
        ) from error


def render_turn(tokenizer: Any, user: str, arguments: Arguments | None = None) -> str:
    """A user's turn in the chat template, the assistant's begun.

    Raises:
        RoSEError: as `render_messages`.
    """
    return render_messages(tokenizer, [{"role": "user", "content": user}], arguments)


@restoring
def in_questions(tokenizer: Any) -> Iterator[None]:
    """The tokenizer of a base model with a template "Question: ... Answer:" for a while.

    One that has a chat template stays as it is.
    """
    if tokenizer.chat_template is not None:
        yield
        return
    try:
        tokenizer.chat_template = _QUESTION_ANSWER
        yield
    finally:
        tokenizer.chat_template = None


def own_turn(tokenizer: Any, answer: str) -> str:
    """An answer without the next question, which a base model goes on to ask itself."""
    if tokenizer.chat_template != _QUESTION_ANSWER:
        return answer
    return answer.split(f"\n{_QUESTION.strip()}", 1)[0]


def find_content(rendered: str, content: str, end: int | None = None) -> tuple[int, int]:
    """The character range of the last place of a message's content in a rendered chat.

    Templates may strip a message; its content counts without the space at its edges where it does
    not stand there whole.

    Args:
        rendered: from `render_messages`.
        content: what to look for.
        end: where to stop looking.

    Raises:
        RoSEError: the template has written the content in a way of its own.
    """
    for text in (content, content.strip()):
        start = rendered.rfind(text, 0, end)
        if start >= 0:
            return start, start + len(text)
    raise RoSEError(
        f"The model's chat template does not write what it is given: {shown(content)} is not in "
        f"{shown(rendered)}, so the subject cannot be found there. Set another "
        "tokenizer.chat_template, or None to do without chats."
    )


def _template(tokenizer: Any) -> str:
    """The text of the tokenizer's template, the default one of several."""
    templates = tokenizer.chat_template
    if templates is None:
        raise RoSEError(
            "The tokenizer has no chat template, so questions cannot be put to it as a chat: "
            "set tokenizer.chat_template, or ask with chat=False."
        )
    if isinstance(templates, Mapping) and "default" not in templates:
        raise RoSEError(
            f"The tokenizer has several chat templates ({', '.join(sorted(templates))}) and none "
            "of them is the default: set tokenizer.chat_template to the text of one."
        )
    found: str = tokenizer.get_chat_template()
    return found


def _knows(template: str, name: str) -> bool:
    return re.search(rf"\b{re.escape(name)}\b", template) is not None
