"""What a memory holds and tells."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite

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

    def digest(self, group: str) -> str:
        """SHA-256 of all of it and of the group whose target it is (`group_digest`)."""
        return hashlib.sha256(self.value + f"{group}:{self.rest()}".encode()).hexdigest()

    def is_of(self, n_facts: int, width: int | None) -> bool:
        """Whether it can be the target of so many facts, of a model of that width if it is known.

        Its numbers are finite.
        """
        size = len(self.value) // 4 if width is None else width
        numbers = struct.iter_unpack("<f", self.value) if len(self.value) == 4 * size else ()
        return (
            len(self.value) == 4 * size > 0
            and all(isfinite(number) for (number,) in numbers)
            and len(self.losses) == n_facts
            and all(type(loss) in (int, float) and isfinite(loss) for loss in self.losses)
            and type(self.steps) is int
            and 0 <= self.steps < 10**9
        )


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
