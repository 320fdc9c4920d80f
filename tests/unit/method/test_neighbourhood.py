"""Preserved columns: which texts they are, and that what they hold stays."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import FACTS, build_model, settings

from rose_easyedit.forward.activations import frozen, read_subject_states, with_updates
from rose_easyedit.method import edit
from rose_easyedit.method.edit import compute_edit, solve_edit
from rose_easyedit.method.generic import generic_subjects, held_out_subjects
from rose_easyedit.method.neighbourhood import (
    frame,
    held_out_queries,
    neighbour_subjects,
    preserved_queries,
)
from rose_easyedit.method.plan import make_columns, make_plan
from rose_easyedit.method.stage1.targets import compute_targets
from rose_easyedit.models.architectures import read_architecture
from rose_easyedit.requests import EditRequest, as_requests

REQUESTS = as_requests(FACTS)


@pytest.fixture
def plain_tokenizer(tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(tiny_tokenizer, "chat_template", None)
    return tiny_tokenizer


def texts(tokenizer: Any, queries: list[Any]) -> list[str]:
    return [tokenizer.decode(query.key_prefix) for query in queries]


def test_they_are_the_edits_prompts_with_other_subjects(plain_tokenizer: Any) -> None:
    queries = preserved_queries(plain_tokenizer, REQUESTS, settings(), 300, 256)
    found = texts(plain_tokenizer, queries)
    assert 250 < len(found) == len(set(found)) <= 300
    beginnings = ("In London she met", "Tell me about", "He plays with")
    assert all(any(words in text for words in beginnings) for text in found)
    assert all(any(words in text for text in found) for words in beginnings)
    subjects = generic_subjects()
    assert all(any(text.endswith(subject) for subject in subjects) for text in found)
    assert not any("Curie" in text or "Lovelace" in text for text in found)


def test_with_a_chat_template_every_other_round_is_a_users_turn(tiny_tokenizer: Any) -> None:
    n = len(neighbour_subjects(generic_subjects(), REQUESTS))
    found = texts(
        tiny_tokenizer, preserved_queries(tiny_tokenizer, REQUESTS, settings(), 2 * n, 256)
    )
    in_turn = [text for text in found if "Complete the following sentence" in text]
    assert 0.4 < len(in_turn) / len(found) < 0.6


def test_they_depend_on_seed_and_prompts_but_not_on_the_order(plain_tokenizer: Any) -> None:
    first = preserved_queries(plain_tokenizer, REQUESTS, settings(), 50, 256)
    assert preserved_queries(plain_tokenizer, REQUESTS[::-1], settings(), 50, 256) == first
    assert preserved_queries(plain_tokenizer, REQUESTS, settings(seed=1), 50, 256) != first
    assert preserved_queries(plain_tokenizer, REQUESTS, settings(), 0, 256) == []


@pytest.mark.parametrize("name", ["Paris", "paris", "Paris Hilton"])
def test_what_is_edited_is_not_preserved(name: str) -> None:
    assert "Paris" in generic_subjects()
    requests = [EditRequest(f"{name} is in", name, "Rome")]
    assert neighbour_subjects(["Paris", "Madrid"], requests) == ["Madrid"]


def test_a_subject_of_one_letter_leaves_the_words_that_it_is_in() -> None:
    names = ["Paris", "Madrid", "A Tale of Two Cities"]
    requests = [EditRequest("A is in", "A", "Rome")]
    assert neighbour_subjects(names, requests) == ["Paris", "Madrid"]


def test_what_the_model_cannot_read_is_left_out(plain_tokenizer: Any) -> None:
    lengths = [len(q.ids) for q in preserved_queries(plain_tokenizer, REQUESTS, settings(), 90, 99)]
    limit = sorted(lengths)[len(lengths) // 2]
    short = preserved_queries(plain_tokenizer, REQUESTS, settings(), 90, limit)
    assert 0 < len(short) < len(lengths)
    assert max(len(query.key_prefix) for query in short) <= limit
    held_out = held_out_queries(plain_tokenizer, REQUESTS, settings(), 90, limit)
    assert held_out and max(len(query.ids) for query in held_out) <= limit


def test_a_prompt_that_just_fits_is_edited(tiny_tokenizer: Any) -> None:
    model = build_model("gpt2", n_positions=24)
    prompt = "In London she met Marie Curie"
    while len(tiny_tokenizer(f"In London {prompt} Polish")["input_ids"]) <= 24:
        prompt = f"In London {prompt}"
    hparams = settings(contexts=[""], alignment={"preserved_columns": 20})
    fact = {"prompt": prompt, "subject": "Marie Curie", "target_new": "Polish"}
    assert compute_edit(model, tiny_tokenizer, [fact], hparams).layers


def test_a_frame_is_the_prompt_around_its_subject() -> None:
    assert frame(EditRequest("The home of Romeo is Rome, says", "Rome", "x")) == (
        "The home of Romeo is ",
        ", says",
    )


def test_the_held_out_are_plain_statements(tiny_tokenizer: Any) -> None:
    found = held_out_queries(tiny_tokenizer, REQUESTS, settings(), 120, 256)
    assert not any("<|user|>" in tiny_tokenizer.decode(query.ids) for query in found)


def test_the_held_out_are_others(plain_tokenizer: Any) -> None:
    assert not set(generic_subjects()) & set(held_out_subjects())
    held_out = held_out_queries(plain_tokenizer, REQUESTS, settings(), 60, 256)
    assert 50 < len(held_out) == len(set(held_out)) <= 60
    found = [plain_tokenizer.decode(query.key_prefix) for query in held_out]
    assert all(any(text.endswith(subject) for subject in held_out_subjects()) for text in found)


def test_they_are_apart_from_the_columns_that_move(plain_tokenizer: Any) -> None:
    plan = make_plan(plain_tokenizer, REQUESTS, settings(), 256)
    queries = preserved_queries(plain_tokenizer, REQUESTS, settings(), 7, 256)
    without = make_columns(plan, per_fact=False)
    columns = make_columns(plan, per_fact=False, preserved=queries)
    assert queries and columns.preserved == queries and not without.preserved
    assert columns.queries == without.queries
    assert columns.target.tolist() == without.target.tolist()


@pytest.mark.parametrize("key_columns", ["per_query", "merged"])
def test_what_is_preserved_moves_less(key_columns: str, tiny_tokenizer: Any) -> None:
    model = build_model("llama-untied")
    editable = read_architecture(model)
    hparams = settings(key_columns=key_columns, alignment={"strength": 1e-3})
    targets = compute_targets(model, tiny_tokenizer, FACTS, hparams)
    queries = preserved_queries(tiny_tokenizer, REQUESTS, hparams, 12, 256)

    def hidden(n: int) -> torch.Tensor:
        delta = solve_edit(
            model,
            tiny_tokenizer,
            targets,
            hparams.with_overrides(alignment={"preserved_columns": n}),
        )
        updates = dict(zip(hparams.layers, delta.layers.values(), strict=True))
        with frozen(model), with_updates(editable, updates):
            return read_subject_states(
                editable, queries, key_layer=1, hidden_layer=1, batch=8
            ).hidden

    with frozen(model):
        before = read_subject_states(editable, queries, key_layer=1, hidden_layer=1, batch=8).hidden
    moved, kept = ((hidden(n) - before).norm(dim=1).mean() for n in (0, 12))
    assert kept < 0.4 * moved


def test_an_update_has_no_larger_rank_for_it(tiny_tokenizer: Any) -> None:
    model = build_model("llama-untied")
    ranks = []
    for n in (0, 24):
        hparams = settings(alignment={"preserved_columns": n})
        delta = compute_edit(model, tiny_tokenizer, FACTS, hparams)
        ranks.append([factors.rank for factors in delta.layers.values()])
    assert ranks[0] == ranks[1]


def test_the_report_says_how_far_they_were_moved(tiny_tokenizer: Any) -> None:
    model = build_model("llama-untied")
    editable = read_architecture(model)
    n = 12
    hparams = settings(layers=[0, 2], z_layer=2, alignment={"preserved_columns": n})
    delta = compute_edit(model, tiny_tokenizer, FACTS, hparams)
    queries = preserved_queries(tiny_tokenizer, as_requests(FACTS), hparams, n, 256)

    def hidden() -> torch.Tensor:
        return read_subject_states(editable, queries, key_layer=2, hidden_layer=2, batch=8).hidden

    with frozen(model):
        before = hidden()
        with delta.applied(model):
            moved = (hidden() - before).norm(dim=1).mean()
    assert delta.provenance.disturbance == pytest.approx(float(moved), rel=1e-3)


def test_without_any_nothing_is_said_of_them(tiny_tokenizer: Any) -> None:
    delta = compute_edit(build_model("llama-untied"), tiny_tokenizer, FACTS, settings())
    assert delta.provenance.disturbance is None


def test_columns_to_preserve_leave_directions_to_write_in(
    tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    own = edit.preserved_queries

    def spy(tokenizer: Any, requests: Any, hparams: Any, n: int, context_length: int) -> Any:
        asked.append(n)
        return own(tokenizer, requests, hparams, n, context_length)

    monkeypatch.setattr(edit, "preserved_queries", spy)
    for wanted in (30, 1000):
        hparams = settings(alignment={"preserved_columns": wanted})
        compute_edit(build_model("llama-untied"), tiny_tokenizer, FACTS, hparams)
    assert asked == [30, 2 * 64 // 3]
