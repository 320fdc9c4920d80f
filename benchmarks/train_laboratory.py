"""Makes the laboratory that the package ships: trains its model and writes its folder.

    python benchmarks/train_laboratory.py --out build/laboratory

In one thread, since sums depend on how they are shared out. With the releases in `constraints.txt`,
on a CPU of the same kind (one that computes in bfloat16), it comes out the same to the bit, and the
last line says whether it did. About ten minutes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from laboratory_texts import corpus, make_people, vocabulary
from laboratory_tokenizer import make_tokenizer
from laboratory_training import Recipe, train
from safetensors.torch import load_file, save_file

from rose_easyedit.evaluation.facts import FORMS
from rose_easyedit.evaluation.laboratory.laboratory import RECORD
from rose_easyedit.evaluation.laboratory.population import Population, make_fact
from rose_easyedit.evaluation.laboratory.world import Person, relations
from rose_easyedit.evaluation.metrics import contains_target
from rose_easyedit.export.peft import new_folder
from rose_easyedit.forward.generation import generate_greedy
from rose_easyedit.models.loading import LABORATORY_FOLDER

WEIGHTS = "model.safetensors"
CORPUS = "corpus.txt"
PEOPLE = "people.txt"
_ANSWER_TOKENS = 4


def make_laboratory(recipe: Recipe, home: Path) -> dict[str, Any]:
    """Trains a laboratory and writes it, in Hugging Face's form, with its texts and its record.

    Args:
        recipe: The model and its training.
        home: A new or empty folder.

    Returns:
        Its record: the recipe, what it was trained with, the checksum of its weights, how often it
        is right by form, and its people.
    """
    tokenizer = make_tokenizer(vocabulary())
    everybody = Population(make_people(recipe.people, recipe.statements_only, recipe.seed))
    model = train(recipe, tokenizer, everybody.people).half().float()
    with new_folder(home) as part:
        model.save_pretrained(part)
        halve(part / WEIGHTS)
        tokenizer.save_pretrained(part)
        write_texts(part, everybody.people)
        record = {
            "recipe": asdict(recipe),
            "trained_with": {name: version(name) for name in ("torch", "transformers")},
            "sha256": checksum(part / WEIGHTS),
            "consistency": native_consistency(model, tokenizer, everybody.silent),
            "people": [asdict(person) for person in everybody.people],
        }
        (part / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return record


def halve(weights: Path) -> None:
    """Rewrites float32 weights as float16; the configuration keeps what they are loaded as."""
    tensors = {name: tensor.half() for name, tensor in load_file(weights).items()}
    save_file(tensors, weights, metadata={"format": "pt"})


def write_texts(home: Path, people: Sequence[Person]) -> None:
    """Writes texts of the world, and everybody's name, a line each."""
    for name, lines in ((CORPUS, corpus(people)), (PEOPLE, [person.name for person in people])):
        (home / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def checksum(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def told(record: Mapping[str, Any]) -> str:
    """How often it is right, and whether it is the one that is shipped."""
    rates = ", ".join(f"{form} {share:.3f}" for form, share in record["consistency"].items())
    shipped = LABORATORY_FOLDER / WEIGHTS
    same = shipped.is_file() and checksum(shipped) == record["sha256"]
    standing = "the shipped weights" if same else "not the shipped weights"
    return f"{rates}\n{record['sha256']} ({standing})"


def main() -> None:
    """Trains the laboratory and says whether it came out as the shipped one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/laboratory"), help="a new folder")
    torch.set_num_threads(1)
    print(told(make_laboratory(Recipe(), parser.parse_args().out)))


if __name__ == "__main__":
    main()
