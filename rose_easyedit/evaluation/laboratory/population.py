"""Whom and what can be edited in the laboratory; needs the people only, and no trained model."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from rose_easyedit.errors import RoSEError
from rose_easyedit.evaluation.facts import Fact, LocalityPrompt
from rose_easyedit.evaluation.laboratory.world import Person, Relation, relations


@dataclass(frozen=True)
class Population:
    """The people of a laboratory.

    Attributes:
        people: Whom its model knows.
    """

    people: tuple[Person, ...]

    @property
    def silent(self) -> tuple[Person, ...]:
        """Those of whom the model has read plain statements only."""
        return tuple(person for person in self.people if not person.spoken_of)

    def facts(self, n_subjects: int, facts_per_subject: int, seed: int = 0) -> tuple[Fact, ...]:
        """Counterfactuals about people of whom the model has read plain statements only.

        Args:
            n_subjects: How many people.
            facts_per_subject: How many facts of each, 1 to 8.
            seed: Of the draw.

        Raises:
            RoSEError: There are not so many people or relations.
        """
        silent = self.silent
        faults = []
        if not 1 <= n_subjects <= len(silent):
            faults.append(f"n_subjects is {n_subjects}; give 1 to {len(silent)}")
        if not 1 <= facts_per_subject <= len(relations()):
            faults.append(f"facts_per_subject is {facts_per_subject}; give 1 to {len(relations())}")
        if faults:
            raise RoSEError.of("The laboratory has no such facts:", faults)
        dice = random.Random(seed)
        return tuple(
            make_fact(person, relation, dice.choice(self._others(person, relation)))
            for person in dice.sample(silent, n_subjects)
            for relation in dice.sample(relations(), facts_per_subject)
        )

    def all_facts(self) -> tuple[Fact, ...]:
        """A counterfactual for every relation of everybody whom `facts` may be about."""
        return self.facts(len(self.silent), len(relations()))

    def _others(self, person: Person, relation: Relation) -> list[str]:
        """Values that others have, and so ones that the model can say; not this person's."""
        held = {other.values[relation.name] for other in self.people}
        return sorted(held - {person.values[relation.name]})

    def locality(
        self, facts: Sequence[Fact], count: int = 200, seed: int = 0
    ) -> tuple[LocalityPrompt, ...]:
        """Statements and questions about people of whom no fact is edited.

        Args:
            facts: The edited ones.
            count: How many prompts, as far as there are people left.
            seed: Of the draw.
        """
        dice = random.Random(seed)
        edited = {fact.subject for fact in facts}
        prompts = []
        for person in self.people:
            for relation in relations() if person.name not in edited else ():
                prompts.append(
                    LocalityPrompt("neighbour", relation.prompt.format(person.name), False)
                )
                asked = dice.choice(relation.questions).format(person.name)
                prompts.append(LocalityPrompt("neighbour", asked, True))
        return tuple(dice.sample(prompts, min(count, len(prompts))))


def make_fact(person: Person, relation: Relation, target: str) -> Fact:
    """The counterfactual that this person's value of a relation is the target."""

    def filled(texts: Sequence[str]) -> tuple[str, ...]:
        return tuple(text.format(person.name) for text in texts)

    return Fact(
        subject=person.name,
        relation=relation.name,
        prompt=relation.prompt.format(person.name),
        target_new=target,
        ground_truth=person.values[relation.name],
        paraphrases=filled(relation.paraphrases),
        questions=filled(relation.questions),
        instructions=filled(relation.instructions),
    )
