"""Stage 1, Hierarchical Knowledge Integration: the shift of the hidden state of each subject.

A *group* is what shares one shift: a fact at the fact level, a subject at the subject level. All
groups are optimised side by side, a micro-batch at a time; a group that has converged leaves it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rose_easyedit.errors import FactError
from rose_easyedit.forward.oom import counted_if_done, within_memory
from rose_easyedit.forward.prefixes import Prefixes
from rose_easyedit.forward.replay import capture
from rose_easyedit.forward.shared_prefix import price_of_a_pass
from rose_easyedit.method.stage1.checkpoint import Checkpoint
from rose_easyedit.method.stage1.pieces import (
    Group,
    Piece,
    count_turns,
    cut,
    make_rows,
)
from rose_easyedit.method.stage1.setting import Level, Setting
from rose_easyedit.method.stage1.shifts import Shifts
from rose_easyedit.method.stage1.smoothing import Noise
from rose_easyedit.method.stage1.trajectory import Totals, Trajectory

# Losses are kept beside the computation, whatever the defaults of the process are.
_ON_RECORD: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}


def optimise(setting: Setting, groups: Sequence[Group], start: Tensor, level: Level) -> Shifts:
    """Finds the shift of each group that makes its facts likely.

    Minimises the sum over a group's facts of the mean over their queries of -log P(target), plus
    `kl_factor` times the mean drift of what is kept, plus `weight_decay` |delta| / |h|^2.

    Args:
        setting: the model and the loss.
        groups: n groups.
        start: where each begins, [n, d].
        level: steps, rate and smoothing.

    Raises:
        FactError: a loss is not finite and the settings refuse that, with the group's name.
        RoSEError: the memory does not hold one sequence.
    """
    micro_batch = setting.micro_batch
    found = []
    for chunk in chunks(setting, groups, level):
        attempt = partial(_attempt, setting, groups, start, level, chunk)
        parts, micro_batch = within_memory(attempt, micro_batch)
        found += parts
    return Shifts.of_parts(found)


def _attempt(
    setting: Setting,
    groups: Sequence[Group],
    start: Tensor,
    level: Level,
    chunk: Sequence[int],
    micro_batch: int,
) -> list[tuple[list[int], Shifts]]:
    """A chunk of the groups, in as many parts as a micro-batch makes of it."""
    parts = []
    n_turns = _n_turns(setting, level)
    with counted_if_done(setting.on_step) as on_step:
        narrow = replace(setting, micro_batch=micro_batch, on_step=on_step)
        for places in chunks(narrow, [groups[i] for i in chunk], level):
            part = [chunk[place] for place in places]
            members = [groups[i] for i in part]
            turns = _capture(narrow, members, n_turns)
            parts.append((part, _optimise_chunk(narrow, members, turns, start[part], level)))
    return parts


def _n_turns(setting: Setting, level: Level) -> int:
    return max(1, min(setting.hparams.context_batches, level.steps))


def chunks(setting: Setting, groups: Sequence[Group], level: Level) -> Iterator[list[int]]:
    """Groups of similar cost together, as many as the micro-batch holds, one at the least.

    Those of a chunk have equally many batches of contexts, so that a group's trajectory is its own
    whatever others are optimised with it. A chunk's groups alone are one chunk, in the same order.
    """
    n_turns = _n_turns(setting, level)
    turns = [count_turns([group], n_turns) for group in groups]
    order = sorted(range(len(groups)), key=lambda i: (turns[i], groups[i].n_replayed))
    chunk: list[int] = []
    rows = 0
    for index in order:
        full = rows + groups[index].n_rows > setting.micro_batch * n_turns
        if chunk and (full or turns[index] != turns[chunk[0]]):
            yield chunk
            chunk, rows = [], 0
        chunk.append(index)
        rows += groups[index].n_rows
    yield chunk


def _optimise_chunk(
    setting: Setting, groups: Sequence[Group], turns: list[list[Piece]], start: Tensor, level: Level
) -> Shifts:
    """A chunk from its beginning, or from where an interrupt has cut it off."""
    run = _Run(setting, groups, turns, start, level)
    if setting.unfinished is None:
        run.to_the_end()
        return run.found()
    begun = setting.unfinished.load(setting, groups, start)
    if begun is not None and begun.fits(run.point, run.losses, level.steps):
        run.go_on_from(begun)
    try:
        run.to_the_end()
    except KeyboardInterrupt:
        if reached := run.reached():
            setting.unfinished.save(setting, groups, start, reached)
        raise
    setting.unfinished.drop(setting, groups, start)
    return run.found()


class _Run:
    """The optimisation of a chunk, step by step.

    Attributes:
        point: the shifts in the unit, [n, d].
        losses: of each fact in each turn, [turns, facts].
    """

    def __init__(
        self,
        setting: Setting,
        groups: Sequence[Group],
        turns: list[list[Piece]],
        start: Tensor,
        level: Level,
    ) -> None:
        self._setting, self._groups, self._turns, self._level = setting, groups, turns, level
        of_facts = [i for i, group in enumerate(groups) for _ in group.facts]
        self._fact_group = torch.tensor(of_facts, dtype=torch.long, device="cpu")
        self._share = torch.tensor([group.share for group in groups], **_ON_RECORD)
        self._norms = _subject_norms(turns, len(groups)).to(start.device)  # [n]
        self._noise = Noise(setting.seed, start.shape[1], level.smoothing_radius)

        # Adam's steps have the size of its rate in every coordinate; in this unit one rate fits all
        # models, whatever their hidden states look like.
        self._root = start.shape[1] ** 0.5
        self._unit = setting.unit.to(start.device)  # [d]
        self.point = (start / self._unit).requires_grad_(True)
        self._optimiser = torch.optim.Adam([self.point], lr=level.learning_rate)
        # each turn tells of its own contexts; what is on record of a fact is the sum over the turns
        self.losses = torch.full((len(turns), len(of_facts)), torch.inf, **_ON_RECORD)
        self._steps = torch.zeros(len(groups), dtype=torch.long, device="cpu")
        self._converged = torch.zeros(len(groups), dtype=torch.bool, device="cpu")
        self._before: list[Totals] = []  # of the steps before an interrupt
        self._trajectory = Trajectory()
        self._last: tuple[int, dict[str, Any]] | None = None

    def to_the_end(self) -> None:
        """All steps that are left, or as many as it takes until all groups have converged."""
        n = len(self._groups)
        for step in range(len(self._before), self._level.steps):
            self._optimiser.zero_grad()
            newly = self._losses_of(step)
            self._setting.on_step(n)
            if bool(newly.any()):
                self._drop_converged()
            if bool(self._converged.all()):
                self._setting.on_step(n * (self._level.steps - step - 1))
                break
            delta = self.point * self._unit
            decay = (delta.norm(dim=1) / self._norms.square()).sum()
            (self._setting.hparams.weight_decay * decay).backward()
            longest = self._setting.hparams.clamp_norm * self._root
            share = self._share * ~self._converged
            _step(self._optimiser, self.point, share.to(self.point.device), longest)
            if self._setting.unfinished is not None:
                self._last = step + 1, self._state()

    def found(self) -> Shifts:
        """What the optimisation has come to."""
        per_fact = self.losses.sum(0)
        n = len(self._groups)
        per_group = [per_fact[self._fact_group == i].tolist() for i in range(n)]
        trajectories = {self._level.name: [self._before + self._trajectory.totals()]}
        deltas = (self.point * self._unit).detach()
        return Shifts(deltas, per_group, self._steps.tolist(), trajectories)

    def reached(self) -> Checkpoint | None:
        """Where the last whole step has ended; None if none was done."""
        if self._last is None:
            return None
        done, state = self._last
        state = {
            name: value.cpu() if isinstance(value, Tensor) else value
            for name, value in state.items()
        }
        totals = self._trajectory.totals(done - len(self._before))
        return Checkpoint(**state, totals=self._before + totals)

    def go_on_from(self, begun: Checkpoint) -> None:
        """Takes up what `reached` gave."""
        with torch.no_grad():
            self.point.copy_(begun.point)
        first, second = (moment.to(self.point.device) for moment in begun.moments)
        self._optimiser.state[self.point] = {
            "step": torch.tensor(float(len(begun.totals)), **_ON_RECORD),
            "exp_avg": first,
            "exp_avg_sq": second,
        }
        self.losses, self._steps = begun.losses.clone(), begun.steps.clone()
        self._converged, self._before = begun.converged.clone(), begun.totals
        self._noise.go_on_from(begun.draws)
        self._drop_converged()
        self._last = len(begun.totals), self._state()
        self._setting.on_step(len(self._groups) * len(begun.totals))

    def _state(self) -> dict[str, Any]:
        """Copies of all that the next step changes."""
        of_adam = self._optimiser.state[self.point]
        return {
            "point": self.point.detach().clone(),
            "moments": torch.stack([of_adam["exp_avg"], of_adam["exp_avg_sq"]]),
            "losses": self.losses.clone(),
            "steps": self._steps.clone(),
            "converged": self._converged.clone(),
            "draws": dict(self._noise.draws),
        }

    def _losses_of(self, step: int) -> Tensor:
        """Computes the losses of a step and their gradients; which groups end with it, [n]."""
        hparams, n_turns = self._setting.hparams, len(self._turns)
        turn = step % n_turns
        current = torch.zeros(len(self._fact_group), **_ON_RECORD)
        drifts = []
        for piece in self._turns[turn]:
            noise = self._noise.draw(piece.names, self.point.device)
            displaced = (self.point[piece.group] + noise) * self._unit
            facts, drift = _backward(self._setting, piece, displaced, n_turns)
            current.index_add_(0, piece.fact[piece.fact >= 0].cpu(), facts.cpu())
            if len(piece.before):
                drifts.append(torch.stack([drift, piece.kept_weight]))
        failed = _failed(current, self._fact_group, self._groups, hparams.on_failure)
        going_on = ~(self._converged | failed)
        self._trajectory.add(
            facts=n_turns * current[going_on[self._fact_group]],
            going_on=going_on,
            drifts=drifts,
            norms=self.point.detach().norm(dim=1) / self._root,
        )
        self.losses[turn] = torch.where(going_on[self._fact_group], current, self.losses[turn])
        self.losses[turn, ~current.isfinite()] = torch.nan
        worst = torch.zeros(len(self._groups), **_ON_RECORD)
        worst.scatter_reduce_(0, self._fact_group, self.losses.sum(0), "amax")
        newly = failed | going_on & (worst < hparams.loss_threshold * self._share)
        self._converged |= newly
        self._steps += ~self._converged
        return newly

    def _drop_converged(self) -> None:
        """Leaves the rows of groups that have converged out of the steps to come."""
        gone = self._converged.to(self.point.device)
        self._turns = [_present(piece.without(gone) for piece in pieces) for pieces in self._turns]


def _backward(setting: Setting, piece: Piece, shift: Tensor, n_turns: int) -> tuple[Tensor, Tensor]:
    """Adds a piece's gradients, as if each turn were a step's all; gives what `_loss` gives."""
    facts, drift = _loss(piece, shift, setting.autocast)
    (n_turns * (facts.sum() + setting.hparams.kl_factor * drift)).backward()
    return facts.detach(), drift.detach()


def _capture(setting: Setting, groups: Sequence[Group], n_turns: int) -> list[list[Piece]]:
    """The rows of the groups, run once and ready to be replayed: the pieces of each turn."""
    dealt = make_rows(groups, count_turns(groups, n_turns))
    with setting.autocast(), torch.no_grad():
        prefixes = Prefixes.read(
            setting.editable,
            (row.query.key_prefix for rows in dealt for row in rows),
            setting.micro_batch,
        )
    price = price_of_a_pass(setting.editable.device)
    turns = []
    for rows in dealt:
        pieces = []
        for part in cut(rows, setting.micro_batch, price):
            queries = [row.query for row in part]
            with setting.autocast():
                replay = capture(setting.editable, queries, setting.layer, prefixes)
                pieces.append(Piece.of(part, replay))
        turns.append(pieces)
    return turns


def _present(pieces: Iterable[Piece | None]) -> list[Piece]:
    return [piece for piece in pieces if piece is not None]


def _subject_norms(turns: Sequence[Sequence[Piece]], n_groups: int) -> Tensor:
    """Mean |h| at the subject over the statements of each group, [n]."""
    total, count = (torch.zeros(n_groups, **_ON_RECORD) for _ in range(2))
    for piece in (piece for pieces in turns for piece in pieces):
        stated = piece.fact >= 0
        norms = piece.replay.subject_hidden[stated].float().norm(dim=1).cpu()
        finite = norms.isfinite()  # a fact that fails shall not take its group along
        total.index_add_(0, piece.group[stated].cpu()[finite], norms[finite])
        count.index_add_(0, piece.group[stated].cpu()[finite], torch.ones_like(norms[finite]))
    return total / count


def _loss(
    piece: Piece,
    shift: Tensor,
    autocast: Callable[[], AbstractContextManager[None]],
) -> tuple[Tensor, Tensor]:
    """Weighted -log P(target) of each row of a fact, and the drift of what is kept."""
    replay = piece.replay
    with autocast():
        final = replay.final_states(shift)  # [M, d]
        is_kept = piece.is_kept
        # in one product, since for few places most of its time is that of reading the weights; in
        # this order, since to pick rows of log-probabilities costs as much as to make them
        ordered = torch.cat([final[~is_kept], final[is_kept]])
        # [targets, vocabulary] and [K, vocabulary]
        log_p, after = replay.read_out(ordered).tensor_split([len(ordered) - len(piece.before)])
    chosen = log_p.gather(1, replay.targets[~is_kept, None])[:, 0]
    rows = replay.rows[~is_kept]
    count = torch.bincount(replay.rows, minlength=len(piece.fact))  # places of each row
    per_row = chosen.new_zeros(len(piece.fact)).index_add(0, rows, -chosen)
    facts = (per_row / count * piece.weight)[piece.fact >= 0]
    places = replay.rows[is_kept]
    share = (piece.weight / count)[places]  # of each place in what its group keeps
    drift = (piece.before.exp() * (piece.before - after)).sum(1)
    return facts, (share * drift).sum()


def _failed(losses: Tensor, fact_group: Tensor, groups: Sequence[Group], on_failure: str) -> Tensor:
    """Which groups have a fact whose loss is not finite, [n]; an error if that is refused."""
    failed = torch.zeros(len(groups), dtype=torch.bool, device="cpu")
    failed[fact_group[~losses.isfinite()]] = True
    if on_failure == "refuse" and bool(failed.any()):
        raise FactError.of(
            "The loss is not finite; lower the learning rates, use precision: weights, or leave "
            "such facts out (hierarchy.on_failure: leave_out). It is that of:",
            [group.name for group, bad in zip(groups, failed.tolist(), strict=True) if bad],
        )
    return failed


@torch.no_grad()
def _step(optimiser: torch.optim.Optimizer, point: Tensor, share: Tensor, longest: float) -> None:
    """A share of a step for each point, [n], kept within a longest norm; 0 for one at its end."""
    before = point.detach().clone()
    optimiser.step()
    reached = torch.lerp(before, point, share[:, None])  # at a share of 1 the point itself
    scale = (longest / reached.norm(dim=1).clamp(min=1e-12)).clamp(max=1.0)
    point.copy_(torch.where(share[:, None] == 0, before, reached * scale[:, None]))
