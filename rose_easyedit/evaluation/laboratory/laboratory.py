"""The laboratory as a whole: made once, kept in the cache, and the facts to edit in it."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

from rose_easyedit.errors import RoSEError
from rose_easyedit.evaluation.facts import FORMS, Fact, LocalityPrompt
from rose_easyedit.evaluation.generation import generate_greedy
from rose_easyedit.evaluation.laboratory.tokenizer import BEGIN, make_tokenizer
from rose_easyedit.evaluation.laboratory.training import Recipe, render, train
from rose_easyedit.evaluation.laboratory.world import (
    Person,
    Relation,
    make_people,
    relations,
    tell,
    vocabulary,
)
from rose_easyedit.evaluation.metrics import contains_target
from rose_easyedit.hparams import RoSEHyperParams
from rose_easyedit.paths import cache_dir

logger = logging.getLogger(__name__)

FULL = Recipe()
# Answers three quarters of the questions about those it was never asked about.
MINUTE = Recipe(people=40, steps=450, batch=192, learning_rate=3e-3)

LEAST_CONSISTENCY = 0.9
CORPUS = "corpus.txt"
_RECORD = "laboratory.json"
_ANSWER_TOKENS = 4
# The presets' learning rates are for SmolLM2, where a hidden state has ten times the length per
# root of its width.
_PACE = 0.1


@dataclass(frozen=True)
class Laboratory:
    """A trained model of the invented world.

    Attributes:
        model: In evaluation mode, float32.
        tokenizer: Word-level, with a chat template.
        people: Whom it knows.
        folder: Where it is kept, in Hugging Face's form.
        consistency: Per form, how often the model is right about people whom it was never asked
            about.
    """

    model: Any
    tokenizer: Any
    people: tuple[Person, ...]
    folder: Path
    consistency: Mapping[str, float]

    def facts(self, n_subjects: int, facts_per_subject: int, seed: int = 0) -> tuple[Fact, ...]:
        """Counterfactuals about people of whom the model has read plain statements only.

        Args:
            n_subjects: How many people.
            facts_per_subject: How many facts of each, 1 to 8.
            seed: Of the draw.

        Raises:
            RoSEError: There are not so many people or relations.
        """
        silent = [person for person in self.people if not person.spoken_of]
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
        silent = [person for person in self.people if not person.spoken_of]
        return self.facts(len(silent), len(relations()))

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

    def hparams(self, preset: str = "rose", **overrides: Any) -> RoSEHyperParams:
        """A method's settings for this model, its pace and generic text the world's own.

        Args:
            preset: As `RoSEHyperParams.preset`.
            overrides: As `RoSEHyperParams.with_overrides`.
        """
        hparams = RoSEHyperParams.preset(preset, "laboratory")
        rates = ("fact_learning_rate", "subject_learning_rate")
        hparams = hparams.with_overrides(
            model_name=str(self.folder),  # where its corpus is found
            hierarchy={name: _PACE * getattr(hparams.hierarchy, name) for name in rates},
            alignment={"subject_weight": 0.0},  # the built-in subjects are unknown words to it
        )
        return hparams.with_overrides(**overrides)


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


def native_consistency(model: Any, tokenizer: Any, people: Sequence[Person]) -> dict[str, float]:
    """Per form, the share of queries about these people that the model answers truly."""
    queries = [
        (query, person.values[relation.name])
        for person in people
        for relation in relations()
        for query in make_fact(person, relation, person.values[relation.name]).queries
    ]
    right: dict[str, list[bool]] = {form: [] for form in FORMS}
    for chat in (False, True):
        asked = [(query, truth) for query, truth in queries if query.chat == chat]
        answers = generate_greedy(
            model,
            tokenizer,
            [query.text for query, _ in asked],
            chat=chat,
            max_new_tokens=_ANSWER_TOKENS,
            batch_size=128,
        )
        for (query, truth), answer in zip(asked, answers, strict=True):
            right[query.form].append(contains_target(answer, truth))
    return {form: fmean(answered) for form, answered in right.items()}


def laboratory_folder(recipe: Recipe = FULL, folder: Path | None = None) -> Path:
    """Where the laboratory of a recipe is, trained if it is not in the cache yet (minutes).

    Args:
        recipe: The model and its training.
        folder: Where laboratories are kept; None takes the user's cache folder.
    """
    from filelock import FileLock

    home = (folder or cache_dir() / "laboratories") / _key(recipe)
    home.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{home}.lock"):
        if not (home / _RECORD).is_file():
            _make(recipe, home)
    return home


def load_laboratory(recipe: Recipe = FULL, folder: Path | None = None) -> Laboratory:
    """The laboratory of a recipe, trained if it is not in the cache yet (minutes).

    A model that falls short of `LEAST_CONSISTENCY` is kept, with a warning that says where.

    Args:
        recipe: The model and its training.
        folder: Where laboratories are kept; None takes the user's cache folder.
    """
    from rose_easyedit.models import load_model

    home = laboratory_folder(recipe, folder)
    consistency = json.loads((home / _RECORD).read_text(encoding="utf-8"))["consistency"]
    if weak := {form: share for form, share in consistency.items() if share < LEAST_CONSISTENCY}:
        logger.warning("this laboratory does not answer every form: %s", weak)
    model, tokenizer = load_model(str(home))
    return Laboratory(model, tokenizer, _people(recipe), home, consistency)


def _make(recipe: Recipe, home: Path) -> None:
    draft = home.with_name(f"{home.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)  # of a process that was killed
    tokenizer = make_tokenizer(vocabulary())
    people = _people(recipe)
    model = train(recipe, tokenizer, people)
    silent = [person for person in people if not person.spoken_of]
    record = {
        "recipe": asdict(recipe),
        "consistency": native_consistency(model, tokenizer, silent),
        "people": [asdict(person) for person in people],
    }
    model.save_pretrained(draft)
    tokenizer.save_pretrained(draft)
    (draft / CORPUS).write_text("\n".join(_corpus(people)), encoding="utf-8")
    (draft / _RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")
    os.replace(draft, home)


def _people(recipe: Recipe) -> tuple[Person, ...]:
    return make_people(recipe.people, recipe.statements_only, recipe.seed)


def _corpus(people: Sequence[Person], n_lines: int = 2000) -> list[str]:
    """Texts about everybody, as the model has read them."""
    dice = random.Random(1)
    told = [
        render(tell(dice.choice(people), dice.choice(relations()), dice)) for _ in range(n_lines)
    ]
    return [text.removeprefix(f"{BEGIN} ") for text in told]  # the tokenizer puts it there


def _key(recipe: Recipe) -> str:
    """Of all that the trained weights depend on."""
    world = resources.files("rose_easyedit.evaluation.laboratory") / "world.json"
    parts = [asdict(recipe), version("torch"), world.read_text(encoding="utf-8")]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
