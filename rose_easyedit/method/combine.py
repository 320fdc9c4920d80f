"""Several edits as one: solved together with their model, or their updates merely added.

What an edit keeps of its facts are the targets; the keys that each layer has to answer with them
are read from the model. Solving together therefore needs the model (`combine`), and it is what one
edit of all facts would have been. A sum (`add`) needs none, but then no edit knows of the other's
keys, and each moves what the other has set, as it moves any prompt that it should leave alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rose_easyedit.config.compare import differences
from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.edits.factors import Factors
from rose_easyedit.edits.provenance import Provenance
from rose_easyedit.errors import RoSEError
from rose_easyedit.method.extend import facts_of, requests_of, solve_together
from rose_easyedit.models.lock import one_at_a_time
from rose_easyedit.requests import EditRequest


@one_at_a_time
def combine(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *deltas: EditDelta
) -> EditDelta:
    """The edit that one batch of all facts would give, as near as `extend.extend` comes.

    A fact that several edits have counts once. Targets are those of the edits; a subject of which
    several have different facts is optimised anew, with all of them.

    Args:
        model: the unedited model that the edits were computed for; not changed.
        tokenizer: its tokenizer.
        deltas: the edits; not changed.

    Raises:
        RoSEError: there is no edit, they contradict each other, they are of different bases,
            layers or settings or do not keep their targets, or the model is not their base.
    """
    if not deltas:
        raise RoSEError("There is no edit to combine; give at least one.")
    requests = [requests_of(delta) for delta in deltas]
    faults = [*_unlike(deltas), *_contradictions(requests)]
    if faults:
        raise RoSEError.of("These edits cannot be combined:", faults)
    facts_of(model, deltas[0])
    facts = {request.place: request for several in requests for request in several}
    return solve_together(model, tokenizer, deltas, list(facts.values()))


def add(one: EditDelta, other: EditDelta) -> EditDelta:
    """The sum of two edits' updates, with the facts and targets of both.

    Neither is solved against the keys of the other. The sum can be extended like any edit, and is
    then solved as a whole. Where one edit has all facts of the other, it is the sum. A locality
    budget in the settings has bounded each of them, and does not bound the sum.

    Raises:
        RoSEError: they contradict each other, they have some subject in common (whose value would
            be written twice), they are of different bases, layers or settings, or do not keep
            their facts and targets.
    """
    requests = [requests_of(one), requests_of(other)]
    if faults := [*_unlike([one, other]), *_contradictions(requests)]:
        raise RoSEError.of("These edits cannot be added:", faults)
    facts = [{request.identity for request in several} for several in requests]
    for whole, all_there in ((one, facts[1] <= facts[0]), (other, facts[0] <= facts[1])):
        if all_there:
            note = "an edit that has no other facts was added, and is counted once"
            record = replace(whole.provenance, log=[*whole.provenance.log, note])
            return EditDelta(dict(whole.layers), whole.base, record, whole.targets)
    subjects = [{request.subject for request in several} for several in requests]
    if shared := sorted(subjects[0] & subjects[1]):
        raise RoSEError.of(
            "These edits cannot be added, since both have facts about these subjects, whose values "
            "a sum would write twice; combine them with their model (`combine`, or "
            "`rose-edit combine` without --add):",
            [repr(subject) for subject in shared],
        )
    assert one.targets is not None and other.targets is not None  # as `requests_of` has checked
    return EditDelta(
        {name: _sum(one.layers[name], other.layers[name]) for name in one.layers},
        one.base,
        _joined(one.provenance, other.provenance),
        torch.cat([one.targets, other.targets]),
    )


def _sum(one: Factors, other: Factors) -> Factors:
    left = torch.cat([one.left.double(), other.left.double()], 1)
    right = torch.cat([one.right.double(), other.right.double()], 0)
    return Factors(left, right, one.transposed).compressed()


def _joined(one: Provenance, other: Provenance) -> Provenance:
    """What is on record of a sum; curves and residuals are of no one solve and left out."""
    n_first, n_second = len(one.requests), len(other.requests)
    note = (
        f"edits of {n_first} and {n_second} facts were added, neither solved against the keys of "
        "the other"
    )
    moved = ([n_first + i for i in group] for group in other.groups)
    return Provenance(
        requests=[*one.requests, *other.requests],
        hparams=one.hparams,
        architecture=one.architecture,
        dtype=one.dtype,
        groups=[*one.groups, *moved],
        losses=[*one.losses, *other.losses],
        steps=[*one.steps, *other.steps],
        log=[*one.log, *other.log, note],
        versions=one.versions,
        replaced=[*one.replaced, *other.replaced],
    )


def _unlike(deltas: Sequence[EditDelta]) -> list[str]:
    """What keeps edits from being of one model and one set of settings."""
    first = deltas[0]
    faults = []
    for number, delta in enumerate(deltas[1:], 2):
        if set(delta.layers) != set(first.layers):
            faults.append(
                f"edit 1 changes {', '.join(first.layers)}, edit {number} changes "
                f"{', '.join(delta.layers)}; compute them with the same layers"
            )
        elif delta.base != first.base or _shapes(delta) != _shapes(first):
            faults.append(
                f"edits 1 and {number} were computed for different weights: another model, "
                "another precision, or one of them for a model that was edited already"
            )
        faults += [
            f"edits 1 and {number} differ in their settings: {difference}"
            for difference in differences(first.provenance.hparams, delta.provenance.hparams)
        ]
    return faults


def _shapes(delta: EditDelta) -> dict[str, tuple[Any, ...]]:
    """The sizes of what an edit changes and of its targets; a file may lie about its base."""
    assert delta.targets is not None  # as `requests_of` has checked
    sizes = {n: (len(f.left), f.right.shape[1], f.transposed) for n, f in delta.layers.items()}
    return {**sizes, "targets": (delta.targets.shape[1],)}


def _contradictions(requests: Sequence[Sequence[EditRequest]]) -> list[str]:
    """Facts with the same subject and prompt and different targets, of any two edits."""
    faults = []
    for (i, one), (j, other) in combinations(enumerate(requests, 1), 2):
        there = _places(other)
        for request in one:
            rival = there.get(request.place)
            if rival is not None and rival.target_new != request.target_new:
                faults.append(
                    f"{request.subject!r}: {request.prompt!r} is {request.target_new!r} in edit "
                    f"{i} and {rival.target_new!r} in edit {j}; update or forget it in one of them"
                )
    return faults


def _places(requests: Sequence[EditRequest]) -> dict[tuple[str, str], EditRequest]:
    return {request.place: request for request in requests}
