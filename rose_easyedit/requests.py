"""What a user asks for: facts to write, checked before anything is computed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rose_easyedit.errors import RoSEError, shown
from rose_easyedit.files.records import read_rows, shorten_faults

_REQUIRED = ("prompt", "subject", "target_new")
_OPTIONAL = ("ground_truth", "case_id")

_UNUSABLE = "The edit requests cannot be used:"
_NONE = "there is no request; give at least one"


@dataclass(frozen=True)
class EditRequest:
    """One fact: after `prompt`, which names `subject`, the model shall go on with `target_new`.

    The field names are EasyEdit's. `target_new` has no leading space.
    """

    prompt: str
    subject: str
    target_new: str
    ground_truth: str | None = None
    case_id: int | str | None = None

    @property
    def place(self) -> tuple[str, str]:
        """What the fact is about: its subject and its prompt, which have one target at a time."""
        return self.subject, self.prompt

    @property
    def label(self) -> str:
        """The fact as a message names it: by its place, since only who gave it knows its number."""
        return f"{shown(self.prompt)} (subject {shown(self.subject)})"

    @property
    def identity(self) -> tuple[str, str, str]:
        """All that an edit depends on: subject, prompt and target."""
        return self.subject, self.prompt, self.target_new

    @classmethod
    def from_mapping(cls, record: Mapping[str, Any]) -> EditRequest:
        """Reads one record in EasyEdit's form; fields of no concern to an edit are ignored.

        Raises:
            RoSEError: with every field that is missing, empty or not text that can be written.
        """
        faults = _field_faults(record)
        if faults:
            raise RoSEError.of("This edit request cannot be used:", faults)
        ground_truth, case_id = (record.get(name) for name in _OPTIONAL)
        return cls(
            prompt=as_prompt(record["prompt"]),
            subject=as_subject(record["subject"]),
            target_new=record["target_new"].strip(),
            ground_truth=ground_truth if isinstance(ground_truth, str) else None,
            case_id=case_id if isinstance(case_id, (int, str)) else None,
        )

    def as_dict(self) -> dict[str, Any]:
        """The request as plain data, as `from_mapping` reads it."""
        return asdict(self)


def as_subject(text: str) -> str:
    """A subject as a request holds it, however it is spaced."""
    return text.strip()


def as_prompt(text: str) -> str:
    """A prompt as a request holds it: the target brings its space along."""
    return text.rstrip()


def as_requests(records: Iterable[EditRequest | Mapping[str, Any]]) -> list[EditRequest]:
    """Checks a batch as a whole and drops exact duplicates.

    Args:
        records: requests, or mappings with EasyEdit's field names.

    Returns:
        The requests in the order given, each once.

    Raises:
        RoSEError: with all faults of all requests, each with its index: fields missing or empty,
            a prompt that does not hold its subject, the same subject and prompt asked for with
            two targets, or no request at all.
    """
    parsed, faults = _parsed(records)
    if not parsed and not faults:
        faults.append(_NONE)
    if faults:
        raise RoSEError.of(_UNUSABLE, faults)
    unique: dict[tuple[str, str, str], EditRequest] = {}
    for _, request in parsed:
        unique.setdefault(request.identity, request)
    return list(unique.values())


def check_batches(batches: Sequence[Sequence[EditRequest | Mapping[str, Any]]]) -> None:
    """Refuses faulty requests of several edits, as `as_requests` those of one.

    Args:
        batches: the requests of each edit; indices are counted through all of them.

    Raises:
        RoSEError: with all faults of all requests, each with its index, or there is no request.
    """
    faults: list[str] = []
    first = 0
    for batch in batches:
        faults += _parsed(batch, first)[1]
        first += len(batch)
    if not first:
        faults.append(_NONE)
    if faults:
        raise RoSEError.of(_UNUSABLE, faults)


def load_requests(path: str | Path) -> list[EditRequest]:
    """Reads a JSON list or JSON Lines file of requests with EasyEdit's field names.

    Raises:
        RoSEError: the file cannot be read, is not JSON (with the line), or holds faulty requests.
    """
    rows, faults = read_rows(path, "request file")
    if faults:
        raise RoSEError.of(f"{str(path)!r} is neither JSON nor JSON Lines:", shorten_faults(faults))
    return as_requests(row.value for row in rows)


def group_by_subject(requests: Sequence[EditRequest]) -> dict[str, list[int]]:
    """Indices of the requests of each subject, subjects in order of first appearance."""
    groups: dict[str, list[int]] = {}
    for index, request in enumerate(requests):
        groups.setdefault(request.subject, []).append(index)
    return groups


def _parsed(
    records: Iterable[EditRequest | Mapping[str, Any]], first: int = 0
) -> tuple[list[tuple[int, EditRequest]], list[str]]:
    """The requests of one edit that can be read, by index from `first`, and every fault."""
    parsed: list[tuple[int, EditRequest]] = []
    faults: list[str] = []
    for index, record in enumerate(records, first):
        mapping = record.as_dict() if isinstance(record, EditRequest) else record
        if not isinstance(mapping, Mapping):
            faults.append(
                f"request {index}: expected a mapping or an EditRequest, got "
                f"{type(record).__name__}"
            )
            continue
        found = _field_faults(mapping)
        faults.extend(f"request {index}: {fault}" for fault in found)
        if not found:
            parsed.append((index, EditRequest.from_mapping(mapping)))
    return parsed, [*faults, *_missing_subjects(parsed), *_contradictions(parsed)]


def _field_faults(record: Mapping[str, Any]) -> list[str]:
    faults = []
    others = [str(name) for name in record if name not in (*_REQUIRED, *_OPTIONAL)]
    for name in _REQUIRED:
        value = record.get(name)
        if value is None:
            near = difflib.get_close_matches(name, others, n=1)
            meant = f", or write it in place of {shown(near[0])}" if near else ""
            faults.append(f"{name!r} is missing; add it{meant}")
        elif not isinstance(value, str):
            faults.append(f"{name!r} is {shown(value)}, not text; give one string")
        elif not value.strip():
            faults.append(f"{name!r} is empty; fill it in")
    for name in (*_REQUIRED, *_OPTIONAL):
        value = record.get(name)
        if isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
            faults.append(f"{name!r} is {shown(value)}, which has half a character; mend it")
    return faults


def _missing_subjects(parsed: Sequence[tuple[int, EditRequest]]) -> list[str]:
    return [
        f"request {index}: the prompt {shown(request.prompt)} does not contain its subject "
        f"{shown(request.subject)}; write the subject in the prompt exactly as given"
        for index, request in parsed
        if request.subject not in request.prompt
    ]


def _contradictions(parsed: Sequence[tuple[int, EditRequest]]) -> list[str]:
    faults = []
    first: dict[tuple[str, str], tuple[int, EditRequest]] = {}
    for index, request in parsed:
        earlier_index, earlier = first.setdefault(request.place, (index, request))
        if earlier.target_new != request.target_new:
            faults.append(
                f"requests {earlier_index} and {index} contradict each other: "
                f"{shown(request.prompt)} is to be {shown(earlier.target_new)} and "
                f"{shown(request.target_new)}; keep one"
            )
    return faults
