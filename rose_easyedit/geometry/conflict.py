"""Whether the facts of a subject pull its hidden state the same way.

    conflict(i, j) = 1 - |cos(grad_i, grad_j)|,

the gradients of two facts' losses with respect to the shift of h_L(s), at no shift: 0 when one
direction serves (or spoils) both, 1 when they are orthogonal.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from rose_easyedit.forward.replay import capture
from rose_easyedit.forward.shared_prefix import price_of_a_pass
from rose_easyedit.geometry.similarity import cosines
from rose_easyedit.geometry.suffix import Precision, losses_at
from rose_easyedit.method.stage1.pieces import PieceRow, cut
from rose_easyedit.models.architectures import EditableModel
from rose_easyedit.text.locate_subject import TokenQuery


@dataclass(frozen=True)
class Conflict:
    """Two facts of one subject, by index, and their conflict score."""

    subject: str
    first: int
    second: int
    score: float

    def as_dict(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


def conflict_scores(gradients: Tensor) -> Tensor:
    """1 - |cos| of every pair of gradients [F, d], [F, F]."""
    return 1.0 - cosines(gradients).abs()


def conflicts_within(gradients: Tensor, subjects: Sequence[str]) -> list[Conflict]:
    """The conflict of every pair of facts that share a subject.

    Args:
        gradients: of each fact's loss, [F, d].
        subjects: of each fact, F.
    """
    scores = conflict_scores(gradients)
    return [
        Conflict(subjects[i], i, j, float(scores[i, j]))
        for i, j in combinations(range(len(subjects)), 2)
        if subjects[i] == subjects[j]
    ]


def fact_gradients(
    editable: EditableModel,
    contexts: Sequence[Sequence[TokenQuery]],
    *,
    layer: int,
    batch: int,
    precision: Precision = nullcontext,
) -> Tensor:
    """Gradient of each fact's loss with respect to the shift of its subject, at no shift.

    The loss is that of stage 1: the mean over a fact's contexts of the mean negative
    log-likelihood of its target tokens.

    Args:
        editable: the unedited model; call inside `activations.frozen`.
        contexts: of each of F facts, with the target behind them; none for a fact whose gradient
            is not wanted, and is 0.
        layer: the target layer.
        batch: sequences run at once.
        precision: from `precision_context`; the default is the weights' own.

    Returns:
        [F, d], float32, on the CPU.
    """
    rows = [
        PieceRow("", query, 0, fact, 1.0 / len(queries))
        for fact, queries in enumerate(contexts)
        for query in queries
    ]
    width = editable.model.config.get_text_config().hidden_size
    gradients = torch.zeros(len(contexts), width, dtype=torch.float32, device="cpu")
    if not rows:
        return gradients
    with tqdm(total=len(rows), desc="conflict", unit="context", leave=False, disable=None) as bar:
        for part in cut(rows, batch, price_of_a_pass(editable.device)):
            with precision(), torch.enable_grad():
                replay = capture(editable, [row.query for row in part], layer)
                hidden = replay.subject_hidden.float().requires_grad_(True)
                loss = losses_at(replay, hidden).sum()
            (gradient,) = torch.autograd.grad(loss, hidden)
            facts, weights = (
                torch.tensor([getattr(row, name) for row in part], dtype=dtype, device="cpu")
                for name, dtype in (("fact", torch.long), ("weight", torch.float32))
            )
            gradients.index_add_(0, facts, gradient.cpu() * weights[:, None])
            bar.update(len(part))
    return gradients
