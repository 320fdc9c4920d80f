"""Causal tracing: after which layers does the last subject token carry who is spoken of?

The state of that token is put, layer by layer, into a run about somebody else. Where this alone
brings the first subject's answer back, the later tokens read it there: a value set after such a
layer is read, one set after the layers where it fades comes too late.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rose_easyedit.forward.replay import capture
from rose_easyedit.models.architectures import EditableModel
from rose_easyedit.text.locate_subject import TokenQuery

# A prompt, and the same prompt about another subject.
Pair = tuple[TokenQuery, TokenQuery]


@dataclass(frozen=True)
class Trace:
    """What patching the last subject token does, for n pairs of prompts.

    Attributes:
        answers: the model's own next token after the prompt itself, [n].
        clean: P(answer) in the prompt itself, [n].
        exchanged: P(answer) in the prompt about the other subject, [n].
        patched: the same with the state after each layer taken from the prompt itself,
            [n, n_layers]; NaN in a pair whose layers were not traced.
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
    pairs: Sequence[Pair],
    batch: int = 64,
    progress: Callable[[int], object] | None = None,
    telling: Callable[[Tensor, Tensor], Tensor] | None = None,
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
        telling: from the answers of n pairs and the probability that each loses, both [n], to
            whether its layers are traced, bool [n]; None traces all.
    """
    prompts = [(_untargeted(own), _untargeted(other)) for own, other in pairs]
    answers = torch.zeros(len(pairs), dtype=torch.long, device="cpu")
    clean, exchanged = torch.zeros(2, len(pairs), dtype=torch.float32, device="cpu")
    patched = torch.full(
        (len(pairs), editable.n_layers), torch.nan, dtype=torch.float32, device="cpu"
    )
    for part in _alike(prompts, range(len(pairs)), batch):
        own, other = (_read(editable, [prompts[i][side] for i in part]) for side in (0, 1))
        answers[part] = own.argmax(1).cpu()
        clean[part], exchanged[part] = (_probability(read, answers[part]) for read in (own, other))
    traced = list(range(len(pairs)))
    if telling is not None:
        traced = telling(answers, clean - exchanged).nonzero()[:, 0].tolist()
    tell = progress or (lambda _: None)
    tell(len(pairs) - len(traced))
    for part in _alike(prompts, traced, batch):
        patched[part] = _patched(editable, [prompts[i] for i in part], answers[part])
        tell(len(part))
    return Trace(answers, clean, exchanged, patched)


def _read(editable: EditableModel, queries: Sequence[TokenQuery]) -> Tensor:
    """Log-probabilities of the token that follows each of B prompts, [B, vocabulary]."""
    replay = capture(editable, queries, editable.n_layers - 1)
    return replay.read_out(replay.hidden[replay.rows, replay.columns])


def _patched(editable: EditableModel, pairs: Sequence[Pair], answers: Tensor) -> Tensor:
    """P(answer) of B pairs with the state after each layer exchanged, [B, n_layers]."""
    # of the prompt itself nothing behind its subject is read
    subjects = [TokenQuery(own.ids[: own.subject + 1], own.subject, 0) for own, _ in pairs]
    own, other = (capture(editable, q, 0) for q in (subjects, [other for _, other in pairs]))
    as_they_are = torch.zeros_like(other.subject_hidden)
    by_layer = []
    for layer in range(editable.n_layers):
        if layer:
            own, other = own.advance(), other.advance()
        hidden = torch.cat([own.hidden, other.hidden[:, 1:]], dim=1)
        read = replace(other, hidden=hidden).log_probabilities(as_they_are)
        by_layer.append(_probability(read, answers))
    return torch.stack(by_layer, dim=1)


def _alike(prompts: Sequence[Pair], chosen: Sequence[int], batch: int) -> Iterator[list[int]]:
    """The chosen pairs in batches of those that have about as many tokens behind the subject."""
    in_order = sorted(chosen, key=lambda i: max(len(q.ids) - q.subject for q in prompts[i]))
    for start in range(0, len(in_order), batch):
        yield in_order[start : start + batch]


def _untargeted(query: TokenQuery) -> TokenQuery:
    return TokenQuery(query.ids[: len(query.ids) - query.n_target], query.subject, 0)


def _probability(log_probabilities: Tensor, answers: Tensor) -> Tensor:
    chosen = answers[:, None].to(log_probabilities.device)
    return log_probabilities.gather(1, chosen)[:, 0].exp().cpu()
