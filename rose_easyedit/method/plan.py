"""From requests to queries: what is learned, and where keys are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rose_easyedit.config.hparams import RoSEHyperParams
from rose_easyedit.errors import FactError
from rose_easyedit.method.contexts import essence_form, statement_forms, subject_forms
from rose_easyedit.requests import EditRequest, group_by_subject
from rose_easyedit.text.locate_subject import TokenQuery
from rose_easyedit.text.token_ids import check_ids, ids_fault


@dataclass(frozen=True)
class Plan:
    """The queries of a batch.

    Attributes:
        requests: the facts.
        subjects: subject to the indices of its requests.
        statements: per request, its contexts with the target behind them.
        kept: per subject, the queries whose answers shall stay, at least one.
        asked: per subject, the chat queries that name no relation.
    """

    requests: Sequence[EditRequest]
    subjects: dict[str, list[int]]
    statements: Sequence[Sequence[TokenQuery]]
    kept: dict[str, list[TokenQuery]]
    asked: dict[str, list[TokenQuery]]

    @property
    def queries(self) -> list[TokenQuery]:
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
            kept={subject: self.kept[subject] for subject in subjects},
            asked={subject: self.asked[subject] for subject in subjects},
        )


def make_plan(
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[EditRequest],
    hparams: RoSEHyperParams,
    context_length: int,
) -> Plan:
    """Renders and tokenises every form of every request; the essences alone are kept.

    Args:
        tokenizer: the model's tokenizer.
        requests: the facts.
        hparams: which forms there are.
        context_length: most tokens that the model reads.

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
                for form in statement_forms(tokenizer, request, hparams)
            ]
            for request in requests
        ],
        kept={s: [essence_form(s).tokenize(tokenizer, s)] for s in subjects},
        asked={
            s: [form.tokenize(tokenizer, s) for form in subject_forms(tokenizer, s, hparams)]
            for s in subjects
        },
    )
    faults = []
    for request, queries in zip(requests, plan.statements, strict=True):
        longest = max(queries, key=lambda query: len(query.ids))
        if (n := len(longest.ids)) > context_length:
            part = "target" if 2 * longest.n_target > n else "prompt"
            faults.append(
                f"{request.label}: {n} tokens with its longest context, {longest.n_target} of them "
                f"of its target, the model reads {context_length}; shorten the {part}"
            )
    if faults:
        raise FactError.of("These requests are too long for the model:", faults)
    return plan


def check_tokens(model: PreTrainedModel, plan: Plan) -> None:
    """Refuses a plan with tokens that the model does not have.

    Raises:
        FactError: with every request whose own contexts have such tokens.
        RoSEError: only what an edit adds to the requests has them.
    """
    faults = [
        f"{request.label}: {fault}"
        for request, queries in zip(plan.requests, plan.statements, strict=True)
        if (fault := ids_fault(model, (query.ids for query in queries)))
    ]
    if faults:
        raise FactError.of("These requests cannot be put to the model:", faults)
    check_ids(model, (query.ids for query in plan.queries))
    check_kept(model, plan)


def check_kept(model: PreTrainedModel, plan: Plan) -> None:
    """As `check_tokens`, of what is kept alone.

    Raises:
        RoSEError: it has tokens that the model does not have.
    """
    check_ids(model, (query.ids for queries in plan.kept.values() for query in queries))


@dataclass(frozen=True)
class Columns:
    """Key columns: N places whose hidden states an edit sets, and P whose hidden states shall stay.

    Attributes:
        queries: one a column that moves.
        target: index of the value that each of them shall get, [N].
        statement: whether a column comes from a statement, [N].
        preserved: one a column that stays.
    """

    queries: Sequence[TokenQuery]
    target: Tensor
    statement: Tensor
    preserved: Sequence[TokenQuery]


def make_columns(plan: Plan, per_fact: bool, preserved: Sequence[TokenQuery] = ()) -> Columns:
    """Every different text up to a subject, once per target, and what shall stay.

    Args:
        plan: the usable queries.
        per_fact: whether each fact has a target of its own, instead of each subject.
        preserved: queries about other subjects, whose hidden states shall stay.
    """
    places: dict[tuple[tuple[int, ...], int], tuple[TokenQuery, bool]] = {}
    for number, (subject, indices) in enumerate(plan.subjects.items()):
        for index in indices:
            target = index if per_fact else number
            for query in (each for form in plan.statements[index] for each in form.mentions):
                places.setdefault((query.key_prefix, target), (query, True))
        for query in plan.asked[subject]:
            for target in indices if per_fact else [number]:
                places.setdefault((query.key_prefix, target), (query, False))
    return Columns(
        queries=[query for query, _ in places.values()],
        target=torch.tensor([target for _, target in places], device="cpu"),
        statement=torch.tensor([stated for _, stated in places.values()], device="cpu"),
        preserved=preserved,
    )
