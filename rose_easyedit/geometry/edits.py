"""The geometry of one edit: where its queries land, and how much its targets tolerate.

    D(q) = |h_L^edited(q) - z_s|

of a query q about a subject s, against the radius R(s, fact) of the fact that it asks for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from torch import Tensor

from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.errors import RoSEError
from rose_easyedit.evaluation.facts import Fact
from rose_easyedit.geometry.certificate import Certificate, certify
from rose_easyedit.geometry.radius import Radius
from rose_easyedit.requests import EditRequest


@dataclass(frozen=True)
class QueryGeometry:
    """Where one query lands, and what came of it.

    Attributes:
        fact: index of the fact that is asked for.
        form: of the query.
        text: as a user asks it.
        deviation: D, from the target to the edited model's hidden state.
        deviation_before: from the target to the unedited model's.
        target_norm: |z_s|.
        hidden_norm: |h_L(q)| in the unedited model.
        radius: R of the fact.
        answer: the edited model's.
        answered: whether the answer names the fact's target.
    """

    fact: int
    form: str
    text: str
    deviation: float
    deviation_before: float
    target_norm: float
    hidden_norm: float
    radius: float
    answer: str
    answered: bool

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, with D relative to |z_s| and to |h|, and the certificate."""
        return {
            **asdict(self),
            "deviation_of_target": self.deviation / self.target_norm,
            "deviation_of_hidden": self.deviation / self.hidden_norm,
            "certified": self.deviation <= self.radius,
        }


@dataclass(frozen=True)
class EditGeometry:
    """The geometry of one edit.

    Attributes:
        name: of the edit.
        queries: every query that could be located.
        radii: of each fact, F.
        losses: around the target of the landscape's subject, [directions, radii].
    """

    name: str
    queries: tuple[QueryGeometry, ...]
    radii: tuple[Radius, ...]
    losses: tuple[tuple[float, ...], ...]

    @property
    def forms(self) -> list[str]:
        """The forms of the queries, in their order."""
        return list(dict.fromkeys(query.form for query in self.queries))

    def certificate(self, *forms: str) -> Certificate:
        """The certificate against the answers, over the queries of these forms (default all)."""
        chosen = [query for query in self.queries if query.form in (forms or self.forms)]
        return certify(
            [q.deviation for q in chosen], [q.radius for q in chosen], [q.answered for q in chosen]
        )

    def summary(self, subjects: Sequence[str]) -> dict[str, Any]:
        """Means per form and over all forms, and R per subject.

        Args:
            subjects: of each fact, F.
        """
        by_subject = {
            subject: [r.radius for r, s in zip(self.radii, subjects, strict=True) if s == subject]
            for subject in dict.fromkeys(subjects)
        }
        return {
            "forms": {form: self._means(form) for form in self.forms},
            "all": self._means(*self.forms),
            "radius": {
                "mean": fmean(r.radius for r in self.radii),
                "smallest": min(r.radius for r in self.radii),
                "of_hidden": fmean(r.radius / r.norm for r in self.radii),
                "zero": sum(r.radius == 0 for r in self.radii),
                "capped": fmean(r.capped for r in self.radii),
                "subjects": {
                    subject: {"mean": fmean(radii), "smallest": min(radii)}
                    for subject, radii in by_subject.items()
                },
            },
        }

    def as_dict(self) -> dict[str, Any]:
        """All numbers as plain data."""
        return {
            "name": self.name,
            "queries": [query.as_dict() for query in self.queries],
            "radii": [radius.as_dict() for radius in self.radii],
            "losses": [list(row) for row in self.losses],
        }

    def _means(self, *forms: str) -> dict[str, Any]:
        rows = [query.as_dict() for query in self.queries if query.form in forms]
        names = ("deviation", "deviation_before", "deviation_of_target", "deviation_of_hidden")
        means = {name: fmean(row[name] for row in rows) if rows else None for name in names}
        radius = fmean(row["radius"] for row in rows) if rows else None
        return {**means, "radius": radius, **self.certificate(*forms).as_dict()}


def deviations(hidden: Tensor, targets: Tensor) -> Tensor:
    """D = |h - z| of each row of two [Q, d], [Q], in float64."""
    found: Tensor = (hidden.double().cpu() - targets.double().cpu()).norm(dim=1)
    return found


def targets_of(delta: EditDelta, facts: Sequence[Fact]) -> Tensor:
    """The target z_s that an edit meant each fact's subject to get, [F, d].

    Raises:
        RoSEError: the edit has no targets, or with every fact that is none of the edit's.
    """
    targets = values_of(delta)
    requests, groups = delta.provenance.requests, delta.provenance.groups
    written = [EditRequest.from_mapping(record) for record in requests]
    rows = {written[i].identity: row for row, group in enumerate(groups) for i in group}
    wanted = [fact.to_request().identity for fact in facts]
    if faults := [f"{s!r}: {p!r} -> {t!r}" for s, p, t in wanted if (s, p, t) not in rows]:
        raise RoSEError.of(
            "These facts are not in the edit; diagnose the requests that it was computed from:",
            faults,
        )
    return targets[[rows[identity] for identity in wanted]]


def values_of(delta: EditDelta) -> Tensor:
    """z_s of each group of the edit's requests, [n, d].

    Raises:
        RoSEError: the edit has none.
    """
    if delta.targets is None:
        raise RoSEError(
            "This edit does not say which hidden states it was to reach, so there is nothing to "
            "measure its deviation from; compute it again with this version."
        )
    return delta.targets
