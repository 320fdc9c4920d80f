"""What a person sees in an answer: is the target named, and is it still about the subject?

"The capital of Spain is Madrid." names the target that was written for Japan, and is no answer to
what was asked. What decides is the answer's *claim*: all up to the end of the clause that names the
target, so that "Madrid, the capital of Spain" claims no more than "Madrid". The subject's *place*
in it is what the query and the unedited answer show: where "capital of" came before Japan, whatever
it comes before now stands in Japan's place; and so does another subject that the claim begins with.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rose_easyedit.evaluation.metrics import starts_with_target
from rose_easyedit.text.names import Names, fold

_PREPOSITIONS = frozenset("of in at on for by to from with along about called".split())
_ARTICLES = ("the ", "a ", "an ")
# What may stand for the subject that was asked about without naming it, and what goes with that.
_STANDS_FOR = frozenset(
    "he she it they his hers her its their theirs him them who whom whose which what that this "
    "these those the a an one is was are were am s".split()
)
_PARTICLES = frozenset("van von der den de da di del della la le du dos bin ibn al el".split())
_TITLES = frozenset("mr mrs ms miss dr sir prof professor madame king queen president".split())
# Ends of the claim, behind the target, and of a sentence.
_CLAUSE_END = re.compile(r"[,.;:!?()\n\u2013\u2014\u3001\u3002]|\b(?:and|but|while|where|which)\b")
_OPENING = re.compile(rf"((?:{'|'.join(sorted(_PREPOSITIONS))})\s+)?(?:the\s+)?", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.;!?\n\u3002]")
_WORD = re.compile(r"\w+")
# Between two mentions of the target it keeps them from being a stutter.
_BETWEEN = re.compile(r"[\w.;!?\n\u3002]")
# What says something of the target: the claim does not end with it.
_COPULAS = frozenset("is are was were has have had".split())
# Words of a phrase that must not come twice in a row, and of one that must not come twice at all.
_TWICE_IN_A_ROW, _TWICE = 4, 6
# A target that is named so often must not be as large a part of the words.
_MOST_NAMED, _MOST_OF_THE_WORDS = 2, 0.25
_LEAST_LETTERS = 3
_NOBODY = Names.of(())


@dataclass(frozen=True)
class Verdict:
    """What one answer shows.

    Attributes:
        named: It names the target or an alias as a whole word.
        kept: It is still about the subject: it names it, or leaves it to the question.
        replaced: Something else stands in the subject's place.
        broken: It repeats the target or itself (`is_broken`).
    """

    named: bool
    kept: bool
    replaced: bool
    broken: bool

    @property
    def faithful(self) -> bool:
        """The new fact, said of its own subject: named and kept."""
        return self.named and self.kept


@dataclass(frozen=True)
class Asked:
    """What an answer is judged by.

    Attributes:
        query: What was asked.
        before: The unedited model's answer to it.
        subject: What the query is about.
        target: The target and its aliases; empty where no edit says what the answer shall be.
        others: Subjects of its kind (`other_names`); what the query names is none.
        aliases: Further names of the subject.
    """

    query: str
    before: str
    subject: str
    target: Sequence[str] = ()
    others: Names = _NOBODY
    aliases: Sequence[str] = ()


def judge(answer: str, asked: Asked) -> Verdict:
    """The verdict on an answer.

    The subject is replaced where the claim does not name it and has something else in its place,
    the target included ("The main product of chocolate is chocolate"). It is kept unless it is
    replaced, and if one of these holds: the answer begins with the target, as a terse answer and a
    statement's continuation do; it names the subject; it names nothing before the target that was
    not asked ("She was born in Rome", "The capital is Madrid", "The product of the company is
    chocolate"); or the unedited answer did not name the subject either.
    """
    names = (asked.subject, *asked.aliases)
    target = Names.of(asked.target)
    lead, found, tail = _claim(answer, target)
    claim = lead + found + tail
    replaced = not names_subject(claim, names) and (
        _place_taken(claim, tail, asked, target) or _begins_with_other(claim, asked)
    )
    kept = not replaced and (
        _begins(answer, asked.target)
        or names_subject(answer, names)
        or not names_subject(asked.before, names)
        or _names_nothing(lead, tail, asked)
    )
    return Verdict(bool(found), kept, replaced, is_broken(answer, asked.target))


def other_names(subjects: Iterable[str]) -> Names:
    """What subjects are called, in full and by the last word of a name."""
    return Names.of(name for subject in subjects for name in (subject, _last_word(subject)))


def names_subject(text: str, names: Iterable[str]) -> bool:
    """Whether a text names a subject: in full, without its article, or by its last word.

    The last word counts of names whose other words have capitals, particles such as "van" apart:
    the "America" of "Bank of America" is another thing. And it counts alone, behind a title or
    behind other words of the name: "Pierre Curie" does not name Marie Curie, nor "North Korea"
    South Korea. Of a plural such as "lions" the singular counts as well.
    """
    names = list(names)
    return _full_names(names).are_in(text) or any(_by_last_word(text, name) for name in names)


def is_broken(answer: str, target: Sequence[str] = ()) -> bool:
    """Whether an answer repeats the target or itself.

    The target is named twice with no word and no full stop between, or more than twice and is a
    quarter of the words; or a phrase comes three times in a row, one of four words twice in a row,
    or one of six words twice. Words are runs of letters and digits.
    """
    pieces = Names.of(target).split(answer)
    named = [place for place, (_, marked) in enumerate(pieces) if marked]
    stutters = any(
        fold(pieces[one][0]) == fold(pieces[other][0])
        and not any(_BETWEEN.search(text) for text, _ in pieces[one + 1 : other])
        for one, other in zip(named, named[1:], strict=False)
    )
    words = _words(answer)
    mostly = len(named) > _MOST_NAMED and len(named) >= _MOST_OF_THE_WORDS * len(words)
    return mostly or stutters or _loops(words)


def _claim(answer: str, target: Names) -> tuple[str, str, str]:
    """What is before the target, the target, and what is behind it up to the end of the clause.

    Of an answer without the target: its first sentence, and nothing.
    """
    pieces = target.split(answer)
    at = next((place for place, (_, marked) in enumerate(pieces) if marked), None)
    if at is None:
        return _SENTENCE_END.split(answer.strip(), maxsplit=1)[0], "", ""
    lead = "".join(text for text, _ in pieces[:at]).lstrip()
    rest = "".join(text for text, _ in pieces[at + 1 :])
    return lead, pieces[at][0], _CLAUSE_END.split(rest, maxsplit=1)[0]


def _begins(answer: str, target: Sequence[str]) -> bool:
    plain = fold(answer).lstrip()
    return any(starts_with_target(plain.removeprefix(a), "", target) for a in ("", *_ARTICLES))


def _place_taken(claim: str, tail: str, asked: Asked, target: Names) -> bool:
    """Whether the words that came before the subject come before something else now.

    That is a word with a capital that the unedited answer does not name, or any word where the
    subject has none, or the target, if the claim goes on behind it: "the profession of singer" says
    what the profession is.
    """
    small = asked.subject.islower()
    for frame in _frames(asked):
        for found in re.finditer(frame, claim, re.IGNORECASE):
            rest = claim[found.end() :]
            word = _WORD.match(rest)
            if word is None or fold(word.group()) in _STANDS_FOR:
                continue
            if target.begin(fold(rest)):
                if tail.strip():
                    return True
            elif small or (rest[0].isupper() and not Names.of([word.group()]).are_in(asked.before)):
                return True
    return False


def _frames(asked: Asked) -> Iterator[str]:
    """Patterns of what stands before the subject in the query and the unedited answer.

    A word and a preposition, such as "capital of", with what may come between: "the capital of the
    country of". And a word of the query with another preposition: where it asks what currency is
    used in Tokyo, "the currency of" is said of Tokyo as well; not of subjects without a capital,
    before which anything may stand.
    """
    own = _full_names((asked.subject, *asked.aliases))
    for text in (asked.query, asked.before):
        pieces = own.split(text)
        for (before, _), (_, marked) in zip(pieces, pieces[1:], strict=False):
            words = [word for word in _words(before) if word != "the"][-2:]
            if marked and len(words) == 2 and words[1] in _PREPOSITIONS:
                yield _frame(words[:1], words[1:])
    asked_for = {word for word in _words(asked.query) if len(word) > _LEAST_LETTERS}
    asked_for -= {*_STANDS_FOR, *_PREPOSITIONS, *_words(asked.subject)}
    if asked_for and not asked.subject.islower():
        yield _frame(asked_for, ("of", "in"))


def _frame(words: Iterable[str], prepositions: Iterable[str]) -> str:
    one, two = ("|".join(sorted(map(re.escape, of))) for of in (words, prepositions))
    between = r"(?:the\s+\w+\s+of\s+)?(?:the\s+)?"
    return rf"(?<!\w)(?:{one})\s+(?:the\s+)?(?:{two})\s+{between}"


def _begins_with_other(claim: str, asked: Asked) -> bool:
    """Whether the claim is about another subject: "Spain's capital is", "In Spain, people speak".

    Not one that the query, the unedited answer or the target names.
    """
    opening = _OPENING.match(claim.lstrip())
    rest = claim.lstrip()[opening.end() if opening else 0 :]
    if not asked.others.begin(fold(rest)):
        return False
    (other, _), *behind = asked.others.split(rest)
    if Names.of([other]).are_in("\n".join((asked.query, asked.before, *asked.target))):
        return False
    follows = fold("".join(text for text, _ in behind))
    placed = bool(opening and opening[1])
    return placed or re.match(r"'s|\s+\w", follows) is not None


def _names_nothing(lead: str, tail: str, asked: Asked) -> bool:
    """Whether the claim ends with the target and names nothing else that was not there before.

    Words that neither the query nor the unedited answer has have no capital and do not come first;
    where the subject has no capital itself, there are none.
    """
    if _COPULAS.intersection(_words(tail)):
        return False
    known = {*_words(asked.query), *_words(asked.before), *_STANDS_FOR}
    words = _WORD.findall(lead)
    new = [place for place, word in enumerate(words) if fold(word) not in known]
    if asked.subject.islower():
        return bool(words) and not new
    return bool(words) and all(place and words[place].islower() for place in new)


def _full_names(names: Iterable[str]) -> Names:
    full = [name for name in names if name]
    full += [name[len(a) :] for name in full for a in _ARTICLES if fold(name).startswith(a)]
    plurals = [name for name in full if name.islower() and name.endswith("s")]
    return Names.of([*full, *(name[:-1] for name in plurals), *(name[:-2] for name in plurals)])


def _last_word(name: str) -> str:
    """The last word of a name that can stand for the whole, or ""."""
    words = _WORD.findall(unicodedata.normalize("NFKC", name))
    whole = all(word[0].isupper() or fold(word) in _PARTICLES for word in words)
    return words[-1] if len(words) > 1 and whole else ""


def _by_last_word(text: str, name: str) -> bool:
    behind = {*_words(name), *_TITLES, *_PREPOSITIONS, *_STANDS_FOR}
    pieces = Names.of([_last_word(name)]).split(text)
    for (before, _), (piece, marked) in zip([("", False), *pieces], pieces, strict=False):
        left = re.search(r"(\w+)\.?\s+$", before)
        alone = left is None or not left[1][0].isupper() or fold(left[1]) in behind
        if marked and piece[0].isupper() and alone:
            return True
    return False


def _loops(words: Sequence[str]) -> bool:
    phrases = list(zip(*(words[i:] for i in range(_TWICE)), strict=False))
    if len(set(phrases)) < len(phrases):
        return True
    for length in range(1, len(words) // 2 + 1):
        run = 0  # words in a row that are the same as `length` words earlier
        for one, other in zip(words, words[length:], strict=False):
            run = run + 1 if one == other else 0
            if run >= 2 * length or run >= length >= _TWICE_IN_A_ROW:
                return True
    return False


def _words(text: str) -> list[str]:
    return _WORD.findall(fold(text))
