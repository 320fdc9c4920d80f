"""The later layers as a function of the hidden state at the subject: what is decoded, at what loss.

All of it runs in the weights' own precision, whatever the edit was optimised in.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rose_easyedit.forward.replay import Replay


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


def _log_probabilities(replay: Replay, hidden: Tensor) -> Tensor:
    return replay.log_probabilities(hidden - replay.subject_hidden.float())


def _mean_per_query(replay: Replay, values: Tensor) -> Tensor:
    """The mean [B] of values [M] over the target tokens of each query."""
    n_queries = len(replay.hidden)
    total = values.new_zeros(n_queries).index_add(0, replay.rows, values)
    return total / torch.bincount(replay.rows, minlength=n_queries)
