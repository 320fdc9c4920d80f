"""A text as token ids that more may follow, and that the model has.

Some tokenizers end each text (`add_eos_token`, say); a target, or a model's answer, would stand
behind that end. Some know tokens that were added to them and not to the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rose_easyedit.errors import RoSEError


def token_ids(tokenizer: Any, text: str, *, special: bool) -> list[int]:
    """Token ids of a text.

    Args:
        tokenizer: any tokenizer.
        text: the text; a special token that is written out in it stays.
        special: whether the tokenizer adds its special tokens, those of the beginning only.
    """
    encoded = tokenizer(text, add_special_tokens=special, return_special_tokens_mask=True)
    return without_end(encoded)


def continuation_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a text that goes on with another one, tokenised apart from it.

    Some tokenizers write a space before each text; it is not wanted within a line.
    """
    line = token_ids(tokenizer, "\n", special=False)
    whole = token_ids(tokenizer, "\n" + text, special=False)
    if line and whole[: len(line)] == line and len(whole) > len(line):
        return whole[len(line) :]
    return token_ids(tokenizer, text, special=False)


def without_end(encoded: Mapping[str, list[int]]) -> list[int]:
    """`input_ids` without the special tokens that the tokenizer has added behind the text.

    A text without a token of its own keeps them, since its beginning looks like its end.

    Args:
        encoded: what a tokenizer makes of one text, with its `special_tokens_mask`.
    """
    ids, added = list(encoded["input_ids"]), encoded["special_tokens_mask"]
    own = [place for place, is_added in enumerate(added) if not is_added]
    return ids[: own[-1] + 1] if own else ids


def n_embeddings(model: Any) -> int:
    """How many token ids a model can read: 0 to one less than this."""
    return int(model.get_input_embeddings().weight.shape[0])


def check_ids(model: Any, rows: Iterable[Sequence[int]]) -> None:
    """Refuses token ids that the model has no embedding for.

    Args:
        model: a causal language model.
        rows: token ids that will be put to it.

    Raises:
        RoSEError: with the ids, and how many the model has.
    """
    if fault := ids_fault(model, rows):
        raise RoSEError(f"These texts cannot be put to the model: {fault}.")


def ids_fault(model: Any, rows: Iterable[Sequence[int]]) -> str | None:
    """What is wrong with token ids that the model has no embedding for; None if there are none."""
    known = n_embeddings(model)
    beyond = sorted({token for row in rows for token in row if token >= known})
    if not beyond:
        return None
    named = ", ".join(map(str, beyond[:5])) + (", ..." if len(beyond) > 5 else "")
    return (
        f"the tokenizer makes the token ids {named} of them, and the model has embeddings for ids "
        f"below {known} only (tokens were added to the tokenizer, or it is another model's): call "
        "model.resize_token_embeddings(len(tokenizer)) and train them, or take the model's own "
        "tokenizer"
    )
