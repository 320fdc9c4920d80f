"""The sequences of a micro-batch, cut into pieces of like length so that little padding is run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from rose_easyedit.method.replay import Replay
from rose_easyedit.method.tokens import Query
from rose_easyedit.opening import families

# What one more piece costs, in tokens: its calls, and reading every matrix once more.
_COST_OF_A_PIECE = 32


@dataclass(frozen=True)
class Group:
    """What shares one shift.

    Attributes:
        name: the subject, or the subject and prompt of a fact; seeds its random directions.
        facts: for each fact, its queries with targets.
        essence: the query whose next-token distribution shall stay.
    """

    name: str
    facts: tuple[tuple[Query, ...], ...]
    essence: Query

    @property
    def n_rows(self) -> int:
        """Sequences that a step of this group runs."""
        return sum(map(len, self.facts)) + 1

    @property
    def n_replayed(self) -> int:
        """Tokens from the subject on in its longest sequence, the width that a step runs."""
        return max(len(query.ids) - query.subject for queries in self.facts for query in queries)


class Row(NamedTuple):
    """A sequence: the group it belongs to, its fact (-1: the essence) and its weight there."""

    name: str
    query: Query
    group: int
    fact: int
    weight: float

    @property
    def width(self) -> int:
        """Tokens that a step runs: from the subject to the last that predicts a target token."""
        return len(self.query.ids) - (self.query.n_target > 0) - self.query.subject


def make_turns(groups: Sequence[Group], n_turns: int) -> list[list[Row]]:
    """All sequences of the groups; a fact's queries are dealt out to the turns, one after another.

    Every turn has the essences, and weighs facts as the whole does on average. Facts are counted
    over all groups, in order.

    Args:
        groups: at least one.
        n_turns: at least 1; there are fewer turns where no fact has as many queries.
    """
    most = max(len(queries) for group in groups for queries in group.facts)
    turns: list[list[Row]] = [[] for _ in range(min(n_turns, most))]
    n_facts = 0
    for index, group in enumerate(groups):
        for place, queries in enumerate(group.facts):
            for number, query in enumerate(queries):
                name = f"{group.name}\n{place}\n{number}"
                row = Row(name, query, index, n_facts + place, 1.0 / len(queries))
                turns[number % len(turns)].append(row)
        n_facts += len(group.facts)
        for turn in turns:
            turn.append(Row(f"{group.name}\nessence", group.essence, index, -1, 0.0))
    return turns


def cut(rows: Sequence[Row], most: int) -> list[list[Row]]:
    """The rows in pieces of at most `most`: those that open alike together, and of like length."""
    alike = families([row.query.key_prefix for row in rows])
    return [piece for family in alike for piece in _cut([rows[i] for i in family], most)]


def _cut(rows: Sequence[Row], most: int) -> list[list[Row]]:
    """The pieces, of at least one row, that cost least: rows x width, and a price per piece."""
    rows = sorted(rows, key=lambda row: row.width)
    cheapest: list[tuple[int, int]] = [
        (0, 0)
    ]  # cost of the first k rows, start of their last piece
    for end in range(1, len(rows) + 1):
        width = rows[end - 1].width
        cheapest.append(
            min(
                (cheapest[start][0] + (end - start) * width + _COST_OF_A_PIECE, start)
                for start in range(max(0, end - most), end)
            )
        )
    pieces = []
    end = len(rows)
    while end > 0:
        start = cheapest[end][1]
        pieces.append(list(rows[start:end]))
        end = start
    return pieces[::-1]


@dataclass
class Piece:
    """B rows that run together.

    Attributes:
        names: of the rows, for their random displacements.
        replay: of their queries.
        group: of each row, [B].
        fact: of each row, counted over all groups; -1 for the essence, [B].
        weight: 1 / queries of the fact, [B].
        before: log-probabilities without a shift, [essence rows, vocabulary].
    """

    names: list[str]
    replay: Replay
    group: Tensor
    fact: Tensor
    weight: Tensor
    before: Tensor

    @classmethod
    def of(cls, rows: Sequence[Row], replay: Replay, still: Tensor) -> Piece:
        """The rows with their replay and its log-probabilities without a shift, [M, vocabulary]."""
        device = replay.hidden.device
        fact = torch.tensor([row.fact for row in rows], device=device)
        return cls(
            [row.name for row in rows],
            replay,
            torch.tensor([row.group for row in rows], device=device),
            fact,
            torch.tensor([row.weight for row in rows], device=device),
            still[fact[replay.rows] < 0],
        )

    def without(self, converged: Tensor) -> Piece | None:
        """The piece with only the rows of groups that go on; None when there is no such row."""
        going_on = ~converged[self.group]
        if bool(going_on.all()):
            return self
        keep = going_on.nonzero()[:, 0]
        if len(keep) == 0:
            return None
        return Piece(
            [self.names[i] for i in keep.tolist()],
            self.replay.select(keep),
            self.group[keep],
            self.fact[keep],
            self.weight[keep],
            self.before[going_on[self.fact < 0]],
        )
