"""An edit that grows: facts added, changed and forgotten later, as if all had been one batch.

Editing in place writes each batch on top of the last, and what it costs other prompts adds up. Here
an edit brings its targets along, so that a later one is solved together with them against the
original weights. A subject whose facts are the same keeps its target; only the others are
optimised.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rose_easyedit.config.compare import missing_settings
from rose_easyedit.config.hparams import RoSEHyperParams
from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.errors import RoSEError
from rose_easyedit.method.edit import solve_targets
from rose_easyedit.method.prepared import Prepared
from rose_easyedit.method.stage1.cached_targets import CachedTarget, GroupKey, group_key
from rose_easyedit.method.stage1.targets import find_targets
from rose_easyedit.models.fingerprint import weights_fingerprint
from rose_easyedit.models.lock import one_at_a_time
from rose_easyedit.models.offload import stored_weight
from rose_easyedit.requests import EditRequest, as_prompt, as_requests, as_subject

Requests = Iterable[EditRequest | Mapping[str, Any]]
Place = tuple[str, str]


@one_at_a_time
def extend(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    delta: EditDelta,
    new_requests: Requests,
) -> EditDelta:
    """An edit with more facts, as one batch of all of them would give it.

    To float tolerance where the model runs in float32 (`precision: weights`). In bfloat16 a target
    depends a little on what is optimised beside it: 20 batches of 25 facts differ from one of 500
    by 0.02 of the targets and 0.05 to 0.09 of the updates' norms (SmolLM2).

    A request for a subject and prompt that the edit has already, with another target, takes the
    place of the earlier one; the new edit's log names both.

    Args:
        model: the unedited model that the edit was computed for; not changed.
        tokenizer: its tokenizer.
        delta: the edit so far; not changed.
        new_requests: the facts to add.

    Raises:
        RoSEError: the model is another one or edited, the edit does not keep its targets, or the
            requests are faulty.
    """
    facts = facts_of(model, delta)
    return solve_together(model, tokenizer, [delta], *_changed(facts, as_requests(new_requests)))


@one_at_a_time
def update(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    delta: EditDelta,
    requests: Requests,
) -> EditDelta:
    """An edit in which some facts have changed: the same subject and prompt, a new target.

    Args:
        model: as for `extend`.
        tokenizer: its tokenizer.
        delta: the edit so far; not changed.
        requests: the facts as they are now; the edit has each of them with some target.

    Raises:
        RoSEError: as `extend`, or the edit does not have one of the facts.
    """
    changed = as_requests(requests)
    facts = facts_of(model, delta)
    if missing := [r for r in changed if r.place not in facts]:
        raise RoSEError.of(
            "The edit has no such fact to update; extend it with:",
            [f"{r.subject!r}: {r.prompt!r}" for r in missing],
        )
    return solve_together(model, tokenizer, [delta], *_changed(facts, changed))


@one_at_a_time
def without(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    delta: EditDelta,
    subject: str,
    prompt: str | None = None,
) -> EditDelta:
    """An edit that has forgotten a subject, or one fact of it.

    Args:
        model: as for `extend`.
        tokenizer: its tokenizer.
        delta: the edit so far; not changed.
        subject: whose facts go.
        prompt: of the one fact that goes; None takes all of them.

    Raises:
        RoSEError: as `extend`, the edit has no such fact, or none would be left.
    """
    subject, prompt = as_subject(subject), None if prompt is None else as_prompt(prompt)
    facts = facts_of(model, delta)
    left = [r for r in facts.values() if r.subject != subject or prompt not in (None, r.prompt)]
    if len(left) == len(facts):
        about = [r.prompt for r in facts.values() if r.subject == subject]
        has = "; of it the edit has " + ", ".join(map(repr, about)) if about else ""
        wanted = repr(subject) if prompt is None else f"{subject!r} with the prompt {prompt!r}"
        raise RoSEError(f"The edit has no fact about {wanted}{has}.")
    if not left:
        raise RoSEError(
            f"The edit has no fact but those about {subject!r}: without them there is no edit, "
            "and the base model is what is wanted."
        )
    return solve_together(model, tokenizer, [delta], left)


def cached_targets(delta: EditDelta) -> dict[GroupKey, CachedTarget]:
    """The targets of an edit, by their facts.

    Raises:
        RoSEError: the edit does not keep them, or what it says of them does not fit together.
    """
    requests = requests_of(delta)
    losses, steps = delta.provenance.losses, delta.provenance.steps
    assert delta.targets is not None  # as `requests_of` has checked
    try:
        return {
            group_key(requests[i] for i in group): CachedTarget(
                value, [losses[i] for i in group], n_steps
            )
            for group, value, n_steps in zip(
                delta.provenance.groups, delta.targets, steps, strict=True
            )
        }
    except (IndexError, TypeError, ValueError) as error:
        raise RoSEError(
            f"What this edit says of its targets does not fit together ({error}), so it cannot be "
            "solved again or combined; compute one of all the facts."
        ) from error


def _changed(
    facts: Mapping[Place, EditRequest], new: Sequence[EditRequest]
) -> tuple[list[EditRequest], list[dict[str, str]]]:
    """The facts with new ones in their places, and a record of each that another one had."""
    replaced = []
    changed = dict(facts)
    for request in new:
        old = facts.get(request.place, request)
        if old.target_new != request.target_new:
            replaced.append({**_named(old), "old": old.target_new, "new": request.target_new})
            changed[request.place] = request
        else:  # what is told of it once more, or for the first time
            changed[request.place] = replace(
                request,
                ground_truth=request.ground_truth or old.ground_truth,
                case_id=old.case_id if request.case_id is None else request.case_id,
            )
    return list(changed.values()), replaced


def solve_together(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    deltas: Sequence[EditDelta],
    requests: Sequence[EditRequest],
    replaced: Sequence[dict[str, str]] = (),
) -> EditDelta:
    """All requests in one solve, with the targets that some edits of one base have already.

    Args:
        model: the base.
        tokenizer: its tokenizer.
        deltas: one edit or several, with the settings of the first; where several have a target
            for the same facts, the first one's is taken.
        requests: the facts.
        replaced: facts whose targets have changed by now, for the log.

    Raises:
        RoSEError: the first edit lacks settings that its version did not have yet.
    """
    if lacking := missing_settings(deltas[0].provenance.hparams):
        raise RoSEError.of(
            "This edit was made by a version without some of today's settings, whose defaults "
            "would change the facts that it has already; compute one edit of all the facts, or go "
            "on with the version that made it. It lacks:",
            lacking,
        )
    hparams = RoSEHyperParams.from_dict(deltas[0].provenance.hparams)
    cached: dict[GroupKey, CachedTarget] = {}
    earlier: list[Mapping[str, str]] = []
    for delta in deltas:
        cached = {**cached_targets(delta), **cached}
        earlier += delta.provenance.replaced
    prepared = Prepared.of(model, tokenizer, hparams)
    targets = find_targets(prepared, as_requests(requests), cached=cached)
    changes = _net([*earlier, *replaced], {request.place: request for request in requests})
    lines = [
        f"{c['subject']!r}: {c['prompt']!r} was to be {c['old']!r} and is now {c['new']!r}; "
        "the later one holds"
        for c in changes
    ]
    solved = solve_targets(prepared, replace(targets, log=[*targets.log, *lines]))
    return replace(solved, provenance=replace(solved.provenance, replaced=changes))


def _net(
    changes: Iterable[Mapping[str, str]], facts: Mapping[Place, EditRequest]
) -> list[dict[str, str]]:
    """From what each fact was first to be to what it is now; what is forgotten leaves no trace."""
    first: dict[Place, str] = {}
    for change in changes:
        first.setdefault((change["subject"], change["prompt"]), change["old"])
    return [
        {**_named(facts[place]), "old": old, "new": facts[place].target_new}
        for place, old in first.items()
        if place in facts and facts[place].target_new != old
    ]


def facts_of(model: PreTrainedModel, delta: EditDelta) -> dict[Place, EditRequest]:
    """The facts of an edit by subject and prompt, once it is certain that the model is its base.

    Raises:
        RoSEError: the model is another one or edited, or the edit does not keep its targets, or
            not those of this model.
    """
    requests = requests_of(delta)
    if delta.is_applied(model):
        raise RoSEError(
            "This edit is applied to this model, and a new one is computed from the unedited "
            "weights: call delta.revert(model) first, and apply the new edit in its place."
        )
    present = dict(model.named_parameters()).keys() & delta.layers.keys()
    weights = {name: stored_weight(model, name) for name in present}
    if weights_fingerprint(weights.items()) != delta.base:
        raise RoSEError(
            "This model is not the one that the edit was computed for: it is another model, "
            "another precision, or edited already. Load the base model, or revert its edits."
        )
    width = model.config.get_text_config().hidden_size
    if delta.targets is not None and delta.targets.shape[1] != width:
        raise RoSEError(
            f"The targets of this edit have {delta.targets.shape[1]} entries and the model's "
            f"hidden states {width}, so it cannot be solved again; compute one of all the facts."
        )
    return {request.place: request for request in requests}


def requests_of(delta: EditDelta) -> list[EditRequest]:
    """The facts of an edit that keeps all that it takes to solve it again.

    Raises:
        RoSEError: it does not.
    """
    needed = ("requests", "hparams", "groups", "losses", "steps")
    missing = delta.provenance.missing(needed)
    if delta.targets is None:
        missing.append("targets")
    if missing:
        raise RoSEError(
            f"This edit does not say what it was made of (it lacks {', '.join(missing)}), so it "
            "cannot be solved again or combined; compute one of all the facts."
        )
    return [EditRequest.from_mapping(record) for record in delta.provenance.requests]


def _named(request: EditRequest) -> dict[str, str]:
    return {"subject": request.subject, "prompt": request.prompt}
