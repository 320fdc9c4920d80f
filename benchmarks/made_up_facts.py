"""Any number of facts to measure the cost of an edit with; nobody asks for them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from rose_easyedit.evaluation.facts import make_fact, relation_names
from rose_easyedit.method.generic import generic_subjects
from rose_easyedit.requests import EditRequest

PER_SUBJECT = 4
_TARGETS = ("Norwegian", "Toronto", "the violin", "copper")


def made_up_requests(n: int) -> list[EditRequest]:
    """The first n facts of an endless list, four about each subject, the same at every call."""
    return list(islice(_requests(), n))


def subjects() -> Iterator[str]:
    """The built-in subjects, then pairs of them, each once."""
    names = generic_subjects()
    yield from names
    for distance in range(1, len(names)):
        for place, name in enumerate(names):
            yield f"{name} and {names[(place + distance) % len(names)]}"


def _requests() -> Iterator[EditRequest]:
    relations = relation_names()
    for number, subject in enumerate(subjects()):
        for place in range(PER_SUBJECT):
            relation = relations[(number * PER_SUBJECT + place) % len(relations)]
            target = _TARGETS[(number + place) % len(_TARGETS)]
            fact = make_fact(relation, subject, target_new=target, ground_truth="unknown")
            yield fact.to_request()
