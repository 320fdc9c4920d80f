"""What is asked beside an edit's facts, whosoever they are: neighbours, and the subject's rest."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from rose_easyedit.evaluation import measure
from rose_easyedit.evaluation.datasets import with_wrapped_forms
from rose_easyedit.evaluation.evaluate import Baseline, EvaluationSettings, evaluate_edit
from rose_easyedit.evaluation.facts import SUBJECT, Fact, LocalityPrompt, load_facts
from rose_easyedit.evaluation.kinds import Kinds
from rose_easyedit.evaluation.locality import default_locality, replaced_answers
from rose_easyedit.evaluation.metrics import words_kept

CAPITAL = Fact("Japan", "{} capital", "The capital of Japan is", "Madrid", "Tokyo")
PRODUCT = Fact("Toyota", "{} product", "The main product of Toyota is", "chocolate", "cars")
SETTINGS = EvaluationSettings(max_new_tokens=2, forms=("statement",))


def of_kind(prompts: list[LocalityPrompt], kind: str) -> list[LocalityPrompt]:
    return [prompt for prompt in prompts if prompt.kind == kind]


def test_kinds_are_known_by_the_subject_or_by_the_prompt() -> None:
    kinds = Kinds.read()
    assert kinds.of(CAPITAL) == "country" and kinds.of(PRODUCT) is None
    assert kinds.of(
        replace(CAPITAL, subject="Ruritania", prompt="The capital of Ruritania is")
    ) == ("country")
    assert {"Norway", "Japan"} < set(kinds.subjects["country"])
    assert all(len(of) == 5 for of in kinds.wordings.values())


def test_own_facts_have_neighbours_of_their_kind_in_their_own_prompts() -> None:
    (fact,) = with_wrapped_forms([CAPITAL])
    neighbours = of_kind(default_locality([fact]), "neighbour")
    assert LocalityPrompt("neighbour", "The capital of Norway is", False, "Norway") in neighbours
    chats = [p.text for p in neighbours if p.chat]
    assert 'What completes this sentence? "The capital of Norway is ..."' in chats
    assert not any("Japan" in p.text or "Oslo" in p.text for p in neighbours)
    # and of all kinds in the statement alone
    assert LocalityPrompt("neighbour", "The capital of chess is", False, "chess") in neighbours
    assert not any("chess" in text for text in chats)


def test_without_a_known_kind_the_neighbours_are_the_held_out_subjects() -> None:
    facts = [PRODUCT, Fact("Lego", "{} city", "Lego is made in", "Rome", "Billund")]
    neighbours = of_kind(default_locality(facts), "neighbour")
    assert LocalityPrompt("neighbour", "Kodak is made in", False, "Kodak") in neighbours
    assert not any("Lego" in p.text for p in neighbours)
    assert len(neighbours) == 2 * (44 - 1)


def test_there_are_as_many_as_an_interval_needs_and_no_more() -> None:
    facts = [Fact(f"Mr {n}", f"{{}} {n}", f"Mr {n} ate {n}", "a", "b") for n in range(300)]
    prompts = default_locality(facts)
    assert len(of_kind(prompts, "neighbour")) == 144
    asked = of_kind(prompts, SUBJECT)
    assert len(asked) == len({p.subject for p in asked}) == 200
    assert len(set(prompts)) == len(prompts)


def test_a_set_with_neighbours_of_its_own_gets_no_others() -> None:
    facts = load_facts("validation")[:2]
    prompts = default_locality(facts)
    assert len({p.subject for p in of_kind(prompts, "neighbour")}) == 6
    own = replace(PRODUCT, neighbours=("The main product of Ford is",))
    assert of_kind(default_locality([own]), "neighbour") == []


def test_queries_of_the_subject_ask_for_nothing_that_is_edited() -> None:
    texts = [p.text for p in of_kind(default_locality([CAPITAL]), SUBJECT)]
    assert "Tell me about Japan." in texts and "What currency is used in Japan?" in texts
    assert not any("capital" in text for text in texts)
    assert len(texts) == 9 + 2 * 4
    bundled = next(f for f in load_facts() if f.relation == "currency")
    assert not any("currency" in p.text for p in of_kind(default_locality([bundled]), SUBJECT))
    unknown = of_kind(default_locality([PRODUCT]), SUBJECT)
    assert len(unknown) == 9 and all("Toyota" in p.text for p in unknown)


@pytest.mark.parametrize(
    ("truth", "said", "answer", "gone"),
    [
        ("Tokyo", " Kyoto.", "Tokyo is large", True),
        ("Tokyo", " Kyoto.", "Kyoto is old", False),
        ("", " Kyoto, which", "Kyoto is old", True),
        ("", "", "Kyoto is old", False),
    ],
)
def test_what_a_fact_replaces(truth: str, said: str, answer: str, gone: bool) -> None:
    replaced = replaced_answers([replace(CAPITAL, ground_truth=truth)], lambda fact: said)
    assert replaced.are_in(answer) == gone


def test_queries_that_contradict_a_fact_are_left_out_and_the_rest_answered(
    tiny_llama: Any, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    locality = [
        LocalityPrompt("unrelated", "Two and two is", False),
        LocalityPrompt(SUBJECT, "Japan's largest city is", False, "Japan"),
        LocalityPrompt(SUBJECT, "People in Japan speak", False, "Japan"),
        LocalityPrompt(SUBJECT, "Tell me about Toyota.", True, "Toyota"),
    ]
    said = {
        "The capital of Japan is": " Tokyo.",
        "The main product of Toyota is": " cars.",
        "Japan's largest city is": " Tokyo.",
        "People in Japan speak": " Japanese and English",
        "Tell me about Toyota.": "A company.",
    }
    monkeypatch.setattr(
        measure, "generate_greedy", lambda model, tokenizer, texts, **_: [said[t] for t in texts]
    )
    facts = [CAPITAL, PRODUCT]
    baseline = Baseline.of(tiny_llama, tiny_tokenizer, facts, locality=locality, settings=SETTINGS)
    said["People in Japan speak"] = " Spanish and English"
    with torch.no_grad():
        tiny_llama.model.layers[1].mlp.down_proj.weight.mul_(-20)
    result = evaluate_edit(tiny_llama, tiny_tokenizer, facts[:1], baseline=baseline)
    assert [prompt.text for prompt in result.locality] == [
        "Two and two is",
        "People in Japan speak",
    ]
    assert result.texts[0] is None
    of_subject = result.summary()["locality"][SUBJECT]
    assert of_subject["words_kept"] == pytest.approx(2 / 3) and of_subject["kl"] > 0.01
    assert of_subject["subject_kept"] == 1.0  # it had not been named before either
    both = evaluate_edit(tiny_llama, tiny_tokenizer, facts, baseline=baseline)
    assert both.summary()["locality"][SUBJECT]["prompts"] == 2
    assert both.summary()["locality"]["all"]["prompts"] == 1


@pytest.mark.parametrize(
    ("before", "after", "kept"),
    [("a b c", "C, a!", 2 / 3), ("a a a", "a", 1.0), ("", "a", 1.0), ("a", "", 0.0)],
)
def test_words_kept(before: str, after: str, kept: float) -> None:
    assert words_kept(before, after) == pytest.approx(kept)
