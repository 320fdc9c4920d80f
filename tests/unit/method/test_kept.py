"""What an edit keeps of its subjects: which queries, what of their answers, and that they stay."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_integration import LAYER, WIDTH, decisive_model, run
from tiny_models import FACTS, build_model, same_weights, settings, weights_of

from rose_easyedit.errors import RoSEError
from rose_easyedit.forward.activations import frozen
from rose_easyedit.forward.replay import capture
from rose_easyedit.method import kept
from rose_easyedit.method.edit import compute_edit
from rose_easyedit.method.extend import extend
from rose_easyedit.method.kept import kept_queries
from rose_easyedit.method.stage1.integration import Group
from rose_easyedit.method.stage1.setting import Level
from rose_easyedit.method.stage1.targets import compute_targets
from rose_easyedit.models.architectures import read_architecture
from rose_easyedit.requests import EditRequest
from rose_easyedit.text.locate_subject import TokenQuery

CURIE = EditRequest("Marie Curie was born in", "Marie Curie", "London", "Warsaw")
LOVELACE = EditRequest("Ada Lovelace plays", "Ada Lovelace", "chess")


def answering(monkeypatch: pytest.MonkeyPatch, answers: dict[str, str]) -> None:
    """A model that answers texts which end in a key with its value, and all others with " so"."""

    def answer(_model: Any, tokenizer: Any, rows: list[list[int]], **_: Any) -> list[list[int]]:
        texts = tokenizer.batch_decode(rows)
        told = [next((a for t, a in answers.items() if t in text), " so") for text in texts]
        return [tokenizer(text, add_special_tokens=False).input_ids for text in told]

    monkeypatch.setattr(kept, "continue_greedily", answer)


def text_of(tokenizer: Any, query: TokenQuery) -> str:
    return tokenizer.decode(query.ids)


def test_the_essence_comes_first_then_beginnings_and_questions(
    tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, {})
    hparams = settings(kept_queries=2, kept_tokens=4)
    found = kept_queries(None, tiny_tokenizer, [CURIE, LOVELACE], hparams)  # type: ignore[arg-type]
    assert list(found) == ["Marie Curie", "Ada Lovelace"]
    texts = [text_of(tiny_tokenizer, query) for query in found["Marie Curie"]]
    assert len(texts) == 1 + 2 + 2 and len(set(texts)) == 5
    assert texts[0].endswith("Marie Curie is a so")
    assert sum("<|user|>" in text for text in texts) == 2
    assert all(query.n_target > 0 for query in found["Marie Curie"])
    assert all("London" not in text and "born" not in text for text in texts)


def test_without_a_chat_template_there_are_no_questions(
    tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, {})
    monkeypatch.setattr(tiny_tokenizer, "chat_template", None)
    found = kept_queries(None, tiny_tokenizer, [CURIE], settings(kept_queries=2))  # type: ignore[arg-type]
    assert len(found["Marie Curie"]) == 1 + 2


def test_an_answer_ends_before_what_a_fact_replaces(
    tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(
        monkeypatch,
        {
            "is a": " Polish woman of Warsaw, who",  # the request says that Warsaw goes
            "known for": " Warsaw.",  # nothing else is left of it
            "Ada Lovelace plays": " the violin",  # the model says it, no request does
            "Who or what is Ada": " a player of the violin and",
        },
    )
    hparams = settings(kept_queries=1, kept_tokens=8)
    found = kept_queries(None, tiny_tokenizer, [CURIE, LOVELACE], hparams)  # type: ignore[arg-type]
    curie = [text_of(tiny_tokenizer, query) for query in found["Marie Curie"]]
    assert curie[0].endswith("is a Polish woman of")
    assert not any("known for" in text for text in curie)
    lovelace = [text_of(tiny_tokenizer, query) for query in found["Ada Lovelace"]]
    assert lovelace[-1].endswith("a player of")


def test_the_first_stays_even_where_its_answer_goes(
    tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, {"Marie Curie": " Warsaw"})
    found = kept_queries(None, tiny_tokenizer, [CURIE], settings(kept_queries=3))  # type: ignore[arg-type]
    [first] = found["Marie Curie"]
    assert first.n_target == 0  # the next token alone


def test_every_token_of_a_kept_answer_drifts_less_when_it_costs() -> None:
    model = decisive_model()
    one = TokenQuery((20, 21, 22, 23), 2, 1)
    kept_ones = (TokenQuery((20, 21, 22), 2, 0), TokenQuery((30, 22, 40, 41, 42), 1, 3))
    group = [Group("a", ((one,),), kept_ones)]

    def drifts(kl_factor: float) -> list[float]:
        level = Level(20, 0.2)
        deltas = run(group, level, model=model, kl_factor=kl_factor, loss_threshold=0.0).deltas
        with frozen(model), torch.no_grad():
            replay = capture(read_architecture(model), kept_ones, LAYER)
            before = replay.log_probabilities(torch.zeros(2, WIDTH))
            after = replay.log_probabilities(deltas.expand(2, -1))
        return (before.exp() * (before - after)).sum(1).tolist()

    free, held = drifts(0.0), drifts(10.0)
    assert len(free) == 1 + 3
    assert all(less < more / 2 for less, more in zip(held, free, strict=True))


def test_an_edit_that_keeps_more_is_another_edit_and_leaves_the_model(tiny_tokenizer: Any) -> None:
    model = build_model("llama-untied")
    before = weights_of(model)
    edits = [
        compute_edit(model, tiny_tokenizer, FACTS, settings(kept_queries=n, kept_tokens=3))
        for n in (0, 2, 2)
    ]
    assert same_weights(model, before)
    assert edits[1].fingerprint == edits[2].fingerprint != edits[0].fingerprint


def test_what_is_too_long_is_refused_before_anything_is_generated(
    tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: Any, **_kwargs: Any) -> None:
        raise AssertionError("the model was asked to go on")

    monkeypatch.setattr(kept, "continue_greedily", fail)
    endless = {**FACTS[0], "prompt": "so " * 5000 + FACTS[0]["prompt"]}
    with pytest.raises(RoSEError, match="too long for the model"):
        compute_targets(
            build_model("llama-untied"), tiny_tokenizer, [endless], settings(kept_queries=2)
        )


def test_subjects_whose_targets_are_at_hand_are_not_asked_again(
    tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    go_on = kept.continue_greedily

    def spy(model: Any, tokenizer: Any, rows: list[list[int]], **more: Any) -> list[list[int]]:
        asked.extend(tokenizer.batch_decode(rows))
        return go_on(model, tokenizer, rows, **more)

    model, hparams = build_model("llama-untied"), settings(kept_queries=1)
    curie = [fact for fact in FACTS if fact["subject"] == "Marie Curie"]
    others = [fact for fact in FACTS if fact not in curie]
    first = compute_edit(model, tiny_tokenizer, curie, hparams)
    monkeypatch.setattr(kept, "continue_greedily", spy)
    extend(model, tiny_tokenizer, first, others)
    assert others and asked and not any("Marie Curie" in text for text in asked)
