"""What a memory holds and tells."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rose_easyedit.requests import EditRequest


@dataclass(frozen=True)
class Entry:
    """A fact that is held.

    Attributes:
        request: the fact.
        since: when it came, or last changed: UTC, in ISO 8601.
        state: "ready" (its target is there), "waiting" (it will be computed when the model is
            next asked) or "refused".
        fault: why it cannot be written into the model, if it is refused.
    """

    request: EditRequest
    since: str
    state: str
    fault: str | None


@dataclass(frozen=True)
class Change:
    """Something that happened to a fact.

    Attributes:
        time: UTC, in ISO 8601.
        action: "add", "update" or "forget".
        subject: of the fact.
        prompt: of the fact.
        old: the target before; None if there was none.
        new: the target since; None if it was forgotten.
    """

    time: str
    action: str
    subject: str
    prompt: str
    old: str | None
    new: str | None


@dataclass(frozen=True)
class StoredTarget:
    """The target of one group of facts, as bytes.

    Attributes:
        value: z_s, little-endian float32.
        losses: the last loss of each fact of the group.
        steps: that were taken to find it.
    """

    value: bytes
    losses: Sequence[float]
    steps: int

    def rest(self) -> str:
        """All but the value, as text."""
        return json.dumps({"losses": list(self.losses), "steps": self.steps})

    def digest(self) -> str:
        """SHA-256 of all of it."""
        return hashlib.sha256(self.value + self.rest().encode()).hexdigest()


@dataclass(frozen=True)
class Snapshot:
    """The facts at one moment, by group: what shares a target.

    Attributes:
        groups: the facts that can be written.
        targets: of the groups whose target is there, by group number.
    """

    groups: Sequence[Sequence[EditRequest]]
    targets: dict[int, StoredTarget]

    @property
    def missing(self) -> list[Sequence[EditRequest]]:
        """The groups whose target has yet to be found."""
        return [group for i, group in enumerate(self.groups) if i not in self.targets]


def group_digest(group: Iterable[EditRequest]) -> str:
    """What the target of a group is filed under."""
    facts = json.dumps([fact.identity for fact in group])
    return hashlib.sha256(facts.encode()).hexdigest()
