"""The bundled same-subject sets: several counterfactual facts about each of many subjects."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from typing import Any

from rose_easyedit.errors import RoSEError
from rose_easyedit.requests import EditRequest, as_prompt, as_subject

FORMS = ("statement", "paraphrase", "question", "instruction")
CHAT_FORMS = frozenset({"question", "instruction"})
SPLITS = ("validation", "test")
# Of a subject, that a same-subject view draws at the most.
MOST_FACTS = 10

# The bundled sets and their files: "core" has three kinds of subjects and four relations of each,
# "wide" seven kinds and five relations, with wordings of its own.
SETS = {"core": "same_subject.json", "wide": "same_subject_wide.json"}
CORE = "core"
# The kind of a query about an edited subject that asks for none of its edited facts.
SUBJECT = "subject"


@dataclass(frozen=True)
class Query:
    """One way to ask for a fact; `chat` puts it to the model as a user's message."""

    form: str
    text: str
    chat: bool


@dataclass(frozen=True)
class Fact:
    """A counterfactual: `prompt` shall be continued with `target_new` and not `ground_truth`.

    Aliases are other spellings that count as the same answer, such as "German" for "Germany".
    `wrapped` names the forms that a wrapper made, because the data set has none of its own;
    `neighbours` are the data set's own prompts that the edit should leave alone.
    """

    subject: str
    relation: str
    prompt: str
    target_new: str
    ground_truth: str
    paraphrases: tuple[str, ...] = ()
    questions: tuple[str, ...] = ()
    instructions: tuple[str, ...] = ()
    target_aliases: tuple[str, ...] = ()
    truth_aliases: tuple[str, ...] = ()
    wrapped: frozenset[str] = frozenset()
    neighbours: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # as a request holds them, without the space between prompt and target
        cleaned = (as_subject(self.subject), as_prompt(self.prompt), self.target_new.strip())
        for name, text in zip(("subject", "prompt", "target_new"), cleaned, strict=True):
            object.__setattr__(self, name, text)

    @cached_property
    def queries(self) -> tuple[Query, ...]:
        """Every query of the fact, the edited statement first, form by form."""
        texts = ((self.prompt,), self.paraphrases, self.questions, self.instructions)
        return tuple(
            Query(form, text, form in CHAT_FORMS)
            for form, group in zip(FORMS, texts, strict=True)
            for text in group
        )

    @property
    def case_id(self) -> str:
        return f"{self.subject}/{self.relation}"

    def to_request(self) -> EditRequest:
        """The edit that writes this fact."""
        return EditRequest(
            prompt=self.prompt,
            subject=self.subject,
            target_new=self.target_new,
            ground_truth=self.ground_truth,
            case_id=self.case_id,
        )


@dataclass(frozen=True)
class LocalityPrompt:
    """A query that no edit should change.

    Attributes:
        kind: "neighbour" (what an edit says, asked of another subject), "unrelated", or `SUBJECT`.
        text: What is asked.
        chat: Whether it is put as a user's message.
        subject: What it is about, where that is known.
    """

    kind: str
    text: str
    chat: bool
    subject: str = ""


@dataclass(frozen=True)
class Subject:
    """A subject of a bundled set and its facts."""

    name: str
    split: str
    demo: bool
    facts: tuple[Fact, ...]


def load_subjects(
    split: str | None = None, *, demo: bool = False, name: str = CORE
) -> list[Subject]:
    """Subjects of a bundled set, in its order.

    Args:
        split: "validation" (to choose settings on), "test" (to report), or None for both.
        demo: Only the few subjects that the demonstration edits.
        name: Of the set, one of `SETS`.

    Raises:
        RoSEError: If there is no such split or set.
    """
    if split is not None and split not in SPLITS:
        raise RoSEError(f"There is no split {split!r}: choose one of {', '.join(SPLITS)}.")
    data = bundled(name)
    subjects = [_subject(record, data["relations"]) for record in data["subjects"]]
    return [s for s in subjects if split in (None, s.split) and (s.demo or not demo)]


def load_facts(split: str | None = None, *, demo: bool = False, name: str = CORE) -> list[Fact]:
    """The facts of `load_subjects`, subject by subject."""
    subjects = load_subjects(split, demo=demo, name=name)
    return [fact for subject in subjects for fact in subject.facts]


def load_locality(facts: Iterable[Fact], name: str = CORE) -> list[LocalityPrompt]:
    """Prompts that the edit of these facts should leave alone, each once.

    Neighbours of the relations at hand (same question, a subject that no split edits), then
    unrelated prompts. The facts are of the bundled set of that name.
    """
    data = bundled(name)
    relations = list(dict.fromkeys(fact.relation for fact in facts))
    neighbours = [prompt for name in relations for prompt in _neighbours(name, data)]
    unrelated = [LocalityPrompt("unrelated", p["text"], p["chat"]) for p in data["unrelated"]]
    return list(dict.fromkeys(neighbours + unrelated))


def bundled(name: str) -> dict[str, Any]:
    """A bundled set as its file has it: its relations with their wordings, its subjects."""
    if name not in SETS:
        raise RoSEError(f"There is no bundled set {name!r}: choose one of {', '.join(SETS)}.")
    path = resources.files("rose_easyedit.evaluation") / "data" / SETS[name]
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def relation_names(name: str = CORE) -> list[str]:
    """The relations that a bundled set has wordings for."""
    return list(bundled(name)["relations"])


def make_fact(
    relation: str,
    subject: str,
    *,
    target_new: str,
    ground_truth: str,
    target_aliases: Sequence[str] = (),
    truth_aliases: Sequence[str] = (),
    name: str = CORE,
) -> Fact:
    """A fact of your own in the wordings that a bundled set has; known aliases are added.

    Raises:
        RoSEError: If there is no such set or relation.
    """
    relations = bundled(name)["relations"]
    if relation not in relations:
        raise RoSEError(f"There is no relation {relation!r}: choose one of {', '.join(relations)}.")
    return _worded(
        relations[relation],
        relation,
        subject,
        target_new,
        ground_truth,
        target_aliases,
        truth_aliases,
    )


def _worded(
    wording: Mapping[str, Any],
    relation: str,
    subject: str,
    target_new: str,
    ground_truth: str,
    target_aliases: Sequence[str] = (),
    truth_aliases: Sequence[str] = (),
) -> Fact:
    def fill(templates: Sequence[str]) -> tuple[str, ...]:
        return tuple(template.format(subject) for template in templates)

    return Fact(
        subject=subject,
        relation=relation,
        prompt=wording["statement"].format(subject),
        target_new=target_new,
        ground_truth=ground_truth,
        paraphrases=fill(wording["paraphrases"]),
        questions=fill(wording["questions"]),
        instructions=fill(wording["instructions"]),
        target_aliases=(*wording["aliases"].get(target_new, ()), *target_aliases),
        truth_aliases=(*wording["aliases"].get(ground_truth, ()), *truth_aliases),
    )


def _subject(record: Mapping[str, Any], relations: Mapping[str, Any]) -> Subject:
    facts = tuple(
        _worded(
            relations[fact["relation"]],
            fact["relation"],
            record["subject"],
            target_new=fact["target_new"],
            ground_truth=fact["ground_truth"],
            truth_aliases=fact.get("ground_truth_aliases", ()),
        )
        for fact in record["facts"]
    )
    return Subject(record["subject"], record["split"], record["demo"], facts)


def _neighbours(relation: str, data: Mapping[str, Any]) -> list[LocalityPrompt]:
    templates = data["relations"][relation]
    forms = ((templates["statement"], False), (templates["questions"][0], True))
    return [
        LocalityPrompt("neighbour", template.format(name), chat, name)
        for name in templates["neighbours"]
        for template, chat in forms
    ]
