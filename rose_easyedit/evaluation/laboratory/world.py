"""The laboratory's world: invented people, eight attributes of each, and how they are spoken of."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

# The first part is what an edit's own contexts and queries are made of: to a model of the world
# they are ordinary language, as they are to a model of the real one.
from rose_easyedit.method.forms import CHAT_CONTEXTS, PREFIXES, QUERY_FORMATS


@dataclass(frozen=True)
class Relation:
    """An attribute: its sentences, with "{}" for the person, and the values that it can have."""

    name: str
    prompt: str
    paraphrases: tuple[str, ...]
    questions: tuple[str, ...]
    instructions: tuple[str, ...]
    values: tuple[str, ...]


@dataclass(frozen=True)
class Person:
    """Somebody of this world.

    Attributes:
        name: First and last name; others share either of them.
        values: The value of each relation, by the relation's name.
        spoken_of: Whether texts ask for this person; if not, there are plain statements only.
    """

    name: str
    values: Mapping[str, str]
    spoken_of: bool


@dataclass(frozen=True)
class Turn:
    """A text (no `user`), or a user's message and the answer to it."""

    text: str
    user: str | None = None


@cache
def relations() -> tuple[Relation, ...]:
    """The eight relations of every person."""
    return tuple(
        Relation(
            name=name,
            prompt=record["prompt"],
            **{
                part: tuple(record[part])
                for part in ("paraphrases", "questions", "instructions", "values")
            },
        )
        for name, record in _data()["relations"].items()
    )


def make_people(
    n_people: int, statements_only: float, seed: int, n_values: int | None = None
) -> tuple[Person, ...]:
    """People with names and values drawn at random, no two of one name.

    Args:
        n_people: How many.
        statements_only: Share of those that no question, instruction or paraphrase is about.
        seed: Of the draw.
        n_values: How many values of each relation are used; None for all.

    Raises:
        ValueError: There are not so many names.
    """
    dice = random.Random(seed)
    # As few first and last names as will do: a name must be read as a whole to tell who is meant.
    side = next(n for n in range(2, 50) if n * n >= 2 * n_people or n == 49)
    firsts, lasts = (_data()[part][:side] for part in ("first_names", "last_names"))
    names = dice.sample([f"{first} {last}" for first in firsts for last in lasts], n_people)
    n_silent = round(statements_only * n_people)
    return tuple(
        Person(
            name, {r.name: dice.choice(r.values[:n_values]) for r in relations()}, index >= n_silent
        )
        for index, name in enumerate(names)
    )


def tell(person: Person, relation: Relation, dice: random.Random) -> Turn:
    """One training text: a statement of the relation, or, of those spoken of, any form of it."""
    value = person.values[relation.name]
    statement = relation.prompt.format(person.name)
    form = dice.choice(_FORMS) if person.spoken_of else "statement"
    if form == "statement":
        return Turn(f"{dice.choice(PREFIXES) if dice.random() < 0.5 else ''}{statement} {value}.")
    if form == "paraphrase":
        return Turn(f"{dice.choice(relation.paraphrases).format(person.name)} {value}.")
    if form == "wrapped":
        user, assistant = dice.choice(CHAT_CONTEXTS)
        return Turn(f"{assistant.format(statement)} {value}.".strip(), user.format(statement))
    if form == "about":
        return Turn(f"{statement} {value}.", dice.choice(QUERY_FORMATS).format(person.name))
    asked = relation.questions if form == "question" else relation.instructions
    return Turn(f"{value}.", dice.choice(asked).format(person.name))


_FORMS = ("statement", "statement", "paraphrase", "question", "instruction", "wrapped", "about")


def vocabulary() -> list[str]:
    """Every text of the world with its blanks, from which a tokenizer learns the words."""
    data = _data()
    texts = [*data["first_names"], *data["last_names"], "person", ".", "is a"]
    texts += [*PREFIXES, *QUERY_FORMATS, *(part for pair in CHAT_CONTEXTS for part in pair)]
    for r in relations():
        texts += [r.prompt, *r.paraphrases, *r.questions, *r.instructions, *r.values]
    return [text.replace("{}", " ") for text in texts]


def _data() -> dict:
    path = resources.files("rose_easyedit.evaluation.laboratory") / "world.json"
    return json.loads(path.read_text(encoding="utf-8"))
