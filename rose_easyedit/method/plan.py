"""From requests to queries: what is learned, where keys are read, and which contexts are usable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from rose_easyedit.errors import FactError
from rose_easyedit.hparams import RoSEHyperParams
from rose_easyedit.method.forms import essence_form, statement_forms, subject_forms
from rose_easyedit.method.tokens import Query
from rose_easyedit.requests import EditRequest, group_by_subject

# In place of a target: the hidden state of this column shall stay.
STAY = -1


@dataclass(frozen=True)
class Plan:
    """The queries of a batch.

    Attributes:
        requests: the facts.
        subjects: subject to the indices of its requests.
        statements: per request, its contexts with the target behind them.
        essences: per subject, the query whose answer shall stay.
        asked: per subject, the chat queries that name no relation.
    """

    requests: Sequence[EditRequest]
    subjects: dict[str, list[int]]
    statements: Sequence[Sequence[Query]]
    essences: dict[str, Query]
    asked: dict[str, list[Query]]

    @property
    def queries(self) -> list[Query]:
        """All queries, in the order that `without_sinks` expects their hidden states in."""
        statements = [query for queries in self.statements for query in queries]
        asked = [query for queries in self.asked.values() for query in queries]
        return [*statements, *asked]

    def only(self, kept: Sequence[int]) -> Plan:
        """The plan with some of its requests, by index in ascending order, numbered anew.

        The subjects that remain keep their order.
        """
        number = {index: place for place, index in enumerate(kept)}
        subjects = {
            subject: [number[index] for index in indices if index in number]
            for subject, indices in self.subjects.items()
        }
        subjects = {subject: indices for subject, indices in subjects.items() if indices}
        return Plan(
            requests=[self.requests[index] for index in kept],
            subjects=subjects,
            statements=[self.statements[index] for index in kept],
            essences={subject: self.essences[subject] for subject in subjects},
            asked={subject: self.asked[subject] for subject in subjects},
        )


def make_plan(
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[EditRequest],
    hparams: RoSEHyperParams,
    context_length: int,
    rewritten: Sequence[Sequence[str]] | None = None,
) -> Plan:
    """Renders and tokenises every form of every request.

    Args:
        tokenizer: the model's tokenizer.
        requests: the facts.
        hparams: which forms there are.
        context_length: most tokens that the model reads.
        rewritten: per request, the model's own rewritings of it.

    Raises:
        FactError: with every request that does not fit the model's context.
    """
    subjects = group_by_subject(requests)
    plan = Plan(
        requests=requests,
        subjects=subjects,
        statements=[
            [
                form.tokenize(tokenizer, request.subject, request.target_new)
                for form in statement_forms(tokenizer, request, hparams, texts)
            ]
            for request, texts in zip(requests, rewritten or [()] * len(requests), strict=True)
        ],
        essences={s: essence_form(s).tokenize(tokenizer, s) for s in subjects},
        asked={
            s: [form.tokenize(tokenizer, s) for form in subject_forms(tokenizer, s, hparams)]
            for s in subjects
        },
    )
    faults = []
    for request, queries in zip(requests, plan.statements, strict=True):
        longest = max(len(query.ids) for query in queries)
        if longest > context_length:
            faults.append(
                f"{request.label}: {longest} tokens with its target and longest context, the model "
                f"reads {context_length}; shorten the prompt"
            )
    if faults:
        raise FactError.of("These requests are too long for the model:", faults)
    return plan


def without_sinks(
    plan: Plan, hidden: Tensor, median_norm: float, ratio: float
) -> tuple[Plan, Tensor, list[str]]:
    """Leaves out the contexts whose subject is an attention sink.

    A sink (the first token of a text, often) has a hidden norm many times the usual: no shift
    there changes an answer, and its key would dominate the solve. A state that is not finite is
    none: the loss of its fact will not be finite either, and tells what is wrong.

    Args:
        plan: all queries.
        hidden: residual stream at the subject of each of `plan.queries`, [Q, d].
        median_norm: of the residual stream over ordinary tokens.
        ratio: a norm above this many medians is a sink.

    Returns:
        The usable plan, the rows of `hidden` that belong to its queries, and what was left out.

    Raises:
        FactError: with every fact that has no usable context.
    """
    norms = (hidden.norm(dim=1) / median_norm).tolist()
    usable = [norm <= ratio or not isfinite(norm) for norm in norms]
    place = 0

    def keep(queries: Sequence[Query]) -> list[Query]:
        nonlocal place
        kept = [query for i, query in enumerate(queries) if usable[place + i]]
        place += len(queries)
        return kept

    statements = [keep(queries) for queries in plan.statements]
    asked = {subject: keep(queries) for subject, queries in plan.asked.items()}
    faults, log = [], []
    place = 0
    for index, (request, queries) in enumerate(zip(plan.requests, plan.statements, strict=True)):
        highest = max(norms[place : place + len(queries)])
        place += len(queries)
        if not statements[index]:
            faults.append(
                f"{request.label}: hidden norm {highest:.1f} times the median in every context; "
                "put words before the subject, or name the subject in full"
            )
        elif len(statements[index]) < len(queries):
            left_out = len(queries) - len(statements[index])
            log.append(
                f"{request.label}: the subject is an attention sink (hidden norm {highest:.1f} "
                f"times the median) in {left_out} of {len(queries)} contexts, which are left out"
            )
    for subject, queries in plan.asked.items():
        if left_out := len(queries) - len(asked[subject]):
            log.append(
                f"subject {subject!r}: an attention sink in {left_out} of {len(queries)} chat "
                "queries, which are left out"
            )
    if faults:
        raise FactError.of("The subject is an attention sink, where no edit takes hold:", faults)
    rows = torch.tensor(usable, device=hidden.device).nonzero()[:, 0]
    return replace(plan, statements=statements, asked=asked), rows, log


@dataclass(frozen=True)
class Columns:
    """Key columns: N places whose hidden states an edit sets or preserves.

    Attributes:
        queries: one a column.
        target: index of the value that each column shall get, [N]; STAY keeps what it has.
        statement: whether a column comes from a statement, [N].
    """

    queries: list[Query]
    target: Tensor
    statement: Tensor


def make_columns(plan: Plan, per_fact: bool, preserved: Sequence[Query] = ()) -> Columns:
    """Every different text up to a subject, once per target, and then what shall stay.

    Args:
        plan: the usable queries.
        per_fact: whether each fact has a target of its own, instead of each subject.
        preserved: queries about other subjects, whose hidden states shall stay.
    """
    places: dict[tuple[tuple[int, ...], int], tuple[Query, bool]] = {}
    for number, (subject, indices) in enumerate(plan.subjects.items()):
        for index in indices:
            target = index if per_fact else number
            for query in (each for form in plan.statements[index] for each in form.mentions):
                places.setdefault((query.key_prefix, target), (query, True))
        for query in plan.asked[subject]:
            for target in indices if per_fact else [number]:
                places.setdefault((query.key_prefix, target), (query, False))
    return Columns(
        queries=[*(query for query, _ in places.values()), *preserved],
        target=torch.tensor([target for _, target in places] + [STAY] * len(preserved)),
        statement=torch.tensor(
            [statement for _, statement in places.values()] + [False] * len(preserved)
        ),
    )
