"""The queries of a diagnosis, their subjects located and read in the unedited model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from rose_easyedit.errors import RoSEError
from rose_easyedit.evaluation.facts import Fact
from rose_easyedit.forward.activations import read_subject_states
from rose_easyedit.method.contexts import statement_forms
from rose_easyedit.method.prepared import Prepared
from rose_easyedit.method.stage1.sinks import usual_norm
from rose_easyedit.text.chat import Arguments, find_content, render_turn
from rose_easyedit.text.locate_subject import TokenQuery, tokenize
from rose_easyedit.text.token_ids import check_ids


@dataclass(frozen=True)
class Place:
    """A query of a fact, and where its subject ends.

    Attributes:
        fact: index of the fact.
        form: of the query.
        text: as a user asks it.
        chat: whether the text is put into the chat template.
        query: the rendered text as token ids, the subject located.
    """

    fact: int
    form: str
    text: str
    chat: bool
    query: TokenQuery


@dataclass(frozen=True)
class Probe:
    """What the unedited model holds at the subject of Q queries about F facts.

    Attributes:
        places: the usable queries, Q.
        contexts: per fact, all its usable contexts of stage 1 with the target behind them, F.
        layer: the target layer.
        keys: input of that layer's down projection at each query's subject, [Q, d_ff].
        hidden: residual stream after it there, [Q, d].
        log: what was left out.
    """

    places: list[Place]
    contexts: list[list[TokenQuery]]
    layer: int
    keys: Tensor
    hidden: Tensor
    log: list[str]

    @property
    def queries(self) -> list[TokenQuery]:
        """The queries of the places, Q."""
        return [place.query for place in self.places]

    @property
    def statements(self) -> list[TokenQuery]:
        """The first usable context of each fact: the bare statement, unless it is a sink, F."""
        return [queries[0] for queries in self.contexts]


def locate(
    tokenizer: PreTrainedTokenizerBase,
    facts: Sequence[Fact],
    arguments: Arguments | None = None,
) -> tuple[list[Place], list[str]]:
    """Every query of the facts that can be located, and what was left out.

    The subject's last occurrence counts, in the query itself and not in what the chat template
    puts around it.

    Args:
        tokenizer: the model's tokenizer.
        facts: F facts.
        arguments: what the chat template is told (`chat.arguments_used`).
    """
    places: list[Place] = []
    no_template: list[str] = []
    no_subject: list[str] = []
    for index, fact in enumerate(facts):
        for asked in fact.queries:
            if asked.chat and tokenizer.chat_template is None:
                no_template.append(asked.text)
            elif fact.subject not in asked.text:
                no_subject.append(asked.text)
            else:
                query = _tokenized(tokenizer, asked.text, fact.subject, asked.chat, arguments)
                places.append(Place(index, asked.form, asked.text, asked.chat, query))
    log = [
        f"{len(texts)} queries are left out, since {reason} ({texts[0]!r}, ...)"
        for texts, reason in (
            (no_template, "the tokenizer has no chat template"),
            (no_subject, "they do not name their subject"),
        )
        if texts
    ]
    return places, log


def read_probe(prepared: Prepared, facts: Sequence[Fact]) -> Probe:
    """Reads the unedited model at every query, and leaves out those whose subject is a sink.

    Args:
        prepared: the unedited model, and the settings of the edit: contexts, target layer, and
            what counts as a sink; call inside `activations.frozen`.
        facts: F facts.

    Raises:
        RoSEError: with every fact whose subject is a sink in every context, or when no query is
            left.
    """
    editable, tokenizer, hparams = prepared.editable, prepared.tokenizer, prepared.hparams
    places, log = locate(tokenizer, facts, hparams.template_arguments)
    requests = [fact.to_request() for fact in facts]
    contexts = [  # the very contexts of stage 1
        [
            form.tokenize(tokenizer, request.subject, request.target_new)
            for form in statement_forms(tokenizer, request, hparams)
        ]
        for request in requests
    ]
    asked_ids = (place.query.ids for place in places)
    check_ids(editable.model, [*asked_ids, *(q.ids for queries in contexts for q in queries)])
    states = read_subject_states(
        editable,
        [*(p.query for p in places), *(q for queries in contexts for q in queries)],
        key_layer=hparams.target_layer,
        hidden_layer=hparams.target_layer,
        batch=hparams.micro_batch,
    )
    usual = usual_norm(prepared)
    usable = (states.hidden.norm(dim=1) <= hparams.sink_ratio * usual).tolist()
    asked = torch.tensor(usable[: len(places)], dtype=torch.bool, device=states.keys.device)
    marks = iter(usable[len(places) :])
    contexts = [[query for query in queries if next(marks)] for queries in contexts]
    if faults := [f"{f.prompt!r}" for f, usable in zip(facts, contexts, strict=True) if not usable]:
        raise RoSEError.of(
            "The subject is an attention sink in every context of these facts; put words before "
            "the subject, or raise sink_ratio:",
            faults,
        )
    kept = [place for place, ok in zip(places, asked.tolist(), strict=True) if ok]
    if len(kept) < len(places):
        log.append(
            f"{len(places) - len(kept)} queries are left out, since their subject is an attention "
            f"sink (hidden norm more than {hparams.sink_ratio:g} times the median)"
        )
    if not kept:
        raise RoSEError.of("No query of these facts can be measured:", log)
    keys, hidden = (each[: len(places)][asked] for each in (states.keys, states.hidden))
    return Probe(kept, contexts, hparams.target_layer, keys, hidden, log)


def _tokenized(
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    subject: str,
    chat: bool,
    arguments: Arguments | None,
) -> TokenQuery:
    if not chat:
        return tokenize(tokenizer, text, subject)
    rendered = render_turn(tokenizer, text, arguments)
    window = find_content(rendered, text)
    return tokenize(tokenizer, rendered, subject, special=False, window=window)
