"""Data files of the field as facts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rose_easyedit.errors import RoSEError
from rose_easyedit.evaluation.datasets.file_forms import FILE_FORMS
from rose_easyedit.evaluation.datasets.layout import FileForm
from rose_easyedit.evaluation.datasets.parsing import parse_row, template
from rose_easyedit.evaluation.facts import Fact
from rose_easyedit.files.records import FileRow, read_rows, shorten, shorten_faults


@dataclass(frozen=True)
class Dataset:
    """The facts of a file, in its order.

    Attributes:
        facts: Every fact, also those that repeat or contradict another (`same_subject_view`).
        form: The form in which the file was read, one of `FILE_FORMS`.
        faults: What was wrong with the records that were left out, each with its position.
        left_out: How many these are; of a record with several facts, each fact counts.
    """

    facts: tuple[Fact, ...]
    form: str
    faults: tuple[str, ...] = ()
    left_out: int = 0


def load_dataset(path: str | Path, form: str = "auto", skip_bad: bool = False) -> Dataset:
    """The facts of a data file, as it is published: a JSON list, or JSON Lines.

    A "{}" in a text that does not name the subject stands for it. zsRE's prompts are questions;
    they are what is edited, and so they are the `prompt`. Where a form has no true answer
    (part of KnowEdit, one's own requests) `ground_truth` is empty. Where it names no relation, or
    one subject has two prompts of one relation, the relation is the prompt with "{}" for the
    subject. An empty text is none; only what is needed may not be empty.

    Args:
        path: The file.
        form: Its form, one of `FILE_FORMS`; "auto" tells it from the fields of the records.
        skip_bad: Leave out the records that do not fit, and list their faults in the result.

    Raises:
        RoSEError: If there is no such form, the file cannot be read, its form cannot be told, or
            records do not fit it: fields that are needed missing or empty, fields that are not
            text, or a prompt without its subject. Every such record is reported with its position,
            which counts from 0.
    """
    if form not in ("auto", *FILE_FORMS):
        raise RoSEError(f"There is no form {form!r}: choose one of auto, {', '.join(FILE_FORMS)}.")
    rows, faults = read_rows(path, "data file")
    found = _detect(path, rows) if form == "auto" else FILE_FORMS[form]
    facts: list[Fact] = []
    left_out = len(faults)  # one for each line that is not JSON
    for row in rows:
        for result in parse_row(row, found):
            if isinstance(result, Fact):
                facts.append(result)
            else:
                faults.extend(result)
                left_out += 1
    if faults and not (skip_bad and facts):
        raise _unfit(path, found, faults, all_of_it=not facts)
    return Dataset(tuple(_tell_apart(facts)), found.name, tuple(faults), left_out)


def _unfit(
    path: str | Path, form: FileForm, faults: Sequence[str], *, all_of_it: bool
) -> RoSEError:
    rest = ", or leave out what does not fit (skip_bad=True; in a shell, --skip-bad)"
    return RoSEError.of(
        f"{'All' if all_of_it else 'Part'} of {str(path)!r} does not fit the form {form.name!r}. "
        f"Mend it, name another form ({', '.join(FILE_FORMS)})"
        f"{'' if all_of_it else rest}:",
        shorten_faults(faults),
    )


def _detect(path: str | Path, rows: Sequence[FileRow]) -> FileForm:
    """The form of the first record that has a known one."""
    for row in rows:
        for form in FILE_FORMS.values():
            if form.fits(row.value):
                return form
    records = [row.value for row in rows if isinstance(row.value, Mapping)]
    fields = dict.fromkeys(name for record in records for name in record)
    raise RoSEError.of(
        f"{str(path)!r} has no form that is known. The fields of its records: "
        f"{shorten(', '.join(fields)) or 'none, they are no JSON objects'}. "
        "The known forms, and the fields that tell them:",
        [f"{form.name}: {_spoken(form.marks)}" for form in FILE_FORMS.values()],
    )


def _spoken(marks: Iterable[str]) -> str:
    return ", or ".join(line.replace(" ", " and ") for line in marks)


def _tell_apart(facts: Sequence[Fact]) -> Iterable[Fact]:
    """Gives facts of one subject and relation, but with different prompts, relations that differ.

    Results are kept under a fact's subject and relation.
    """
    prompts: dict[tuple[str, str], set[str]] = defaultdict(set)
    for fact in facts:
        prompts[fact.subject, fact.relation].add(fact.prompt)
    for fact in facts:
        shared = len(prompts[fact.subject, fact.relation]) > 1
        yield replace(fact, relation=template(fact.prompt, fact.subject)) if shared else fact
