"""Names in a text, as whole words: in any case, in any script, in any way to encode them.

And what stands between two pieces of a text, which is a matter of the script as well.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

# Scripts that put no space between words: Thai, Lao, Myanmar, Khmer, kana, bopomofo and Han.
_SPACELESS = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3041-\u312f\u31a0-\u31bf"
    "\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
# Their signs, which bring the room around them along: East Asian punctuation, full-width forms.
_SIGNS = (
    "\u3001-\u3003\u3008-\u3020\u3030\u303d\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65"
)
# Hangul has spaces between words, and none between a name and its particle.
_HANGUL = "\u1100-\u11ff\u3130-\u318f\uac00-\ud7ff"
_SPACELESS_LETTER = re.compile(f"[{_SPACELESS}]")
_SPACELESS_END = re.compile(f"[{_SPACELESS}{_SIGNS}]$")
_UNSPACED = re.compile(f"[{_SPACELESS}{_HANGUL}]")
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


def joint(text: str, continuation: str) -> str:
    """What stands between a text and what goes on with it: a space or nothing.

    Nothing behind a letter or a sign of a script without spaces between words (Thai, Lao, Khmer,
    Myanmar, Chinese, Japanese; Korean has spaces), and behind a space. Behind anything else, a
    Latin name or a number, say, a space; unless the continuation begins in such a script and most
    letters of the text are of one: the sentence is Chinese, and only its end is not.

    Args:
        text: the statement, without a context in front of it that may be in another script.
        continuation: its target.
    """
    if not text or text[-1].isspace() or _SPACELESS_END.search(text):
        return ""
    letters = [letter for letter in text if letter.isalpha()]
    spaceless = len(_SPACELESS_LETTER.findall("".join(letters)))
    if _SPACELESS_LETTER.match(continuation) and 2 * spaceless > len(letters):
        return ""
    return " "


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
