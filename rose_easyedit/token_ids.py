"""A text as token ids that more may follow: without the end that some tokenizers write behind it.

A tokenizer with `add_eos_token`, say, ends each text; a target, or a model's answer, would stand
behind that end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def token_ids(tokenizer: Any, text: str, *, special: bool) -> list[int]:
    """Token ids of a text.

    Args:
        tokenizer: any tokenizer.
        text: the text; a special token that is written out in it stays.
        special: whether the tokenizer adds its special tokens, those of the beginning only.
    """
    encoded = tokenizer(text, add_special_tokens=special, return_special_tokens_mask=True)
    return without_end(encoded)


def without_end(encoded: Mapping[str, list[int]]) -> list[int]:
    """`input_ids` without the special tokens that the tokenizer has added behind the text.

    A text without a token of its own keeps them, since its beginning looks like its end.

    Args:
        encoded: what a tokenizer makes of one text, with its `special_tokens_mask`.
    """
    ids, added = list(encoded["input_ids"]), encoded["special_tokens_mask"]
    own = [place for place, is_added in enumerate(added) if not is_added]
    return ids[: own[-1] + 1] if own else ids
