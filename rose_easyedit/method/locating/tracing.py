"""Causal tracing: after which layers does the last subject token carry who is spoken of?

The state of that token is put, layer by layer, into a run about somebody else. Where this alone
brings the first subject's answer back, the later tokens read it there: a value set after such a
layer is read, one set after the layers where it fades comes too late.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rose_easyedit.forward.replay import capture
from rose_easyedit.models.architectures import EditableModel
from rose_easyedit.text.locate_subject import TokenQuery


@dataclass(frozen=True)
class Trace:
    """What patching the last subject token does, for n pairs of prompts.

    Attributes:
        answers: the model's own next token after the prompt itself, [n].
        clean: P(answer) in the prompt itself, [n].
        exchanged: P(answer) in the prompt about the other subject, [n].
        patched: the same with the state after each layer taken from the prompt itself,
            [n, n_layers].
    """

    answers: Tensor
    clean: Tensor
    exchanged: Tensor
    patched: Tensor

    @property
    def restored(self) -> Tensor:
        """Share of the lost probability that each layer brings back, over all pairs [n_layers]."""
        lost = (self.clean - self.exchanged).sum()
        return (self.patched - self.exchanged[:, None]).sum(0) / lost

    def band(self, least: float = 0.5) -> list[int]:
        """The layers that bring back at least this share."""
        return [layer for layer, share in enumerate(self.restored.tolist()) if share >= least]


@torch.no_grad()
def trace_subject(
    editable: EditableModel,
    pairs: Sequence[tuple[TokenQuery, TokenQuery]],
    batch: int = 64,
    progress: Callable[[int], object] | None = None,
) -> Trace:
    """Patches the last subject token's state, one layer at a time.

    The exchange of subjects, in place of ROME's noise, keeps every run within what the model was
    trained on (Zhang and Nanda, arXiv 2309.16042). A patch changes nothing before its layer and
    its token, so only what is behind both is run again.

    Args:
        editable: the model; call inside `activations.frozen`.
        pairs: a prompt, and the same prompt about another subject; targets are not read.
        batch: prompts per forward pass.
        progress: called with the number of pairs finished after each batch.
    """
    prompts, others = ([_untargeted(pair[side]) for pair in pairs] for side in (0, 1))
    own_answers, clean, exchanged, patched = [], [], [], []
    for start in range(0, len(pairs), batch):
        part = slice(start, start + batch)
        own, other = capture(editable, prompts[part], 0), capture(editable, others[part], 0)
        as_they_are = torch.zeros_like(own.subject_hidden)
        read = own.log_probabilities(as_they_are)
        answers = read.argmax(1, keepdim=True)
        own_answers.append(answers[:, 0].cpu())
        clean.append(_probability(read, answers))
        exchanged.append(_probability(other.log_probabilities(as_they_are), answers))
        by_layer = []
        for layer in range(editable.n_layers):
            if layer:
                own, other = own.advance(), other.advance()
            hidden = torch.cat([own.hidden[:, :1], other.hidden[:, 1:]], dim=1)
            read = replace(other, hidden=hidden).log_probabilities(as_they_are)
            by_layer.append(_probability(read, answers))
        patched.append(torch.stack(by_layer, dim=1))
        if progress is not None:
            progress(len(answers))
    return Trace(*map(torch.cat, (own_answers, clean, exchanged, patched)))


def _untargeted(query: TokenQuery) -> TokenQuery:
    return TokenQuery(query.ids[: len(query.ids) - query.n_target], query.subject, 0)


def _probability(log_probabilities: Tensor, answers: Tensor) -> Tensor:
    return log_probabilities.gather(1, answers)[:, 0].exp().cpu()
