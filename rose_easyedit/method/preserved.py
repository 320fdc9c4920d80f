"""Preserved columns: other subjects in the edit's own prompts, whose hidden states shall stay.

What an edit disturbs first is what its prompts say of other subjects, since those keys are nearest
to its own. So these are told to the solve as well, as columns whose target is where they are.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from rose_easyedit.method.forms import foreign_form
from rose_easyedit.method.generic import generic_subjects
from rose_easyedit.method.tokens import Query, find_subject
from rose_easyedit.requests import EditRequest


def preserved_queries(
    tokenizer: PreTrainedTokenizerBase, requests: Sequence[EditRequest], n: int, seed: int
) -> list[Query]:
    """Built-in subjects in prompts of the requests, drawn at random.

    They depend on which prompts there are, not on the order of the requests.

    Args:
        tokenizer: the model's tokenizer.
        requests: the facts of the edit; built-in subjects that one of them is about are left out.
        n: how many are drawn; a text up to its subject that was drawn before is not repeated.
        seed: of the drawing.
    """
    subjects = foreign_subjects(requests)
    if not subjects:
        return []
    frames = sorted({frame(request) for request in requests})
    draw = random.Random(seed)
    places: dict[tuple[int, ...], Query] = {}
    for number in range(n):
        subject = subjects[number % len(subjects)]
        before, after = draw.choice(frames)
        # Once through the subjects in one form, then in the next.
        form = foreign_form(
            tokenizer, before + subject + after, number // len(subjects), draw.random()
        )
        query = form.tokenize(tokenizer, subject)
        places.setdefault(query.key_prefix, query)
    return list(places.values())


def foreign_subjects(requests: Sequence[EditRequest]) -> list[str]:
    """The built-in subjects that no request is about, not even under a longer or shorter name."""
    edited = {request.subject.casefold() for request in requests}
    return [
        subject
        for subject in generic_subjects()
        if not any(subject.casefold() in name or name in subject.casefold() for name in edited)
    ]


def frame(request: EditRequest) -> tuple[str, str]:
    """What a request's prompt says before and after its subject."""
    end = find_subject(request.prompt, request.subject)
    return request.prompt[: end - len(request.subject)], request.prompt[end:]
