"""The plan of a batch: which queries there are, which are usable, and which become columns."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from tiny_models import FACTS, build_model, settings
from torch import Tensor

from rose_easyedit.errors import RoSEError
from rose_easyedit.forward.activations import frozen
from rose_easyedit.method.edit import compute_edit
from rose_easyedit.method.generic import generic_lines
from rose_easyedit.method.plan import Plan, make_columns, make_plan
from rose_easyedit.method.prepared import Prepared
from rose_easyedit.method.stage1.sinks import usual_norm, without_sinks
from rose_easyedit.models.architectures import read_architecture
from rose_easyedit.requests import EditRequest, as_requests

REQUESTS = as_requests(
    [
        {"prompt": "Marie Curie was born in", "subject": "Marie Curie", "target_new": "London"},
        {"prompt": "Ada Lovelace was born in", "subject": "Ada Lovelace", "target_new": "Paris"},
        {
            "prompt": "The mother tongue of Marie Curie is",
            "subject": "Marie Curie",
            "target_new": "Spanish",
        },
    ]
)


def plan_for(tokenizer: Any, **overrides: Any) -> Plan:
    return make_plan(tokenizer, REQUESTS, settings(**overrides), 256)


def hidden_with_norms(plan: Plan, norms: dict[int, float], usual: float = 1.0) -> Tensor:
    """Hidden states [Q, 4] of the usual norm, but for some queries."""
    hidden = torch.zeros(len(plan.queries), 4)
    hidden[:, 0] = usual
    for query, norm in norms.items():
        hidden[query, 0] = norm
    return hidden


def test_a_plan_groups_by_subject(tiny_tokenizer: Any) -> None:
    plan = plan_for(tiny_tokenizer, n_contexts=3, chat_contexts=1, query_formats=2)
    assert plan.subjects == {"Marie Curie": [0, 2], "Ada Lovelace": [1]}
    assert [len(queries) for queries in plan.statements] == [4, 4, 4]
    assert {s: len(queries) for s, queries in plan.asked.items()} == {
        "Marie Curie": 2,
        "Ada Lovelace": 2,
    }
    assert len(plan.queries) == 3 * 4 + 2 * 2
    assert all(query.n_target > 0 for queries in plan.statements for query in queries)
    assert set(plan.kept) == set(plan.subjects)


def test_all_requests_that_are_too_long_are_named_together(tiny_tokenizer: Any) -> None:
    long = [
        EditRequest(f"{n} " + "word " * n + "Marie Curie is", "Marie Curie", "Polish")
        for n in (2, 60, 3, 370)
    ]
    with pytest.raises(RoSEError) as caught:
        make_plan(tiny_tokenizer, long, settings(), 64)
    message = str(caught.value)
    named = [line for line in message.splitlines() if "(subject 'Marie Curie')" in line]
    assert [line.split(" word")[0] for line in named] == ["  - '60", "  - '370"]
    assert max(map(len, named)) < 500
    assert "the model reads 64; shorten the prompt" in message


def test_a_target_that_is_too_long_is_told_as_a_target(tiny_tokenizer: Any) -> None:
    long = [EditRequest("Marie Curie is", "Marie Curie", "so " * 100)]
    with pytest.raises(RoSEError, match="of its target, the model reads 64; shorten the target"):
        make_plan(tiny_tokenizer, long, settings(), 64)


def test_a_fault_has_no_number_that_its_giver_would_not_know(tiny_tokenizer: Any) -> None:
    """What was given twice is one request; its giver's list has other numbers."""
    long = {**FACTS[2], "prompt": "word " * 300 + FACTS[2]["prompt"]}
    with pytest.raises(RoSEError, match=r"\(subject 'Ada Lovelace'\): \d+ tokens") as caught:
        compute_edit(build_model("llama-tied"), tiny_tokenizer, [*FACTS[:1] * 3, long], settings())
    assert "request " not in str(caught.value)


def test_a_prompt_as_long_as_the_context_fits(tiny_tokenizer: Any) -> None:
    longest = max(len(query.ids) for query in plan_for(tiny_tokenizer).queries)
    make_plan(tiny_tokenizer, REQUESTS, settings(), longest)
    with pytest.raises(RoSEError, match=f"{longest} tokens .* the model reads {longest - 1}"):
        make_plan(tiny_tokenizer, REQUESTS, settings(), longest - 1)


def test_a_plan_without_sinks_stays(tiny_tokenizer: Any) -> None:
    plan = plan_for(tiny_tokenizer, query_formats=2)
    hidden = hidden_with_norms(plan, {0: 2.9})
    usable, rows, log = without_sinks(plan, hidden, 1.0, 3.0)
    assert usable == plan
    assert rows.tolist() == list(range(len(plan.queries)))
    assert log == []


def test_sinks_are_left_out_and_logged(tiny_tokenizer: Any) -> None:
    plan = plan_for(tiny_tokenizer, n_contexts=3, query_formats=2)
    # query 3 is request 1's bare statement, query 9 the first chat query of Marie Curie
    usable, rows, log = without_sinks(
        plan, hidden_with_norms(plan, {3: 80.0, 9: 50.0}, usual=2.0), 2.0, 3.0
    )
    assert [len(queries) for queries in usable.statements] == [3, 2, 3]
    assert usable.statements[1] == plan.statements[1][1:]
    assert usable.asked["Marie Curie"] == plan.asked["Marie Curie"][1:]
    assert rows.tolist() == [i for i in range(len(plan.queries)) if i not in (3, 9)]
    assert [plan.queries[i] for i in rows] == usable.queries
    assert len(log) == 2
    assert "subject 'Marie Curie': an attention sink in 1 of 2 chat queries" in log[1]
    assert log[0].startswith("'Ada Lovelace was born in' (subject 'Ada Lovelace'): ")
    assert "40.0 times the median" in log[0] and "1 of 3 contexts" in log[0]


def test_facts_without_a_usable_context_are_named_together(tiny_tokenizer: Any) -> None:
    plan = plan_for(tiny_tokenizer, n_contexts=2)
    hidden = hidden_with_norms(plan, {2: 9.0, 3: 12.0, 4: 7.0, 5: 8.0})
    with pytest.raises(RoSEError) as caught:
        without_sinks(plan, hidden, 1.0, 3.0)
    message = str(caught.value)
    assert "'Ada Lovelace was born in' (subject 'Ada Lovelace'): " in message
    assert "'The mother tongue of Marie Curie is' (subject 'Marie Curie'): " in message
    assert "'Marie Curie was born in'" not in message
    assert "12.0 times the median in every context; put words before the subject" in message


def test_columns_are_different_texts_up_to_the_subject(tiny_tokenizer: Any) -> None:
    plan = plan_for(tiny_tokenizer, n_contexts=2, query_formats=1)
    columns = make_columns(plan, per_fact=False)
    # statements that begin with the subject share their key with no other prompt's
    assert len(columns.queries) == 2 * 3 + 2
    assert columns.target.tolist() == [0, 0, 0, 0, 0, 1, 1, 1]
    assert columns.statement.tolist() == [True] * 4 + [False] + [True] * 2 + [False]
    places = zip([q.key_prefix for q in columns.queries], columns.target.tolist(), strict=True)
    assert len(set(places)) == 8


def test_statements_with_the_same_words_before_the_subject_share_columns(
    tiny_tokenizer: Any,
) -> None:
    requests = as_requests(
        [
            {"prompt": f"Marie Curie {verb}", "subject": "Marie Curie", "target_new": "London"}
            for verb in ("was born in", "works in", "lives in")
        ]
    )
    plan = make_plan(tiny_tokenizer, requests, settings(n_contexts=2), 256)
    assert len(make_columns(plan, per_fact=False).queries) == 2
    per_fact = make_columns(plan, per_fact=True)
    assert sorted(per_fact.target.tolist()) == [0, 0, 1, 1, 2, 2]


def test_both_mentions_of_an_answered_query_are_columns(tiny_tokenizer: Any) -> None:
    without = make_columns(plan_for(tiny_tokenizer, n_contexts=1), per_fact=False)
    columns = make_columns(plan_for(tiny_tokenizer, n_contexts=1, answered_queries=1), False)
    texts = [tiny_tokenizer.decode(query.key_prefix) for query in columns.queries]
    # asked once for a subject, whatever is said of it then
    assert sum("Tell me about" in text and "assistant" not in text for text in texts) == 2
    assert len(texts) == len(without.queries) + 2 + 3
    assert columns.statement.all()


def test_with_a_target_per_fact_queries_count_for_each(tiny_tokenizer: Any) -> None:
    plan = plan_for(tiny_tokenizer, n_contexts=1, query_formats=1)
    columns = make_columns(plan, per_fact=True)
    asked = columns.target[~columns.statement]
    assert sorted(asked.tolist()) == [0, 1, 2]


@pytest.mark.parametrize("norm", [torch.inf, torch.nan])
def test_a_state_that_is_not_finite_is_no_sink(norm: float, tiny_tokenizer: Any) -> None:
    plan = plan_for(tiny_tokenizer)
    usable, rows, log = without_sinks(plan, hidden_with_norms(plan, {0: norm}), 1.0, 3.0)
    assert len(usable.queries) == len(rows) == len(plan.queries) and not log


def test_what_a_sink_is_does_not_depend_on_the_other_facts(tiny_tokenizer: Any) -> None:
    """`usual_norm` is the median over generic text, whatever is edited."""
    model = build_model("llama-untied")
    editable, hparams = read_architecture(model), settings()
    with frozen(model):
        usual = usual_norm(Prepared.of(model, tiny_tokenizer, hparams))
        lines = generic_lines(tiny_tokenizer, None, 512)
        norms = []
        for line in lines:
            hidden = model(torch.tensor([line]), output_hidden_states=True).hidden_states
            norms.append(hidden[hparams.target_layer + 1][0].norm(dim=1))
    assert sum(map(len, lines)) == 512
    assert hparams.target_layer + 1 < editable.n_layers  # the last state is behind the final norm
    assert usual == pytest.approx(float(torch.cat(norms).median()), rel=1e-4)


def test_an_edit_logs_its_sinks(tiny_tokenizer: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A tiny model in which one token is a sink: its embedding is a thousand times the usual."""
    model = build_model("llama-untied")
    (token,) = set(tiny_tokenizer("Marie")["input_ids"])
    fact = {"prompt": "Marie", "subject": "Marie", "target_new": "German"}
    with_words = {"prompt": "He met Marie", "subject": "Marie", "target_new": "German"}
    with torch.no_grad():
        model.model.embed_tokens.weight[token] *= 1000
        assert token not in tiny_tokenizer("He met Marie")["input_ids"]
    hparams = settings(contexts=["", "He plays with "], sink_ratio=10.0)
    with caplog.at_level(logging.WARNING, logger="rose_easyedit"):
        delta = compute_edit(model, tiny_tokenizer, [fact, with_words, FACTS[2]], hparams)
    (line,) = delta.provenance.log
    assert line.startswith("'Marie' (subject 'Marie'): ") and "1 of 2 contexts" in line
    assert line in caplog.text
    with pytest.raises(RoSEError, match="(?s)attention sink.*'Marie' .subject.*in every context"):
        compute_edit(model, tiny_tokenizer, [fact], settings(contexts=[""], sink_ratio=10.0))
