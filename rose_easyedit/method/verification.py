"""An edit measured before it is handed out: what of it was reached and written, and what drifts.

The losses of stage 1 are those of a shift that was put into the model by hand. Whether the updates
give that shift, whether the statement then follows, and what else moves is read from the model
with the updates in place.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from rose_easyedit.config.hparams import RoSEHyperParams
from rose_easyedit.edits.factors import Factors
from rose_easyedit.edits.provenance import SelfCheckRecord
from rose_easyedit.errors import DamageError
from rose_easyedit.forward.activations import hooked, with_updates
from rose_easyedit.forward.oom import within_memory
from rose_easyedit.forward.prefixes import Prefixes
from rose_easyedit.forward.replay import capture
from rose_easyedit.method.generic import generic_lines
from rose_easyedit.method.neighbourhood import held_out_queries
from rose_easyedit.method.prepared import Prepared
from rose_easyedit.method.self_check import CheckedFact, Drift, Measured, warnings_of
from rose_easyedit.method.stage1.targets import Targets
from rose_easyedit.method.stage2.drift import NextTokens
from rose_easyedit.models.architectures import EditableModel, first_tensor
from rose_easyedit.text.locate_subject import TokenQuery
from rose_easyedit.text.names import Names

logger = logging.getLogger(__name__)

# StopForward to tell a drift of tenths of a nat from one of several, for a few per cent of an edit.
_PROMPTS = 24
# Generic text is cut there, in the midst of a sentence, where much can follow.
_TEXT_TOKENS = 10
# Statements that are read at the most, but for one of each fact: all of an edit of a hundred facts.
_STATEMENTS = 600
# Statements whose prefixes are held at once, in micro-batches: as many as a turn of stage 1 has.
_MICRO_BATCHES = 4


def self_check(
    prepared: Prepared, targets: Targets, updates: Mapping[int, Factors]
) -> SelfCheckRecord:
    """What an edit says of itself, in its record; damage is warned of, or refused.

    Args:
        prepared: the unedited model and the settings; call inside `frozen`.
        targets: what the edit was to reach.
        updates: layer to its update, as it will be written.

    Raises:
        DamageError: the edit is damaged and the settings refuse that, with every damage found.
        RoSEError: as `measure`.
    """
    hparams = prepared.hparams
    measured = measure(prepared, targets, updates)
    labels = [request.label for request in targets.plan.requests]
    found = warnings_of(measured, targets.losses, labels, hparams.self_check)
    if found and hparams.on_damage == "refuse":
        raise DamageError.of("The edit is damaged, and on_damage is refuse:", found)
    for text in found:
        logger.warning("%s", text)
    limits = asdict(hparams.self_check)
    return SelfCheckRecord(**measured.as_dict(), limits=limits, warnings=found)


def measure(prepared: Prepared, targets: Targets, updates: Mapping[int, Factors]) -> Measured:
    """What an edit does to its own statements and to what it is not about.

    Args:
        prepared: the unedited model and the settings; call inside `frozen`.
        targets: what the edit was to reach.
        updates: layer to its update, as it will be written.

    Raises:
        RoSEError: the generic text cannot be read, or the memory does not hold one sequence.
    """
    editable, tokenizer, hparams = prepared.editable, prepared.tokenizer, prepared.hparams
    neighbours = held_out_queries(
        tokenizer, targets.plan.requests, hparams, _PROMPTS, editable.context_length
    )
    subjects = list(targets.plan.subjects)
    texts = {
        "generic": generic_texts(tokenizer, subjects, hparams, editable.context_length),
        "neighbours": [query.ids for query in neighbours],
    }
    with prepared.autocast():
        return Measured(
            facts=facts_written(editable, targets, updates, hparams),
            drift={
                name: drift_of(editable, some, updates, hparams.micro_batch)
                for name, some in texts.items()
                if some
            },
        )


def generic_texts(
    tokenizer: PreTrainedTokenizerBase,
    subjects: Sequence[str],
    hparams: RoSEHyperParams,
    context_length: int,
) -> list[tuple[int, ...]]:
    """The beginnings of some lines of the generic text, from all over it, as token ids.

    Args:
        tokenizer: the model's tokenizer.
        subjects: of the edit; a text that names one of them is none that should stay.
        hparams: which text it is.
        context_length: most tokens that the model reads.
    """
    alignment = hparams.alignment
    lines = generic_lines(tokenizer, alignment.statistics_text, alignment.statistics_tokens)
    longest = min(_TEXT_TOKENS, context_length)
    edited = Names.of(subjects)
    texts = dict.fromkeys(tuple(line[: min(longest, max(2, len(line) // 2))]) for line in lines)
    others = [text for text in texts if not edited.are_in(tokenizer.decode(text))]
    return others[:: max(1, len(others) // _PROMPTS)][:_PROMPTS]


def drift_of(
    editable: EditableModel,
    texts: Sequence[Sequence[int]],
    updates: Mapping[int, Factors],
    batch: int,
) -> Drift:
    """How far updates move the token after some texts, at least one."""
    moved, same = NextTokens(editable, texts, min(updates), batch).drift(updates)
    return Drift(float(moved.mean()), float(same.float().mean()), len(texts))


def facts_written(
    editable: EditableModel,
    targets: Targets,
    updates: Mapping[int, Factors],
    hparams: RoSEHyperParams,
) -> list[CheckedFact]:
    """What became of each fact of an edit, over the contexts that it was learned in.

    Of a large edit some contexts of each fact stand for all of them.
    """
    most = max(1, _STATEMENTS // len(targets.plan.statements))
    statements = [spread(contexts, most) for contexts in targets.plan.statements]
    unedited = torch.cat([states[:: _apart(len(states), most)] for states in targets.unedited])
    queries = [query for contexts in statements for query in contexts]  # C of all facts
    counts = [len(contexts) for contexts in statements]
    value_of = {index: n for n, group in enumerate(targets.groups) for index in group}
    wanted = torch.stack(
        [targets.values[value_of[i]] for i, count in enumerate(counts) for _ in range(count)]
    )
    with with_updates(editable, updates):
        after, losses, greedy = read_statements(
            editable, queries, hparams.target_layer, hparams.micro_batch
        )
    gone = share_of_way(unedited, after, wanted.to(after), targets.unit)
    return [
        CheckedFact(
            reached=float(of_fact.mean()),
            least_reached=float(of_fact.min()),
            written=float(loss.mean()),
            answered=bool(first[0]),  # the first context is the bare one, if it is usable
        )
        for of_fact, loss, first in zip(
            gone.split(counts), losses.split(counts), greedy.split(counts), strict=True
        )
    ]


def spread(contexts: Sequence[TokenQuery], most: int) -> Sequence[TokenQuery]:
    """Some of a fact's contexts, `most` at the most: the first, and others from all over them."""
    return contexts[:: _apart(len(contexts), most)]


def _apart(count: int, most: int) -> int:
    return -(-count // most)


def share_of_way(before: Tensor, after: Tensor, wanted: Tensor, unit: Tensor) -> Tensor:
    """How much of its way each state has gone: 0 where it was, 1 at the target's height, [N].

    Args:
        before: N states, [N, d].
        after: where they are now, [N, d].
        wanted: where they were to go, [N, d].
        unit: of each coordinate, [d] (`units.subject_unit`).
    """
    way, gone = (wanted - before) / unit, (after - before) / unit
    return (gone * way).sum(1) / way.square().sum(1)


@torch.no_grad()
def read_statements(
    editable: EditableModel, queries: Sequence[TokenQuery], layer: int, batch: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Statements with their targets, read by the model as it is.

    Args:
        editable: the model; call inside `frozen`.
        queries: N queries with targets.
        layer: after which the residual stream is read.
        batch: sequences at once; fewer where the memory does not hold them.

    Returns:
        The residual stream at each subject, [N, d]; -log P of a target token, the mean over those
        of each query, [N]; and whether each of them is the likeliest, [N].
    """
    order = sorted(range(len(queries)), key=lambda i: len(queries[i].ids) - queries[i].subject)
    back = sorted(range(len(order)), key=order.__getitem__)
    ordered = [queries[i] for i in order]

    def read(size: int) -> list[tuple[Tensor, Tensor, Tensor]]:
        return [
            _read(editable, ordered[start : start + size], prefixes, layer)
            for prefixes, starts in _shared(editable, ordered, size)
            for start in starts
        ]

    parts, _ = within_memory(read, batch)
    hidden, losses, greedy = (torch.cat(each)[back] for each in zip(*parts, strict=True))
    return hidden, losses, greedy


def _shared(
    editable: EditableModel, queries: Sequence[TokenQuery], size: int
) -> Iterator[tuple[Prefixes, range]]:
    """What comes before the subjects of some micro-batches, and where these begin."""
    for start in range(0, len(queries), _MICRO_BATCHES * size):
        some = queries[start : start + _MICRO_BATCHES * size]
        prefixes = Prefixes.read(editable, [query.key_prefix for query in some], size)
        yield prefixes, range(start, start + len(some), size)


def _read(
    editable: EditableModel, queries: Sequence[TokenQuery], prefixes: Prefixes, layer: int
) -> tuple[Tensor, Tensor, Tensor]:
    seen: list[Tensor] = []

    def keep(_module: nn.Module, _args: object, output: Tensor | tuple[Tensor, ...]) -> None:
        seen.append(first_tensor(output)[:, 0].float())  # rows begin at their subjects

    with hooked(lambda: [editable.layers[layer].register_forward_hook(keep)]):
        replay = capture(editable, queries, editable.n_layers - 1, prefixes)
    log_p = replay.read_out(replay.unshifted)  # [targets, vocabulary]
    chosen = log_p.gather(1, replay.targets[:, None])[:, 0]
    missed = (log_p.argmax(-1) != replay.targets).float()
    none = torch.zeros(len(queries), dtype=log_p.dtype, device=log_p.device)
    sums = partial(none.index_add, 0, replay.rows)
    counts = torch.bincount(replay.rows, minlength=len(queries))
    return seen[0], sums(-chosen) / counts, sums(missed) == 0
