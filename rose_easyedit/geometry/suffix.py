"""The later layers as a function of the hidden state at the subject: what is decoded, at what loss.

It runs in the precision of the edit (`precision_context`): bfloat16 moves a radius by a tenth of
what the choice of directions does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from rose_easyedit.forward.replay import Replay, capture
from rose_easyedit.models.architectures import EditableModel
from rose_easyedit.text.locate_subject import TokenQuery

Precision = Callable[[], AbstractContextManager[None]]


def unit_directions(number: int, width: int, seed: int) -> Tensor:
    """Random unit directions [number, width], the same ones for a seed on every device."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(number, width, generator=generator, dtype=torch.float32, device="cpu")
    return torch.nn.functional.normalize(drawn, dim=1)


def decoded_at(replay: Replay, hidden: Tensor) -> Tensor:
    """Whether every target token is the likeliest one, teacher-forced, bool [B].

    Args:
        replay: B queries, each with a target.
        hidden: what h_L at the subject is set to, [B, d].
    """
    hit = _log_probabilities(replay, hidden).argmax(-1) == replay.targets
    return _mean_per_query(replay, hit.float()) == 1


def losses_at(replay: Replay, hidden: Tensor) -> Tensor:
    """Mean negative log-likelihood of the target tokens, in nats, [B]; arguments as above."""
    log_p = _log_probabilities(replay, hidden)
    return _mean_per_query(replay, -log_p.gather(1, replay.targets[:, None])[:, 0])


@dataclass(frozen=True)
class Suffixes:
    """The layers behind F statements, each run up to them once, however many points are tried.

    A point is a statement, by its index, and the hidden state that its subject gets.

    Attributes:
        replays: of the statements; those of one replay have as many tokens from the subject on, so
            that nothing is padded there.
        replay_of, row_of: which replay holds each statement, and in which row, each [F].
        norms: |h_L| at the subject of each statement, [F], float32, on the CPU.
        batch: points tried at once, at the most.
        precision: a factory of contexts in which they are tried.
    """

    replays: Sequence[Replay]
    replay_of: Tensor
    row_of: Tensor
    norms: Tensor
    batch: int
    precision: Precision

    @classmethod
    def of(
        cls,
        editable: EditableModel,
        statements: Sequence[TokenQuery],
        *,
        layer: int,
        batch: int,
        precision: Precision = nullcontext,
    ) -> Suffixes:
        """Runs the statements of F facts once.

        Args:
            editable: the unedited model; call inside `activations.frozen`.
            statements: each with its target behind it.
            layer: the target layer.
            batch: sequences run at once.
            precision: from `precision_context`; the default is the weights' own.
        """
        alike: dict[int, list[int]] = {}
        for index, query in enumerate(statements):
            alike.setdefault(len(query.ids) - query.subject, []).append(index)
        parts = [
            chosen[start : start + batch]
            for chosen in alike.values()
            for start in range(0, len(chosen), batch)
        ]
        with precision():
            replays = [capture(editable, [statements[i] for i in part], layer) for part in parts]
        replay_of, row_of, norms = (
            torch.empty(len(statements), dtype=dtype, device="cpu")
            for dtype in (torch.long, torch.long, torch.float32)
        )
        for number, (part, replay) in enumerate(zip(parts, replays, strict=True)):
            replay_of[part] = number
            row_of[part] = torch.arange(len(part), device="cpu")
            norms[part] = replay.subject_hidden.float().norm(dim=1).cpu()
        return cls(replays, replay_of, row_of, norms, batch, precision)

    def decoded(self, statements: Tensor, hidden: Tensor) -> Tensor:
        """Whether the target is decoded at each of N points, bool [N], on the CPU.

        Args:
            statements: of each point, [N].
            hidden: what h_L at its subject is set to, [N, d].
        """
        return self._at(decoded_at, statements, hidden)

    def losses(self, statements: Tensor, hidden: Tensor) -> Tensor:
        """Nats per target token at each of N points, [N], on the CPU; arguments as above."""
        return self._at(losses_at, statements, hidden)

    @torch.no_grad()
    def _at(
        self, measure: Callable[[Replay, Tensor], Tensor], statements: Tensor, hidden: Tensor
    ) -> Tensor:
        points: list[Tensor] = []
        found: list[Tensor] = []
        for number, replay in enumerate(self.replays):
            here = (self.replay_of[statements] == number).nonzero()[:, 0]
            for some in here.split(self.batch) if len(here) else ():
                device = replay.hidden.device
                rows = replay.select(self.row_of[statements[some]].to(device))
                with self.precision():
                    found.append(measure(rows, hidden[some].to(device).float()).cpu())
                points.append(some)
        return torch.cat(found)[torch.cat(points).argsort()]


def _log_probabilities(replay: Replay, hidden: Tensor) -> Tensor:
    return replay.log_probabilities(hidden - replay.subject_hidden.float())


def _mean_per_query(replay: Replay, values: Tensor) -> Tensor:
    """The mean [B] of values [M] over the target tokens of each query."""
    n_queries = len(replay.hidden)
    total = values.new_zeros(n_queries).index_add(0, replay.rows, values)
    return total / torch.bincount(replay.rows, minlength=n_queries)
