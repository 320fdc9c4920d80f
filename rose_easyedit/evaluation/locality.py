"""What an edit should leave alone: neighbours, unrelated prompts, the rest of its own subjects."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from rose_easyedit.evaluation.datasets.locality import neighbour_prompts
from rose_easyedit.evaluation.datasets.parsing import template
from rose_easyedit.evaluation.facts import (
    CORE,
    SUBJECT,
    Fact,
    LocalityPrompt,
    load_locality,
    relation_names,
)
from rose_easyedit.evaluation.kinds import Kinds
from rose_easyedit.method.generic import held_out_subjects
from rose_easyedit.method.neighbourhood import neighbour_subjects
from rose_easyedit.text.names import Names

# An agreement of 0.9 is then known to 0.05.
_MOST_NEIGHBOURS = 144
# Each takes a generation; a subject has 9 and those of its kind.
_MOST_SUBJECT_QUERIES = 200
# They name no relation. No method is told of these wordings.
_STATEMENTS = (
    "The first thing to know about {} is",
    "Most people think of {} as",
    "In an encyclopedia, the entry on {} begins with",
    "A friend of mine once told me about {}:",
    "Everything in this chapter is about {}, which means",
)
_QUESTIONS = (
    "Tell me about {}.",
    "Describe {} in one sentence.",
    "What is {} famous for?",
    "Why do people talk about {}?",
)
_FIRST_CLAUSE = re.compile(r"[,.;:!?()\n]")
_Item = TypeVar("_Item")


def default_locality(facts: Sequence[Fact], name: str = CORE) -> list[LocalityPrompt]:
    """What is asked beside some facts unless it is said otherwise, beside their own neighbours.

    Args:
        facts: That are edited.
        name: The bundled set that their relations are of, if they are of one.
    """
    kinds, relations = Kinds.read(), set(relation_names(name))
    without = [f for f in facts if f.relation not in relations and not neighbour_prompts([f])]
    return [
        *built_in_neighbours(without, facts, kinds),
        *bundled_locality(facts, name),
        *subject_queries(facts, kinds),
    ]


def bundled_locality(facts: Sequence[Fact], name: str = CORE) -> list[LocalityPrompt]:
    """A bundled set's prompts for the relations at hand, without those about an edited subject."""
    relations = set(relation_names(name))
    prompts = load_locality([fact for fact in facts if fact.relation in relations], name)
    subjects = Names.of(fact.subject for fact in facts)
    return [prompt for prompt in prompts if not subjects.are_in(prompt.text)]


def built_in_neighbours(
    facts: Sequence[Fact], edited: Sequence[Fact], kinds: Kinds
) -> list[LocalityPrompt]:
    """Built-in subjects in the facts' own prompts, evenly thinned.

    Those of the fact's kind, if that is known, in its prompt and its first question; and, in its
    prompt, those of all kinds that an edit measures its own drift on. No method is told of them.

    Args:
        facts: Whose prompts they are.
        edited: Facts whose subjects are no neighbours.
        kinds: The bundled ones.
    """
    requests = [fact.to_request() for fact in edited]
    of_kind = {kind: neighbour_subjects(names, requests) for kind, names in kinds.subjects.items()}
    any_kind = neighbour_subjects(held_out_subjects(), requests)
    prompts: dict[LocalityPrompt, None] = {}
    for fact in facts:
        near = of_kind.get(kinds.of(fact) or "", [])
        asked = [(fact.prompt, False, [*near, *any_kind])]
        asked += [(text, True, near) for text in fact.questions[:1]]
        for text, chat, names in asked:
            bare = template(text, fact.subject)
            if "{}" in bare:
                prompts |= {
                    LocalityPrompt("neighbour", bare.replace("{}", name), chat, name): None
                    for name in names
                }
    return _thinned(list(prompts), _MOST_NEIGHBOURS)


def subject_queries(facts: Sequence[Fact], kinds: Kinds) -> list[LocalityPrompt]:
    """Queries of the facts' subjects that ask for other things, in turn of each subject.

    Some name no relation; others are the bundled relations of the subject's kind, but for those
    in whose wordings one of its facts is.
    """
    subjects: dict[str, list[Fact]] = {}
    for fact in facts:
        subjects.setdefault(fact.subject, []).append(fact)
    asked = [
        [
            LocalityPrompt(SUBJECT, text.replace("{}", subject), chat, subject)
            for text, chat in _about(of, kinds)
        ]
        for subject, of in subjects.items()
    ]
    each = max(1, _MOST_SUBJECT_QUERIES // max(1, len(asked)))
    return [p for of in _thinned(asked, _MOST_SUBJECT_QUERIES) for p in _thinned(of, each)]


def replaced_answers(facts: Iterable[Fact], statement_of: Callable[[Fact], str]) -> Names:
    """What facts replace: their true answers, or else how the unedited model goes on.

    Args:
        facts: Of one subject.
        statement_of: The unedited model's continuation of a fact's prompt, or "".
    """
    names = []
    for fact in facts:
        said = _FIRST_CLAUSE.split(statement_of(fact).strip(), maxsplit=1)[0]
        names += [fact.ground_truth or said, *fact.truth_aliases]
    return Names.of(names)


def _about(facts: Sequence[Fact], kinds: Kinds) -> list[tuple[str, bool]]:
    edited = {template(text, f.subject) for f in facts for text in (f.prompt, *f.questions)}
    edited |= {fact.relation for fact in facts}
    kind = next(filter(None, map(kinds.of, facts)), "")
    relations = [
        texts
        for relation, texts in kinds.wordings.get(kind, {}).items()
        if edited.isdisjoint((relation, *texts))
    ]
    return [
        *((text, False) for text in _STATEMENTS),
        *((text, True) for text in _QUESTIONS),
        *((texts[place], place < 0) for texts in relations for place in (0, -1)),
    ]


def _thinned(items: Sequence[_Item], most: int) -> list[_Item]:
    """Some of the items, evenly spaced, at most so many."""
    count = min(len(items), most)
    return [items[place * len(items) // count] for place in range(count)]
