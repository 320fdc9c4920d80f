"""Which facts of a data set an edit is asked for, and what is asked beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rose_easyedit.errors import RoSEError

if TYPE_CHECKING:
    from rose_easyedit.evaluation.datasets import Dataset
    from rose_easyedit.evaluation.facts import Fact, LocalityPrompt

# What the command line calls the bundled sets, and their names.
BUNDLED = {"bundled": "core", "bundled-wide": "wide"}
# The facts of the laboratory's people, for its own model.
LABORATORY = "laboratory"
# Each takes a generation and a row of the vocabulary's size in memory.
_MOST_NEIGHBOURS = 200


@dataclass(frozen=True)
class Selection:
    """What an edit is evaluated on.

    Attributes:
        asked: The edited facts that are asked for.
        edited: All facts of the data that are edited.
        others: Facts of the data about the same subjects, of which the edit says nothing.
        locality: Prompts that the edit should leave alone.
        notes: What was left out or not measured, in words.
    """

    asked: Sequence[Fact]
    edited: Sequence[Fact]
    others: Sequence[Fact]
    locality: Sequence[LocalityPrompt]
    notes: Sequence[str]


def select_facts(
    requests: Sequence[Mapping[str, Any]],
    data: str | None,
    *,
    split: str | None = None,
    skip_bad: bool = False,
    facts_per_subject: int | None = None,
    option: str = "--data",
) -> Selection:
    """The facts of the data that an edit holds, and what is asked beside them.

    Args:
        requests: Those of the edit, as its provenance has them.
        data: One of `BUNDLED`, `LABORATORY`, a data file, or None for the requests themselves.
        split: Of a bundled set; None takes all of it.
        skip_bad: Leave out the records of a file that do not fit.
        facts_per_subject: Ask for as many facts of each subject that has them, and for no other.
        option: What names the data in a shell, for the errors.

    Raises:
        RoSEError: If the edit names no request, none of the data is edited, the options do not
            fit together, or the data cannot be read.
    """
    if not requests:
        raise RoSEError("The edit does not say which facts it holds; compute it anew with edit.")
    if split is not None and data not in BUNDLED:
        raise no_split(split, option)
    facts, notes = _of_requests(requests) if data is None else read_facts(data, split, skip_bad)
    return selection_of(
        requests, facts, data, notes, facts_per_subject=facts_per_subject, option=option
    )


def no_split(split: str, option: str) -> RoSEError:
    """The error for a split of data that has none; `option` names the data in a shell."""
    return RoSEError(
        f"--split {split} is one of a bundled set; give {option} {' or '.join(BUNDLED)}."
    )


def selection_of(
    requests: Sequence[Mapping[str, Any]],
    facts: Sequence[Fact],
    data: str | None,
    notes: Sequence[str] = (),
    *,
    facts_per_subject: int | None = None,
    option: str = "--data",
) -> Selection:
    """As `select_facts`, of facts that were read already.

    Args:
        requests: Those of the edit.
        facts: Of the data, as `read_facts` gives them.
        data: Where they are from.
        notes: What was left out so far.
        facts_per_subject: As in `select_facts`.
        option: As in `select_facts`.

    Raises:
        RoSEError: If none of the facts is edited, or too few subjects have so many.
    """
    from rose_easyedit.evaluation.datasets import same_subject_view
    from rose_easyedit.evaluation.facts import CORE
    from rose_easyedit.evaluation.locality import default_locality
    from rose_easyedit.evaluation.records import other_facts

    notes = list(notes)
    wanted = {(r["subject"], r["prompt"], r["target_new"]) for r in requests}
    edited = [fact for fact in facts if fact.to_request().identity in wanted]
    if not edited:
        raise RoSEError(
            f"None of the {len(facts)} facts of {data!r} is among the {len(requests)} requests of "
            f"the edit (the first: {requests[0]['prompt']!r} -> {requests[0]['target_new']!r}); "
            f"give the data that it was computed from, or leave out {option}."
        )
    if missing := len(wanted - {fact.to_request().identity for fact in edited}):
        notes.append(f"{missing} of the edit's {len(wanted)} facts are not in the data")
    asked: Sequence[Fact] = edited
    if facts_per_subject is not None:
        asked = same_subject_view(
            edited, at_least=facts_per_subject, facts_per_subject=facts_per_subject
        )
        notes.append(f"{len(asked)} of {len(edited)} facts were drawn, {facts_per_subject} each")
    subjects = {fact.subject for fact in asked}
    others = other_facts((fact for fact in facts if fact.subject in subjects), edited)
    if data == LABORATORY:
        from rose_easyedit.evaluation.laboratory import population

        return Selection(asked, edited, others, population().locality(edited), notes)
    locality = default_locality(edited, BUNDLED.get(str(data), CORE))
    locality = [*_neighbours(edited, notes), *locality]
    return Selection(asked, edited, others, locality, notes)


def read_facts(
    data: str, split: str | None = None, skip_bad: bool = False
) -> tuple[list[Fact], list[str]]:
    """The facts of a data set, each once, with a question and instructions; and notes.

    Args:
        data: One of `BUNDLED`, `LABORATORY`, or a data file.
        split: Of a bundled set; None takes all of it.
        skip_bad: Leave out the records of a file that do not fit, with a note.

    Raises:
        RoSEError: The data cannot be read.
    """
    from rose_easyedit.evaluation.datasets import load_dataset, merged, with_wrapped_forms
    from rose_easyedit.evaluation.facts import load_facts

    notes = []
    if data in BUNDLED:
        facts: Sequence[Fact] = load_facts(split, name=BUNDLED[data])
    elif data == LABORATORY:
        from rose_easyedit.evaluation.laboratory import population

        facts = population().all_facts()
    else:
        dataset = load_dataset(data, skip_bad=skip_bad)
        facts = dataset.facts
        if dataset.faults:
            notes.append(_left_out(dataset))
    return list(with_wrapped_forms(merged(facts))), notes


def _left_out(dataset: Dataset) -> str:
    """How many records of a file were not read, and why the first of them."""
    first = dataset.faults[0]
    if dataset.left_out == 1:
        return f"1 record of the data does not fit and was left out: {first}"
    return (
        f"{dataset.left_out} records of the data do not fit and were left out; the first: {first}"
    )


def _of_requests(requests: Sequence[Mapping[str, Any]]) -> tuple[list[Fact], list[str]]:
    """The requests as facts, each with a question and instructions; and how they are worded."""
    from rose_easyedit.evaluation.datasets import merged, with_wrapped_forms
    from rose_easyedit.evaluation.wordings import with_known_wordings

    facts = list(with_wrapped_forms(with_known_wordings(merged(map(_fact_of, requests)))))
    if not (wrapped := sum(bool(fact.wrapped) for fact in facts)):
        return facts, []
    are = "1 fact is" if wrapped == 1 else f"{wrapped} of {len(facts)} facts are"
    return facts, [
        f"{are} asked in wrapped statements (What completes this sentence? ...), for want of "
        "questions of their own: they quote the edit, and more of them come out right than of "
        "questions in other words. --data FILE brings those"
    ]


def native_rates(model: Any, data: str | None) -> Mapping[tuple[str, str], float] | None:
    """What the unedited model answers by itself, if it was measured on this data; else None."""
    from rose_easyedit.evaluation.native import bundled_native_rates

    if data == LABORATORY:
        from rose_easyedit.evaluation.laboratory import laboratory_rates

        return laboratory_rates(Path(model.name_or_path))
    return bundled_native_rates(model, BUNDLED[data]) if data in BUNDLED else None


def _fact_of(request: Mapping[str, Any]) -> Fact:
    """A request as a fact; the relation is its prompt without the subject."""
    from rose_easyedit.evaluation.datasets.parsing import template
    from rose_easyedit.evaluation.facts import Fact

    return Fact(
        subject=request["subject"],
        relation=template(request["prompt"], request["subject"]),
        prompt=request["prompt"],
        target_new=request["target_new"],
        ground_truth=request.get("ground_truth") or "",
    )


def _neighbours(facts: Sequence[Fact], notes: list[str]) -> list[LocalityPrompt]:
    """The data's own neighbours, evenly thinned where there are very many."""
    from rose_easyedit.evaluation.datasets import neighbour_prompts

    prompts = neighbour_prompts(facts)
    if len(prompts) <= _MOST_NEIGHBOURS:
        return list(prompts)
    notes.append(f"{_MOST_NEIGHBOURS} of the data's {len(prompts)} neighbours were asked")
    return [prompts[i * len(prompts) // _MOST_NEIGHBOURS] for i in range(_MOST_NEIGHBOURS)]
