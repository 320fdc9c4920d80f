"""The sequences of a micro-batch, cut into pieces of like length so that little padding is run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from rose_easyedit.forward.replay import Replay
from rose_easyedit.text.locate_subject import TokenQuery


@dataclass(frozen=True)
class Group:
    """What shares one shift.

    Attributes:
        name: the subject, or the subject and prompt of a fact; seeds its random directions.
        facts: for each fact, its queries with targets.
        kept: the queries whose next-token distributions shall stay, at least one; those with a
            target keep them at each of its tokens.
        share: of the learning rate, and of the loss at which its facts have converged.
    """

    name: str
    facts: tuple[tuple[TokenQuery, ...], ...]
    kept: tuple[TokenQuery, ...]
    share: float = 1.0

    @property
    def n_rows(self) -> int:
        """Sequences that a step of this group runs."""
        return sum(map(len, self.facts)) + len(self.kept)

    @property
    def n_replayed(self) -> int:
        """Tokens from the subject on in its longest sequence, the width that a step runs."""
        return max(len(query.ids) - query.subject for queries in self.facts for query in queries)


class PieceRow(NamedTuple):
    """A sequence of a group.

    Attributes:
        name: of the row, for its random displacements.
        query: of a fact, with a target, or one that is kept.
        group: that it belongs to.
        fact: that it belongs to, counted over all groups; -1 for what is kept.
        weight: in the loss of its fact, or in what its group keeps.
    """

    name: str
    query: TokenQuery
    group: int
    fact: int
    weight: float

    @property
    def width(self) -> int:
        """Tokens that a step runs: from the subject to the last that predicts a target token."""
        return len(self.query.ids) - (self.query.n_target > 0) - self.query.subject


def count_turns(groups: Sequence[Group], wanted: int) -> int:
    """How many turns there are: no more than the queries of the fact that has most."""
    return min(wanted, max(len(queries) for group in groups for queries in group.facts))


def make_rows(groups: Sequence[Group], n_turns: int) -> list[list[PieceRow]]:
    """The sequences of each turn; facts' queries and what is kept are dealt out one by one."""
    turns: list[list[PieceRow]] = [[] for _ in range(n_turns)]
    n_facts = 0
    for index, group in enumerate(groups):
        for place, queries in enumerate(group.facts):
            for number, query in enumerate(queries):
                name = f"{group.name}\n{place}\n{number}"
                row = PieceRow(name, query, index, n_facts + place, 1.0 / len(queries))
                turns[number % n_turns].append(row)
        n_facts += len(group.facts)
        for number, query in enumerate(group.kept):
            name = f"{group.name}\nkept\n{number}" if number else f"{group.name}\nessence"
            turns[number % n_turns].append(PieceRow(name, query, index, -1, 1.0 / len(group.kept)))
    return turns


def cut(rows: Sequence[PieceRow], most: int, price: int) -> list[list[PieceRow]]:
    """The rows by length, in the pieces that cost least: rows x width, and a price per piece.

    Args:
        rows: at least one.
        most: rows of a piece.
        price: of a piece, in tokens.
    """
    rows = sorted(rows, key=lambda row: row.width)
    cheapest: list[tuple[int, int]] = [
        (0, 0)
    ]  # cost of the first k rows, start of their last piece
    for end in range(1, len(rows) + 1):
        width = rows[end - 1].width
        cheapest.append(
            min(
                (cheapest[start][0] + (end - start) * width + price, start)
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
        fact: of each row, counted over all groups; -1 for what is kept, [B].
        weight: 1 / queries of the fact, or of what its group keeps, [B].
        before: log-probabilities without a shift at the places of what is kept, [K, vocabulary].
    """

    names: list[str]
    replay: Replay
    group: Tensor
    fact: Tensor
    weight: Tensor
    before: Tensor

    @property
    def is_kept(self) -> Tensor:
        """Which of the places where logits are wanted belong to what is kept, [M]."""
        return self.fact[self.replay.rows] < 0

    @property
    def kept_weight(self) -> Tensor:
        """How much of what the groups keep is among these rows: 1 for all that a group keeps."""
        return self.weight[self.fact < 0].sum()

    @classmethod
    @torch.no_grad()
    def of(cls, rows: Sequence[PieceRow], replay: Replay) -> Piece:
        """The rows with their replay."""
        device = replay.hidden.device
        group, fact, weight = (
            torch.tensor([getattr(row, name) for row in rows], dtype=dtype, device=device)
            for name, dtype in (
                ("group", torch.long),
                ("fact", torch.long),
                ("weight", torch.float32),
            )
        )
        is_kept = fact[replay.rows] < 0
        before = torch.empty(0, 1, dtype=torch.float32, device=device)
        if bool(is_kept.any()):
            before = replay.read_out(replay.unshifted[is_kept])
        return cls([row.name for row in rows], replay, group, fact, weight, before)

    def without(self, converged: Tensor) -> Piece | None:
        """The piece with only the rows of groups that go on; None when there is no such row."""
        wanted = ~converged[self.group]
        if bool(wanted.all()):
            return self
        keep = wanted.nonzero()[:, 0]
        if len(keep) == 0:
            return None
        return Piece(
            [self.names[i] for i in keep.tolist()],
            self.replay.select(keep),
            self.group[keep],
            self.fact[keep],
            self.weight[keep],
            self.before[wanted[self.replay.rows[self.is_kept]]],
        )
