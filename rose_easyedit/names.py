"""Names in a text, as whole words: in any case, in any script, in any way to encode them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

# Scripts that put no space between words, or none between a name and its particle: Thai, Lao,
# Myanmar, Hangul, Khmer, kana and Han.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3005-\u3007\u3041-\u318f\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff]"
)
# A text has one of these where another has a plain apostrophe.
_APOSTROPHES = str.maketrans(dict.fromkeys("\u2018\u2019\u201b\u02bb\u02bc", "'"))


@dataclass(frozen=True)
class Names:
    """Names that are looked for together, folded; `lengths` are theirs, the longest first."""

    folded: frozenset[str]
    lengths: tuple[int, ...]

    @classmethod
    def of(cls, names: Iterable[str]) -> Names:
        """These names; one that is empty or nothing but space is nowhere."""
        names = frozenset(filter(None, (fold(name).strip() for name in names)))
        return cls(names, tuple(sorted({len(name) for name in names}, reverse=True)))

    def are_in(self, text: str) -> bool:
        """Whether the text holds one of the names as a whole word."""
        return next(self._spans(fold(text)), None) is not None

    def begin(self, folded: str) -> bool:
        """Whether a folded text begins with one of the names as a whole word."""
        return any(folded.startswith(name) and _closes(folded, len(name)) for name in self.folded)

    def split(self, text: str) -> list[tuple[str, bool]]:
        """The text (NFKC) in pieces, each with whether it is one of the names.

        Of names that overlap the first one counts, and of those the longest.
        """
        letters = _letters(text)
        # for each place of the folded text, which letter it comes from
        origin = [i for i, letter in enumerate(letters) for _ in fold(letter)] + [len(letters)]
        pieces, end = [], 0
        for first, last in self._spans("".join(map(fold, letters))):
            start, stop = origin[first], origin[last]
            pieces += [("".join(letters[end:start]), False), ("".join(letters[start:stop]), True)]
            end = stop
        pieces.append(("".join(letters[end:]), False))
        return [piece for piece in pieces if piece[0]]

    def _spans(self, folded: str) -> Iterator[tuple[int, int]]:
        end = 0
        for start in range(len(folded)):
            if start >= end and _opens(folded, start):
                for length in self.lengths:
                    stop = min(start + length, len(folded))
                    if folded[start:stop] in self.folded and _closes(folded, stop):
                        yield start, stop
                        end = stop
                        break


def fold(text: str) -> str:
    """A text as it is compared: one Unicode form (NFKC), no case, one apostrophe."""
    # once more, since a letter without case may have a shorter form than with it
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return folded.translate(_APOSTROPHES)


def _letters(text: str) -> list[str]:
    """The characters of a text (NFKC), each with the marks upon it."""
    letters: list[str] = []
    for character in unicodedata.normalize("NFKC", text):
        if letters and _is_mark(character):
            letters[-1] += character
        else:
            letters.append(character)
    return letters


def _opens(text: str, start: int) -> bool:
    """Whether a name can begin here, and does not go on with a longer word."""
    return start == 0 or not _of_a_word(text[start - 1]) or _unspaced(text, start)


def _closes(text: str, end: int) -> bool:
    """Whether a name can end here, and does not begin a longer word."""
    if end >= len(text) or not _of_a_word(text[end]):
        return True
    return not _is_mark(text[end]) and _unspaced(text, end)


def _unspaced(text: str, place: int) -> bool:
    return _UNSPACED.search(text, place - 1, place + 1) is not None


def _of_a_word(character: str) -> bool:
    return character.isalnum() or character == "_" or _is_mark(character)


def _is_mark(character: str) -> bool:
    """Whether it stands upon the letter before it, such as an accent or a vowel of Hindi."""
    return unicodedata.category(character).startswith("M")
