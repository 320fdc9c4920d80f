"""Floating-point operations: what a stage did, the least it needs, and what the machine can do."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from rose_easyedit.method.stage1.pieces import Group, count_turns, make_rows
from rose_easyedit.method.stage1.setting import Level
from rose_easyedit.models.architectures import EditableModel

Shape = Sequence[int]
# Of a product and its like for the activations, forward and backward: 2 a parameter and token each.
_FORWARD_AND_BACKWARD = 4


def least_flops(
    editable: EditableModel,
    layer: int,
    groups: Iterable[Group],
    level: Level,
    context_batches: int,
) -> int:
    """The least that a level of stage 1 needs, when no group stops early.

    Each step, for each row that has its turn in it:

        4 * (tokens * parameters of the later layers + places * parameters of the head)

    where tokens are those from the subject's last one to the one that predicts the last target
    token, without padding; places are those that predict a target token (or the essence's next
    token); and 4 is 2 for a multiplication and an addition, forward, and as many backward to the
    activations, as no gradient of a weight is wanted. Attention scores are left out: at these
    lengths they are a few percent.

    Args:
        editable: the model.
        layer: the target layer.
        groups: what is optimised.
        level: its steps.
        context_batches: of the settings.
    """
    later = [p for module in editable.layers[layer + 1 :] for p in module.parameters()]
    body = sum(p.numel() for p in later if p.dim() == 2)
    head = next(p for p in editable.head.parameters() if p.dim() == 2).numel()
    total = 0
    for group in groups:
        n_turns = count_turns([group], max(1, min(context_batches, level.steps)))
        for turn, rows in enumerate(make_rows([group], n_turns)):
            runs = len(range(turn, level.steps, n_turns))
            for row in rows:
                total += runs * (row.width * body + max(1, row.query.n_target) * head)
    return _FORWARD_AND_BACKWARD * total


def matmul_peak(dtype: torch.dtype, size: int = 1024, seconds: float = 1.0) -> float:
    """Most GFLOP per CPU second of square products, with as many threads as there are set.

    Args:
        dtype: of the matrices.
        size: of their sides.
        seconds: how long to try; one product at the least.
    """
    a, b = (torch.ones(size, size, dtype=dtype) for _ in range(2))
    a @ b
    best, end = 0.0, time.perf_counter() + seconds
    while True:
        began = time.process_time()
        a @ b
        best = max(best, 2e-9 * size**3 / max(time.process_time() - began, 1e-9))
        if time.perf_counter() > end:
            return best


def flop_counter() -> FlopCounterMode:
    """Counts matrix products, and what torch has no formula for: attention on CPU, and solvers.

    The dense solvers count as in Golub and Van Loan, Matrix Computations.
    """
    aten = torch.ops.aten
    return FlopCounterMode(
        display=False,
        custom_mapping={
            aten._scaled_dot_product_flash_attention_for_cpu: _attention,
            aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
            aten._linalg_solve_ex: _solve,
            aten.linalg_qr: _qr,
            aten._linalg_svd: _svd,
            aten._linalg_eigh: _eigh,
        },
    )


def _attention(query: Shape, key: Shape, *_: Any, **__: Any) -> int:
    *batch, n_queries, width = query
    return 4 * prod(batch) * n_queries * key[-2] * width


def _attention_backward(_out: Shape, query: Shape, key: Shape, *_: Any, **__: Any) -> int:
    return _attention(query, key) * 5 // 2


def _solve(a: Shape, b: Shape, *_: Any, **__: Any) -> int:
    n = a[-1]
    return 2 * n**3 // 3 + 2 * n**2 * b[-1]


def _qr(a: Shape, *_: Any, **__: Any) -> int:
    m, n = max(a), min(a)
    return 4 * m * n**2 - 4 * n**3 // 3


def _svd(a: Shape, *_: Any, **__: Any) -> int:
    m, n = max(a), min(a)
    return 6 * m * n**2 + 20 * n**3


def _eigh(a: Shape, *_: Any, **__: Any) -> int:
    return 9 * int(a[-1]) ** 3
