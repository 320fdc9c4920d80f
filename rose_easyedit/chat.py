"""The chat template, in one way for all who put something to a model: on any day the same."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date

from transformers import PreTrainedTokenizerBase

# What the templates of Llama 3 fall back to without a clock, and where templates ask for the date.
_DATE = date(2024, 7, 26)
_TODAY = re.compile(r"""\bstrftime_now\(\s*(['"])(.*?)\1\s*\)""")


def render_messages(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]]
) -> str:
    """Messages in the tokenizer's chat template, the assistant's turn begun.

    A template that tells the date is given always the same one, 26 July 2024, so that neither an
    edit nor an answer depends on the day.

    Args:
        tokenizer: the model's tokenizer; it has a chat template.
        messages: each with "role" and "content".

    Raises:
        jinja2.TemplateError: the template refuses the messages.
    """
    template = _TODAY.sub(lambda call: repr(_DATE.strftime(call[2])), tokenizer.get_chat_template())
    return tokenizer.apply_chat_template(
        messages, chat_template=template, tokenize=False, add_generation_prompt=True
    )
