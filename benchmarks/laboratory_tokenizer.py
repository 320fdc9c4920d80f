"""A word-level tokenizer with a chat template, for the laboratory's world."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

BEGIN, END, USER, ASSISTANT, UNKNOWN = "<|begin|>", "<|end|>", "<|user|>", "<|assistant|>", "<|?|>"

CHAT_TEMPLATE = (
    f"{BEGIN} "
    "{% for message in messages %}"
    f"{{% if message.role == 'assistant' %}}{ASSISTANT} {{% else %}}{USER} {{% endif %}}"
    f"{{{{ message.content }}}} {END} "
    "{% endfor %}"
    f"{{% if add_generation_prompt %}}{ASSISTANT} {{% endif %}}"
)


def make_tokenizer(texts: Iterable[str]) -> Any:
    """A fast tokenizer whose tokens are the words and punctuation marks of some texts.

    Args:
        texts: All words that it shall know; any other is one unknown token.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    split = pre_tokenizers.Whitespace()
    words = {word for text in texts for word, _ in split.pre_tokenize_str(text)}
    tokens = [END, BEGIN, USER, ASSISTANT, UNKNOWN, *sorted(words)]
    tokenizer = Tokenizer(
        models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token=UNKNOWN)
    )
    tokenizer.pre_tokenizer = split
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", special_tokens=[(BEGIN, tokens.index(BEGIN))]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=END,
        unk_token=UNKNOWN,
        additional_special_tokens=[USER, ASSISTANT],
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast
