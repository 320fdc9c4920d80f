"""A data set's own prompts that an edit should leave alone."""

from __future__ import annotations

from collections.abc import Iterable

from rose_easyedit.evaluation.facts import Fact, LocalityPrompt
from rose_easyedit.text.names import Names


def neighbour_prompts(facts: Iterable[Fact]) -> tuple[LocalityPrompt, ...]:
    """The neighbours of the facts, each once, as an evaluation takes them.

    A neighbour that names the subject of one of the facts, in whatever case, is left out, since
    what is said of that subject is meant to change. Most of KnowEdit's name their own.
    """
    facts = list(facts)
    subjects = Names.of(fact.subject for fact in facts)
    texts = dict.fromkeys(text for fact in facts for text in fact.neighbours)
    return tuple(
        LocalityPrompt("neighbour", text, chat=False) for text in texts if not subjects.are_in(text)
    )
