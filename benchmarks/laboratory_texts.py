"""What a model of the laboratory's world reads: people drawn at random, and texts about them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from laboratory_tokenizer import ASSISTANT, BEGIN, END, USER

from rose_easyedit.evaluation.laboratory.world import Person, Relation, relations, world

# What an edit's own contexts and queries are made of: to a model of the world they are ordinary
# language, as they are to a model of the real one.
from rose_easyedit.method.contexts import CHAT_CONTEXTS, PREFIXES, QUERY_FORMATS

_FORMS = ("statement", "statement", "paraphrase", "question", "instruction", "wrapped", "about")


@dataclass(frozen=True)
class Turn:
    """A text (no `user`), or a user's message and the answer to it."""

    text: str
    user: str | None = None


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
    firsts, lasts = (world()[part][:side] for part in ("first_names", "last_names"))
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


def render(turn: Turn) -> str:
    """A training text as the model reads it, chat template included."""
    if turn.user is None:
        return f"{BEGIN} {turn.text} {END}"
    return f"{BEGIN} {USER} {turn.user} {END} {ASSISTANT} {turn.text} {END}"


def corpus(people: Sequence[Person], n_lines: int = 2000) -> list[str]:
    """Texts about everybody, as a model of the world has read them."""
    dice = random.Random(1)
    told = [
        render(tell(dice.choice(people), dice.choice(relations()), dice)) for _ in range(n_lines)
    ]
    return [text.removeprefix(f"{BEGIN} ") for text in told]  # the tokenizer puts it there


def vocabulary() -> list[str]:
    """Every text of the world with its blanks, from which a tokenizer learns the words."""
    texts = [*world()["first_names"], *world()["last_names"], "person", ".", "is a"]
    texts += [*PREFIXES, *QUERY_FORMATS, *(part for pair in CHAT_CONTEXTS for part in pair)]
    for r in relations():
        texts += [r.prompt, *r.paraphrases, *r.questions, *r.instructions, *r.values]
    return [text.replace("{}", " ") for text in texts]
