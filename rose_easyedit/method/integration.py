"""Stage 1, Hierarchical Knowledge Integration: the shift of the hidden state of each subject.

A *group* is what shares one shift: a fact at the fact level, a subject at the subject level. All
groups are optimised side by side, a micro-batch at a time; a group that has converged leaves it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rose_easyedit.architectures import EditableModel
from rose_easyedit.errors import RoSEError
from rose_easyedit.hparams import HierarchyHyperParams
from rose_easyedit.method.replay import Replay, capture, matrices_in_autocast
from rose_easyedit.method.tokens import Query


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


@dataclass(frozen=True)
class Level:
    """How a level is optimised.

    Attributes:
        steps: at the most.
        learning_rate: of Adam.
        smoothing_radius: largest random displacement, relative to |h|.
    """

    steps: int
    learning_rate: float
    smoothing_radius: float = 0.0


@dataclass
class Shifts:
    """What an optimisation found for n groups.

    Attributes:
        deltas: [n, d], float32.
        losses: per group, the last loss of each of its facts (nats per target token).
        steps: per group, the steps it took.
    """

    deltas: Tensor
    losses: list[list[float]] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Setting:
    """What all groups of a run have in common.

    Attributes:
        editable: the model; frozen.
        layer: the target layer.
        hparams: weights of the loss terms, threshold and clamp.
        micro_batch: sequences run at once.
        seed: of the random directions.
        autocast: a fresh precision context for each use.
        on_step: told how many steps of groups were done or saved since it was last told.
    """

    editable: EditableModel
    layer: int
    hparams: HierarchyHyperParams
    micro_batch: int
    seed: int
    autocast: Callable[[], AbstractContextManager[None]]
    on_step: Callable[[int], object] = lambda _groups: None


def optimise(setting: Setting, groups: Sequence[Group], start: Tensor, level: Level) -> Shifts:
    """Finds the shift of each group that makes its facts likely.

    Minimises the sum over a group's facts of the mean over their queries of -log P(target), plus
    `kl_factor` times the drift of the essence prompt, plus `weight_decay` |delta| / |h|^2.

    Args:
        setting: the model and the loss.
        groups: n groups.
        start: where each begins, [n, d].
        level: steps, rate and smoothing.

    Raises:
        RoSEError: a loss is not finite; names the group.
    """
    deltas = start.clone()
    losses: list[list[float]] = [[] for _ in groups]
    steps = [0] * len(groups)
    with setting.autocast():
        matrices = matrices_in_autocast(setting.editable, setting.layer)
    for chunk in _chunks(groups, setting.micro_batch):
        members = [groups[i] for i in chunk]
        pieces = _pieces(setting, members, matrices)
        found = _optimise_chunk(setting, members, pieces, start[chunk], level)
        deltas[chunk] = found.deltas
        for place, group in enumerate(chunk):
            losses[group], steps[group] = found.losses[place], found.steps[place]
    return Shifts(deltas, losses, steps)


def _chunks(groups: Sequence[Group], micro_batch: int) -> Iterator[list[int]]:
    """Groups of similar cost together, as many as the micro-batch holds, one at the least."""
    order = sorted(range(len(groups)), key=lambda i: groups[i].n_replayed)
    chunk: list[int] = []
    rows = 0
    for index in order:
        if chunk and rows + groups[index].n_rows > micro_batch:
            yield chunk
            chunk, rows = [], 0
        chunk.append(index)
        rows += groups[index].n_rows
    yield chunk


@dataclass
class _Piece:
    """A micro-batch of rows: each row belongs to a group, and to a fact or to the essence."""

    replay: Replay
    group: Tensor  # [B]
    fact: Tensor  # [B], index over all facts of the chunk; -1 for the essence
    weight: Tensor  # [B], 1 / queries of the fact
    before: Tensor  # [essence rows, vocabulary], log-probabilities without a shift

    def without(self, converged: Tensor) -> _Piece | None:
        """The piece with only the rows of groups that go on; None when there is no such row."""
        going_on = ~converged[self.group]
        if bool(going_on.all()):
            return self
        keep = going_on.nonzero()[:, 0]
        if len(keep) == 0:
            return None
        return _Piece(
            self.replay.select(keep),
            self.group[keep],
            self.fact[keep],
            self.weight[keep],
            self.before[going_on[self.fact < 0]],
        )


def _optimise_chunk(
    setting: Setting, groups: Sequence[Group], pieces: list[_Piece], start: Tensor, level: Level
) -> Shifts:
    hparams = setting.hparams
    fact_group = torch.tensor([i for i, group in enumerate(groups) for _ in group.facts])
    norms = _subject_norms(pieces, len(groups)).to(start.device)  # [n]
    noise = _Noise(groups, setting.seed, start.shape[1], level.smoothing_radius)

    delta = start.clone().requires_grad_(True)
    optimiser = torch.optim.Adam([delta], lr=level.learning_rate)
    losses = torch.zeros(len(fact_group))
    steps = torch.zeros(len(groups), dtype=torch.long)
    converged = torch.zeros(len(groups), dtype=torch.bool)
    for step in range(level.steps):
        optimiser.zero_grad()
        current = torch.zeros(len(fact_group))
        for piece in pieces:
            displaced = delta[piece.group] + noise.draw(piece.group, norms)
            loss, fact_loss = _loss(piece, displaced, hparams.kl_factor, setting.autocast)
            loss.backward()
            current.index_add_(0, piece.fact[piece.fact >= 0].cpu(), fact_loss.cpu())
        _check_finite(current, fact_group, groups)
        going_on = ~converged
        losses = torch.where(going_on[fact_group], current, losses)
        worst = torch.zeros(len(groups)).scatter_reduce(0, fact_group, losses, "amax")
        newly = going_on & (worst < hparams.loss_threshold)
        converged |= newly
        steps += ~converged
        setting.on_step(len(groups))
        if bool(newly.any()):
            kept = [piece.without(converged.to(start.device)) for piece in pieces]
            pieces = [piece for piece in kept if piece is not None]
        if not pieces:
            setting.on_step(len(groups) * (level.steps - step - 1))
            break
        decay = hparams.weight_decay * (delta.norm(dim=1) / norms.square()).sum()
        decay.backward()
        _step(optimiser, delta, converged.to(start.device), hparams.clamp_norm * norms)
    per_group = [losses[fact_group == i].tolist() for i in range(len(groups))]
    return Shifts(delta.detach(), per_group, steps.tolist())


def _pieces(
    setting: Setting, groups: Sequence[Group], matrices: Sequence[dict[str, Tensor]]
) -> list[_Piece]:
    rows: list[tuple[Query, int, int, float]] = []
    n_facts = 0
    for index, group in enumerate(groups):
        for queries in group.facts:
            rows.extend((query, index, n_facts, 1.0 / len(queries)) for query in queries)
            n_facts += 1
        rows.append((group.essence, index, -1, 0.0))
    pieces = []
    for begin in range(0, len(rows), setting.micro_batch):
        part = rows[begin : begin + setting.micro_batch]
        with setting.autocast():
            replay = capture(setting.editable, [row[0] for row in part], setting.layer, matrices)
        device = replay.hidden.device
        piece = _Piece(
            replay,
            torch.tensor([row[1] for row in part], device=device),
            torch.tensor([row[2] for row in part], device=device),
            torch.tensor([row[3] for row in part], device=device),
            torch.empty(0),
        )
        with torch.no_grad(), setting.autocast():
            still = replay.log_probabilities(torch.zeros_like(replay.subject_hidden))
        piece.before = still[piece.fact[replay.rows] < 0]
        pieces.append(piece)
    return pieces


def _subject_norms(pieces: Sequence[_Piece], n_groups: int) -> Tensor:
    """Mean |h| at the subject over the rows of each group, [n]."""
    total, count = torch.zeros(n_groups), torch.zeros(n_groups)
    for piece in pieces:
        norms = piece.replay.subject_hidden.float().norm(dim=1).cpu()
        total.index_add_(0, piece.group.cpu(), norms)
        count.index_add_(0, piece.group.cpu(), torch.ones_like(norms))
    return total / count


class _Noise:
    """Seeded random displacements, independent of what else shares the batch."""

    def __init__(self, groups: Sequence[Group], seed: int, width: int, radius: float) -> None:
        self._radius, self._width = radius, width
        self._generators = [
            # a CPU generator heeds 32 bits of its seed
            torch.Generator().manual_seed(zlib.crc32(f"{seed}\n{group.name}".encode()))
            for group in groups
        ]

    def draw(self, group: Tensor, norms: Tensor) -> Tensor:
        """One displacement a row [B, d]: uniform direction, length uniform in 0..radius * |h|."""
        if self._radius == 0:
            return torch.zeros(1, device=norms.device)
        rows = []
        for index in group.tolist():
            generator = self._generators[index]
            direction = torch.randn(self._width, generator=generator)
            length = torch.rand((), generator=generator) * self._radius
            rows.append(direction * (length / direction.norm()))
        return torch.stack(rows).to(norms.device) * norms[group][:, None]


def _loss(
    piece: _Piece,
    shift: Tensor,
    kl_factor: float,
    autocast: Callable[[], AbstractContextManager[None]],
) -> tuple[Tensor, Tensor]:
    """The piece's share of the loss, and of each fact row's weighted -log P(target)."""
    replay = piece.replay
    with autocast():
        log_p = replay.log_probabilities(shift)  # [M, vocabulary]
    is_target = replay.targets >= 0
    chosen = log_p[is_target].gather(1, replay.targets[is_target, None])[:, 0]
    rows = replay.rows[is_target]
    count = torch.bincount(rows, minlength=len(piece.fact)).clamp(min=1)
    per_row = torch.zeros(len(piece.fact), device=log_p.device).index_add(0, rows, -chosen)
    weighted = (per_row / count * piece.weight)[piece.fact >= 0]
    before = piece.before
    drift = (before.exp() * (before - log_p[~is_target])).sum()
    return weighted.sum() + kl_factor * drift, weighted.detach()


def _check_finite(losses: Tensor, fact_group: Tensor, groups: Sequence[Group]) -> None:
    bad = sorted({int(fact_group[i]) for i in (~losses.isfinite()).nonzero()[:, 0]})
    if bad:
        raise RoSEError.of(
            "The loss is not finite; lower the learning rates or use precision: weights. It is "
            "that of:",
            [groups[i].name for i in bad],
        )


@torch.no_grad()
def _step(
    optimiser: torch.optim.Optimizer, delta: Tensor, converged: Tensor, longest: Tensor
) -> None:
    """One step for the groups that go on, each shift kept within its longest norm [n]."""
    before = delta.detach().clone()
    optimiser.step()
    scale = (longest / delta.norm(dim=1).clamp(min=1e-12)).clamp(max=1.0)
    delta.copy_(torch.where(converged[:, None], before, delta * scale[:, None]))
