"""Questions for a user's own facts: those of a relation that the bundled sets have wordings for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rose_easyedit.evaluation.datasets.parsing import template
from rose_easyedit.evaluation.facts import SETS, Fact, bundled
from rose_easyedit.evaluation.laboratory.world import relations


@dataclass(frozen=True)
class Wording:
    """How a relation is asked for; "{}" stands for the subject.

    Attributes:
        relation: Its name.
        statements: Those that an edit may have been given as, the usual one first.
        questions: Put in a chat.
        instructions: Put in a chat.
        aliases: A target to other spellings of it.
    """

    relation: str
    statements: Sequence[str]
    questions: Sequence[str]
    instructions: Sequence[str]
    aliases: Mapping[str, Sequence[str]]

    @classmethod
    def of_record(cls, name: str, record: Mapping[str, Any]) -> Wording:
        """Of a relation of a bundled set."""
        statements = (record["statement"], *record["paraphrases"])
        asked = (record["questions"], record["instructions"])
        return cls(name, statements, *asked, record["aliases"])

    def put_to(self, fact: Fact, statement: str) -> Fact:
        """A fact whose prompt is one of the statements, asked in all of the wordings."""

        def filled(templates: Iterable[str]) -> tuple[str, ...]:
            return tuple(text.replace("{}", fact.subject) for text in templates)

        return replace(
            fact,
            relation=self.relation,
            paraphrases=filled(text for text in self.statements if text != statement),
            questions=filled(self.questions),
            instructions=filled(self.instructions),
            target_aliases=tuple(self.aliases.get(fact.target_new, ())),
            truth_aliases=tuple(self.aliases.get(fact.ground_truth, ())),
        )


def wordings() -> list[Wording]:
    """Those of the bundled sets, and of the laboratory."""
    of_sets = [
        Wording.of_record(name, record)
        for data in map(bundled, SETS)
        for name, record in data["relations"].items()
    ]
    of_laboratory = [
        Wording(of.name, (of.prompt, *of.paraphrases), of.questions, of.instructions, {})
        for of in relations()
    ]
    return [*of_sets, *of_laboratory]


def with_known_wordings(facts: Iterable[Fact]) -> list[Fact]:
    """The facts, each with paraphrases, questions and instructions where its statement is known.

    Others stay as they are.
    """
    known = _by_statement(wordings())
    found = []
    for fact in facts:
        statement = template(fact.prompt, fact.subject)
        of = known.get(statement)
        found.append(of.put_to(fact, statement) if of else fact)
    return found


def _by_statement(of: Iterable[Wording]) -> dict[str, Wording]:
    """Statement to how its relation is asked for, but for those that several relations share.

    "In {}, most people speak" is said of countries and of towns, and a town has no official
    language.
    """
    found: dict[str, Wording] = {}
    shared = set()
    for wording in of:
        for statement in wording.statements:
            other = found.setdefault(statement, wording)
            if other.relation != wording.relation and other.questions != wording.questions:
                shared.add(statement)
    return {statement: wording for statement, wording in found.items() if statement not in shared}
