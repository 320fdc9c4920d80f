"""From text to token ids, with the places that matter: the subject's last token and the target."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from rose_easyedit.errors import RoSEError
from rose_easyedit.text.token_ids import continuation_ids, token_ids, without_end


@dataclass(frozen=True)
class TokenQuery:
    """A text as token ids, its subject located, with or without a target to follow.

    Attributes:
        ids: token ids of the text and then of the target.
        subject: index of the last token of the subject.
        n_target: how many of the last ids are the target (0: none).
        again: index of the last token of a later mention of the subject, which an edit moves as it
            moves the first; None if there is none.
    """

    ids: tuple[int, ...]
    subject: int
    n_target: int
    again: int | None = None

    @property
    def key_prefix(self) -> tuple[int, ...]:
        """The ids up to the subject's last token: all that its key depends on."""
        return self.ids[: self.subject + 1]

    @property
    def mentions(self) -> list[TokenQuery]:
        """The query for each mention of the subject, located there."""
        places = [self.subject] if self.again is None else [self.subject, self.again]
        return [TokenQuery(self.ids, place, self.n_target) for place in places]


def tokenize(
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    subject: str,
    target: str = "",
    *,
    special: bool = True,
    window: tuple[int, int] | None = None,
    earlier: tuple[int, int] | None = None,
    learned: int | None = None,
) -> TokenQuery:
    """Tokenises a text and its target; does not depend on the tokenizer's padding side.

    Args:
        tokenizer: a fast tokenizer (the subject is located by character offsets).
        text: the text, which holds the subject.
        subject: the subject; its last occurrence that is not part of a longer word counts.
        target: what follows the text, with the space that separates them, if any.
        special: whether the tokenizer adds its special tokens, but for those at the end (chat
            templates bring their own).
        window: character range of `text` to look for the subject in.
        earlier: character range of an earlier text that names the subject as well.
        learned: where what is learned begins in the text; None: behind it, with the target.

    Raises:
        RoSEError: the tokenizer gives no offsets, or no token for the subject.
    """
    if not tokenizer.is_fast:
        raise RoSEError(
            f"The tokenizer {type(tokenizer).__name__} gives no character offsets; load the fast "
            "one (AutoTokenizer.from_pretrained(..., use_fast=True))."
        )
    encoded = tokenizer(
        text,
        add_special_tokens=special,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
    )
    ids = without_end(encoded)
    target_ids = _continuation(tokenizer, text, target, ids, special) if target else []
    position, *later = [
        _last_token_over(encoded["offset_mapping"], text, subject, where)
        for where in ([earlier, window] if earlier else [window])
    ]
    again = later[0] if later else None
    offsets = encoded["offset_mapping"][: len(ids)]
    first = len(text) if learned is None else learned
    n_learned = sum(start >= first and end > start for start, end in offsets)
    return TokenQuery(tuple(ids + target_ids), position, n_learned + len(target_ids), again)


def find_subject(text: str, subject: str, window: tuple[int, int] | None = None) -> int:
    """Character index just after the last occurrence of the subject.

    An occurrence inside a longer word ("Rome" in "Romeo") counts only where there is no other.

    Raises:
        RoSEError: the subject is not there.
    """
    first, last = window or (0, len(text))
    starts = []
    start = text.find(subject, first, last)
    while start >= 0:
        starts.append(start)
        start = text.find(subject, start + 1, last)
    if not starts:
        raise RoSEError(f"The text {text!r} does not contain the subject {subject!r}.")
    whole = [start for start in starts if _is_whole(text, start, start + len(subject))]
    return (whole or starts)[-1] + len(subject)


def _is_whole(text: str, start: int, end: int) -> bool:
    before = start > 0 and text[start - 1].isalnum() and text[start].isalnum()
    after = end < len(text) and text[end].isalnum() and text[end - 1].isalnum()
    return not before and not after


def _last_token_over(
    offsets: list[tuple[int, int]], text: str, subject: str, window: tuple[int, int] | None
) -> int:
    character = find_subject(text, subject, window) - 1
    covering = [i for i, (start, end) in enumerate(offsets) if start <= character < end]
    if covering:
        return covering[-1]
    # Normalisation can drop a character (an accent); the token before it then ends the subject.
    before = [i for i, (start, end) in enumerate(offsets) if start <= character and end > start]
    if not before:
        raise RoSEError(
            f"The tokenizer gives no token for the subject {subject!r} in {text!r}; it may be that "
            "of another model. Load the one that the model was trained with."
        )
    return before[-1]


def _continuation(
    tokenizer: PreTrainedTokenizerBase, text: str, target: str, ids: list[int], special: bool
) -> list[int]:
    """Ids of the target as the tokenizer would write them after the text."""
    whole = token_ids(tokenizer, text + target, special=special)
    if whole[: len(ids)] == ids and len(whole) > len(ids):
        return whole[len(ids) :]
    return continuation_ids(tokenizer, target)
