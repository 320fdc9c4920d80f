"""A data set's own prompts that an edit should leave alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Set
from itertools import combinations

from rose_easyedit.evaluation.facts import Fact, LocalityPrompt


def neighbour_prompts(facts: Iterable[Fact]) -> tuple[LocalityPrompt, ...]:
    """The neighbours of the facts, each once, as an evaluation takes them.

    A neighbour that names the subject of one of the facts is left out, since what is said of that
    subject is meant to change. Most of KnowEdit's name their own.
    """
    facts = list(facts)
    subjects = {fact.subject for fact in facts}
    texts = dict.fromkeys(text for fact in facts for text in fact.neighbours)
    return tuple(
        LocalityPrompt("neighbour", text, chat=False)
        for text in texts
        if not _names_one_of(text, subjects)
    )


def _names_one_of(text: str, names: Set[str]) -> bool:
    """Whether the text holds one of the names, not as a part of a longer word."""
    # \\b would not do: it does not match behind a name that ends in a sign, such as "F.C."
    edges = [match.start() for match in re.finditer(r"(?<!\w)|(?!\w)", text)]
    return any(text[start:end] in names for start, end in combinations(edges, 2))
