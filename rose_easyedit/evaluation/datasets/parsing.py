"""From one record to its facts, or to every fault that it has."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from rose_easyedit.evaluation.datasets.layout import FileForm, Record, find
from rose_easyedit.evaluation.facts import Fact
from rose_easyedit.files.records import FileRow, shorten
from rose_easyedit.requests import as_prompt, as_subject

_HALF_CHARACTER = re.compile("[\ud800-\udfff]")


def parse_row(row: FileRow, form: FileForm) -> Iterator[Fact | list[str]]:
    """The facts of one record, in its order; in place of one that does not fit, its faults."""
    for where, piece in _pieces(row, form):
        if isinstance(piece, Mapping):
            result = _parse(piece, form)
        else:
            result = [f"it is {shorten(repr(piece))}, not a JSON object; mend it"]
        yield result if isinstance(result, Fact) else [f"{where}: {fault}" for fault in result]


def template(prompt: str, subject: str) -> str:
    """The prompt with "{}" for its subject: what it says, whomever of."""
    return prompt.replace(subject, "{}")


class _Parts:
    """The parts of a fact that a record holds; a fault is noted and does not end the reading."""

    def __init__(self, record: Record, form: FileForm) -> None:
        self.record = record
        self.form = form
        self.faults: list[str] = []

    def every(self, part: str) -> tuple[str, ...]:
        """The texts at all places of a part that need not be there, each once."""
        texts = [text for path in self._places(part) for text in self._texts(path)]
        return tuple(dict.fromkeys(texts))

    def first(self, part: str, *, needed: bool = True) -> tuple[str, ...]:
        """The texts at the first place of a part that holds any."""
        for path in self._places(part):
            if list(_leaves(find(self.record, path))):
                return tuple(dict.fromkeys(self._texts(path, needed)))
        if needed:
            places = " or ".join(repr(path) for path in self._places(part))
            self.faults.append(f"{places} is missing; add it")
        return ()

    def one(self, part: str, *, needed: bool = True) -> str:
        """The only text of a part; empty where there is none."""
        texts = self.first(part, needed=needed)
        if len(texts) > 1:
            self.faults.append(f"{part!r} is {shorten(repr(texts))}; give one text")
        return texts[0] if texts else ""

    def _places(self, part: str) -> tuple[str, ...]:
        return self.form.places.get(part, ())

    def _texts(self, path: str, needed: bool = False) -> Iterator[str]:
        for leaf in _leaves(find(self.record, path)):
            if not isinstance(leaf, str):
                self.faults.append(f"{path!r} is {shorten(repr(leaf))}, not text; give text")
            elif not leaf.strip():
                if needed:
                    self.faults.append(f"{path!r} is empty; fill it in")
            elif _HALF_CHARACTER.search(leaf):
                self.faults.append(
                    f"{path!r} is {shorten(ascii(leaf))}, with half of a surrogate pair, which no "
                    "tokenizer reads; mend it"
                )
            else:
                yield leaf


def _pieces(row: FileRow, form: FileForm) -> Iterator[tuple[str, Any]]:
    """What holds one fact each: the record, or the elements of its list."""
    if form.spread is None or not isinstance(row.value, Mapping):
        is_record = isinstance(row.value, Mapping)
        yield row.where, form.join(row.value, row.value) if is_record else row.value
        return
    elements = row.value.get(form.spread)
    if not isinstance(elements, list) or not elements:
        yield f"{row.where}, {form.spread}", elements
        return
    for index, element in enumerate(elements):
        joined = form.join(row.value, element) if isinstance(element, Mapping) else element
        yield f"{row.where}, {form.spread} {index}", joined


def _parse(record: Record, form: FileForm) -> Fact | list[str]:
    parts = _Parts(record, form)
    subject = as_subject(parts.one("subject"))

    def filled(text: str) -> str:
        return text if subject in text else text.replace("{}", subject)

    prompt = filled(as_prompt(parts.one("prompt")))
    relation = parts.one("relation", needed=False)
    targets = _stripped(parts.first("target_new"), parts.every("target_aliases"))
    truths = _stripped(
        parts.first("ground_truth", needed=form.needs_truth), parts.every("truth_aliases")
    )
    paraphrases, questions, instructions = (
        tuple(filled(text) for text in _stripped(parts.every(part)))
        for part in ("paraphrases", "questions", "instructions")
    )
    neighbours = _stripped(parts.every("neighbours"))
    if prompt and subject not in prompt:
        parts.faults.append(
            f"the prompt {shorten(repr(prompt))} holds neither '{{}}' nor its subject {subject!r}; "
            "write the subject in it exactly as given"
        )
    if parts.faults:
        return parts.faults
    target, *target_aliases = targets
    truth, *truth_aliases = truths or ("",)
    return Fact(
        subject=subject,
        relation=relation.strip() or template(prompt, subject),
        prompt=prompt,
        target_new=target,
        ground_truth=truth,
        paraphrases=paraphrases,
        questions=questions,
        instructions=instructions,
        target_aliases=tuple(target_aliases),
        truth_aliases=tuple(truth_aliases),
        neighbours=neighbours,
    )


def _stripped(*groups: tuple[str, ...]) -> tuple[str, ...]:
    """The texts without space at their edges, each once."""
    return tuple(dict.fromkeys(text.strip() for group in groups for text in group))


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    elif value is not None:
        yield value
