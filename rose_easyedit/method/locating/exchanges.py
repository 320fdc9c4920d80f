"""Pairs of prompts that differ in nothing but their subject."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from rose_easyedit.errors import RoSEError
from rose_easyedit.requests import EditRequest


@dataclass(frozen=True)
class Exchange:
    """A prompt, and the same prompt about another subject."""

    prompt: str
    subject: str
    other_prompt: str
    other: str


def exchanges(requests: Sequence[EditRequest], n: int, seed: int = 0) -> list[Exchange]:
    """Draws at most n pairs.

    The other subject is one that the same prompt is asked about, so that it is of the same kind;
    for a prompt that is asked about one subject only, any other of the list. None that the prompt
    names besides is taken. As many prompts as possible are drawn before one comes again with
    another partner.

    Args:
        requests: their prompts hold their subjects; targets are not read.
        n: pairs at the most, 1 or more.
        seed: of the draw.

    Raises:
        RoSEError: n is below 1 or the seed below 0, or all requests are about one subject.
    """
    if n < 1:
        raise RoSEError(f"The number of pairs is {n}; give 1 or more.")
    if seed < 0:
        raise RoSEError(f"The seed is {seed}; give 0 or more.")
    prompts = list(dict.fromkeys((_pieces(r.prompt, r.subject), r.subject) for r in requests))
    subjects = list(dict.fromkeys(subject for _, subject in prompts))
    if len(subjects) < 2:
        raise RoSEError(
            f"All facts are about {', '.join(map(repr, subjects)) or 'nobody'}; subjects are "
            "exchanged with each other, so give facts about two or more."
        )
    asked_of: dict[tuple[str, ...], list[str]] = {}
    for wording, subject in prompts:
        asked_of.setdefault(wording, []).append(subject)
    generator = random.Random(seed)
    drawn = generator.sample(prompts, min(n, len(prompts)))
    partners = []
    for wording, subject in drawn:
        alike = asked_of[wording] if len(asked_of[wording]) > 1 else subjects
        others = [o for o in alike if o != subject and not any(o in piece for piece in wording)]
        partners.append(generator.sample(others, min(n, len(others))))
    pairs = [
        Exchange(
            prompt=subject.join(wording),
            subject=subject,
            other_prompt=other.join(wording),
            other=other,
        )
        for round_ in zip_longest(*partners)
        for (wording, subject), other in zip(drawn, round_, strict=True)
        if other is not None
    ]
    return pairs[:n]


def _pieces(prompt: str, subject: str) -> tuple[str, ...]:
    """What a prompt says between the mentions of its subject, which are whole words if any is."""
    name = re.escape(subject)
    whole = re.split(rf"(?<!\w){name}(?!\w)", prompt)
    return tuple(whole if len(whole) > 1 else prompt.split(subject))
