"""What is claimed of the laboratory: it is trained from nothing where it is not in the cache."""

from __future__ import annotations

import random

import pytest
import torch

from rose_easyedit.architectures import read_architecture
from rose_easyedit.evaluation.laboratory import load_laboratory
from rose_easyedit.evaluation.laboratory.world import relations
from rose_easyedit.method.activations import frozen
from rose_easyedit.method.locating.tracing import trace_subject
from rose_easyedit.method.targets import compute_targets
from rose_easyedit.method.tokens import tokenize

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def laboratory():
    return load_laboratory()


def test_every_form_is_answered_about_those_it_was_never_asked_about(laboratory):
    assert min(laboratory.consistency.values()) >= 0.9


def test_the_edited_layers_are_the_band_where_the_person_is(laboratory):
    dice = random.Random(0)
    people = [person for person in laboratory.people if not person.spoken_of]
    pairs = []
    for _ in range(200):
        pair, relation = dice.sample(people, 2), dice.choice(relations())
        pairs.append(
            tuple(
                tokenize(laboratory.tokenizer, relation.prompt.format(person.name), person.name)
                for person in pair
            )
        )
    with frozen(laboratory.model):
        trace = trace_subject(read_architecture(laboratory.model), pairs)
    assert trace.clean.mean() > 0.95
    assert trace.band(0.5) == laboratory.hparams().layers == [1, 2, 3]
    assert trace.restored[4:].max() < 0.1


def test_single_facts_are_reached_at_their_subject(laboratory):
    facts = [fact.to_request() for fact in laboratory.facts(48, 1)]
    hparams = laboratory.hparams(
        precision="weights", hierarchy={"integration": "independent", "fact_steps": 100}
    )
    targets = compute_targets(laboratory.model, laboratory.tokenizer, facts, hparams)
    losses = torch.tensor([loss for losses in targets.shifts.losses for loss in losses])
    assert (losses < 0.05).float().mean() >= 0.9
