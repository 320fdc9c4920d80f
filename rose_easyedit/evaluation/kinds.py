"""Of what kind a subject is, which others there are of that kind, and what is asked about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rose_easyedit.evaluation.facts import SETS, Fact, bundled
from rose_easyedit.text.names import fold


@dataclass(frozen=True)
class Kinds:
    """The kinds of subjects that the bundled sets know.

    Attributes:
        subjects: Kind, such as "country", to the names of its subjects.
        wordings: Kind to its relations, each with its templates: the statement first, a question
            last.
    """

    subjects: Mapping[str, Sequence[str]]
    wordings: Mapping[str, Mapping[str, Sequence[str]]]

    @classmethod
    def read(cls) -> Kinds:
        """Those of all bundled sets."""
        relations = bundled("wide")["relations"]
        names: dict[str, dict[str, None]] = {of["kind"]: {} for of in relations.values()}
        wordings: dict[str, dict[str, Sequence[str]]] = {kind: {} for kind in names}
        for data in map(bundled, SETS):
            for subject in data["subjects"]:
                kind = relations[subject["facts"][0]["relation"]]["kind"]
                names[kind][subject["subject"]] = None
            for relation, of in data["relations"].items():
                names[relations[relation]["kind"]] |= dict.fromkeys(of["neighbours"])
        for relation, of in relations.items():
            texts = (of["statement"], *of["paraphrases"], of["questions"][0])
            wordings[of["kind"]][relation] = texts
        return cls({kind: list(of) for kind, of in names.items()}, wordings)

    def of(self, fact: Fact) -> str | None:
        """The kind of a fact's subject, by its name, or by a prompt in a bundled wording."""
        for kind, names in self.subjects.items():
            if fold(fact.subject) in map(fold, names):
                return kind
        bare = fact.prompt.replace(fact.subject, "{}")
        known = ((kind, texts) for kind, of in self.wordings.items() for texts in of.values())
        return next((kind for kind, texts in known if bare in texts), None)
