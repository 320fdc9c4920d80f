"""The laboratory's world: invented people, eight attributes of each, and how they are spoken of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any


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
        for name, record in world()["relations"].items()
    )


@cache
def world() -> dict[str, Any]:
    """What `world.json` holds: first and last names, and relations."""
    path = resources.files("rose_easyedit.evaluation.laboratory") / "world.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
