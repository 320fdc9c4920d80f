"""The laboratory as a whole: trained once, and kept in the cache."""

from __future__ import annotations

import hashlib
import json
import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

from rose_easyedit.evaluation.facts import FORMS
from rose_easyedit.evaluation.laboratory.population import Population, make_fact
from rose_easyedit.evaluation.laboratory.tokenizer import BEGIN, make_tokenizer
from rose_easyedit.evaluation.laboratory.training import Recipe, render, train
from rose_easyedit.evaluation.laboratory.world import (
    Person,
    make_people,
    relations,
    tell,
    vocabulary,
)
from rose_easyedit.evaluation.metrics import contains_target
from rose_easyedit.evaluation.native import NativeRates
from rose_easyedit.export import new_folder
from rose_easyedit.files import write_whole
from rose_easyedit.generation import generate_greedy
from rose_easyedit.hparams import RoSEHyperParams
from rose_easyedit.method.forms import CHAT_CONTEXTS, PREFIXES, QUERY_FORMATS
from rose_easyedit.paths import cache_dir

logger = logging.getLogger(__name__)

FULL = Recipe()
# Answers three quarters of the questions about those it was never asked about.
MINUTE = Recipe(people=40, steps=450, batch=192, learning_rate=3e-3)

LEAST_CONSISTENCY = 0.9
CORPUS = "corpus.txt"
PEOPLE = "people.txt"
_RECORD = "laboratory.json"
_ANSWER_TOKENS = 4


@dataclass(frozen=True)
class Laboratory(Population):
    """A trained model of the invented world.

    Attributes:
        model: In evaluation mode, float32.
        tokenizer: Word-level, with a chat template.
        folder: Where it is kept, in Hugging Face's form.
        consistency: Per form, how often the model is right about people whom it was never asked
            about.
    """

    model: Any
    tokenizer: Any
    folder: Path
    consistency: Mapping[str, float]

    @property
    def native(self) -> NativeRates:
        """How often the model is right about people whom it was never asked about."""
        return _rates(self.consistency)

    def hparams(self, preset: str = "rose", **overrides: Any) -> RoSEHyperParams:
        """A method's settings for this model, with generic text of its own world.

        Args:
            preset: As `RoSEHyperParams.preset`.
            overrides: As `RoSEHyperParams.with_overrides`.
        """
        hparams = RoSEHyperParams.preset(preset, "laboratory")
        hparams = hparams.with_overrides(
            model_name=str(self.folder),  # where its corpus is found
            # the built-in subjects are unknown words to it
            alignment={"subject_weight": 0.0, "preserved_columns": 0},
        )
        return hparams.with_overrides(**overrides)


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


def laboratory_rates(folder: Path) -> NativeRates | None:
    """The native rates of the laboratory in a folder, or None if there is no laboratory."""
    record = folder / _RECORD
    if not record.is_file():
        return None
    return _rates(json.loads(record.read_text(encoding="utf-8"))["consistency"])


def _rates(consistency: Mapping[str, float]) -> NativeRates:
    """The same in all relations: a form's rate is that over all of them."""
    return {
        (relation.name, form): share
        for relation in relations()
        for form, share in consistency.items()
    }


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
        if not (home / PEOPLE).is_file():
            write_whole(home / PEOPLE, _names(home).encode())
    return home


def _names(home: Path) -> str:
    """Everybody in the laboratory of a folder, one a line."""
    record = json.loads((home / _RECORD).read_text(encoding="utf-8"))
    return "".join(f"{person['name']}\n" for person in record["people"])


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
    return Laboratory(population(recipe).people, model, tokenizer, home, consistency)


def population(recipe: Recipe = FULL) -> Population:
    """The people of a recipe's laboratory, which need not be trained for it."""
    return Population(make_people(recipe.people, recipe.statements_only, recipe.seed))


def _make(recipe: Recipe, home: Path) -> None:
    tokenizer = make_tokenizer(vocabulary())
    everybody = population(recipe)
    model = train(recipe, tokenizer, everybody.people)
    record = {
        "recipe": asdict(recipe),
        "consistency": native_consistency(model, tokenizer, everybody.silent),
        "people": [asdict(person) for person in everybody.people],
    }
    with new_folder(home) as part:
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)
        (part / CORPUS).write_text("\n".join(corpus(everybody.people)), encoding="utf-8")
        (part / _RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")


def corpus(people: Sequence[Person], n_lines: int = 2000) -> list[str]:
    """Texts about everybody, as the model has read them."""
    dice = random.Random(1)
    told = [
        render(tell(dice.choice(people), dice.choice(relations()), dice)) for _ in range(n_lines)
    ]
    return [text.removeprefix(f"{BEGIN} ") for text in told]  # the tokenizer puts it there


def _key(recipe: Recipe) -> str:
    """Of all that the trained weights depend on."""
    world = resources.files("rose_easyedit.evaluation.laboratory") / "world.json"
    versions = [version(name) for name in ("torch", "transformers")]
    told_in = [PREFIXES, CHAT_CONTEXTS, QUERY_FORMATS]
    parts = [asdict(recipe), versions, told_in, world.read_text(encoding="utf-8")]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
