"""What counts as a success, whose fault a failure is, and how far a model moved."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from rose_easyedit.errors import RoSEError
from rose_easyedit.evaluation import measure
from rose_easyedit.evaluation.evaluate import (
    Baseline,
    EvaluationSettings,
    bootstrap_interval,
    evaluate_edit,
)
from rose_easyedit.evaluation.facts import Fact, LocalityPrompt, load_facts, make_fact
from rose_easyedit.evaluation.locality import bundled_locality
from rose_easyedit.evaluation.records import other_facts
from rose_easyedit.evaluation.report import render_report
from rose_easyedit.evaluation.result import EvaluationResult

FACTS = [
    Fact(
        subject="Marie Curie",
        relation="city",
        prompt="Marie Curie was born in",
        target_new="London",
        ground_truth="Warsaw",
        paraphrases=("The birthplace of Marie Curie is",),
        questions=("Where was Marie Curie born?",),
        instructions=("Name the birthplace of Marie Curie.",),
    ),
    Fact(
        subject="Marie Curie",
        relation="language",
        prompt="The mother tongue of Marie Curie is",
        target_new="German",
        ground_truth="Polish",
        target_aliases=("Germany",),
        questions=("What does Marie Curie speak?",),
    ),
    Fact("Isaac Newton", "job", "Isaac Newton worked as a", "physicist", "astronomer"),
]
LOCALITY = [
    LocalityPrompt("neighbour", "Ada Lovelace lived in", False),
    LocalityPrompt("unrelated", "Who is Ada Lovelace?", True),
    LocalityPrompt("unrelated", "Paris is", False),
]
SETTINGS = EvaluationSettings(max_new_tokens=2, batch_size=2, locality_text=True)


@pytest.fixture
def baseline(tiny_llama: Any, tiny_tokenizer: Any) -> Baseline:
    return Baseline.of(tiny_llama, tiny_tokenizer, FACTS, locality=LOCALITY, settings=SETTINGS)


def test_the_unedited_model_has_not_moved(
    tiny_llama: Any, tiny_tokenizer: Any, baseline: Baseline
) -> None:
    result = evaluate_edit(tiny_llama, tiny_tokenizer, FACTS, baseline=baseline)
    assert [record.answer for record in result.records] == [r.before for r in result.records]
    assert result.kl == pytest.approx([0.0] * 3, abs=1e-6) and all(result.top1)


def test_a_changed_model_has_moved(
    tiny_llama: Any, tiny_tokenizer: Any, baseline: Baseline
) -> None:
    with torch.no_grad():
        tiny_llama.model.layers[1].mlp.down_proj.weight.mul_(-20)
    result = evaluate_edit(tiny_llama, tiny_tokenizer, FACTS, baseline=baseline)
    assert min(result.kl) > 0.01
    with torch.no_grad():
        tiny_llama.model.layers[1].mlp.down_proj.weight.div_(-20)
    again = evaluate_edit(tiny_llama, tiny_tokenizer, FACTS, baseline=baseline)
    assert max(again.kl) < 1e-6


SAID = {
    "Marie Curie was born in": " the town of London",
    "The birthplace of Marie Curie is": " Warsaw",
    "Where was Marie Curie born?": "In Germany.",
    "Name the birthplace of Marie Curie.": "Londoners know.",
    "The mother tongue of Marie Curie is": " Germany's own",
    "What does Marie Curie speak?": "Polish in London",
    "Isaac Newton worked as a": " physicist and astronomer",
    "Ada Lovelace lived in": " the city of London",
    "Who is Ada Lovelace?": "A mathematician.",
    "Paris is": " a city",
}


def say(monkeypatch: pytest.MonkeyPatch, said: dict[str, str]) -> None:
    """Puts these answers into the model's mouth."""
    monkeypatch.setattr(
        measure, "generate_greedy", lambda model, tokenizer, texts, **_: [said[t] for t in texts]
    )


def test_records_tell_success_old_answers_and_interference(
    tiny_llama: Any, tiny_tokenizer: Any, baseline: Baseline, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(monkeypatch, SAID)
    result = evaluate_edit(tiny_llama, tiny_tokenizer, FACTS, baseline=baseline)
    seen = [
        (r.form, r.success, r.exact_prefix, r.old_answer, r.other_target) for r in result.records
    ]
    assert seen == [
        ("statement", True, False, False, False),
        ("paraphrase", False, False, True, False),
        ("question", False, False, False, True),
        ("instruction", False, False, False, False),
        ("statement", True, True, False, False),
        ("question", False, False, True, True),
        ("statement", True, True, True, False),
    ]
    summary = result.summary()
    assert (summary["facts"], summary["subjects"]) == (3, 2)
    assert summary["forms"]["statement"]["success"] == 1.0
    assert summary["forms"]["statement"]["old_answer"] == pytest.approx(1 / 3)
    assert summary["forms"]["question"]["other_target"] == 1.0
    assert result.success() == pytest.approx(3 / 7)
    assert result.success("question", "instruction") == 0.0
    assert summary["locality"]["unrelated"]["prompts"] == 2
    assert {n: of["subjects"] for n, of in summary["facts_per_subject"].items()} == {1: 1, 2: 1}
    assert summary["facts_per_subject"][2]["success"] == pytest.approx(2 / 6)
    data = json.loads(json.dumps(result.as_dict(), allow_nan=False))
    assert data["records"][0]["target"] == "London"
    assert data["settings"]["max_new_tokens"] == 2


def asked_alike(
    model: Any, tokenizer: Any, facts: list[Fact], monkeypatch: pytest.MonkeyPatch, answer: str
) -> EvaluationResult:
    """An evaluation in which every query is answered alike."""
    monkeypatch.setattr(
        measure, "generate_greedy", lambda model, tokenizer, texts, **_: [answer] * len(texts)
    )
    baseline = Baseline.of(model, tokenizer, facts, locality=[], settings=SETTINGS)
    return evaluate_edit(model, tokenizer, facts, baseline=baseline)


def test_a_fact_in_two_records_is_not_its_own_interference(
    tiny_llama: Any, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    twice = [replace(FACTS[0], paraphrases=(text,)) for text in ("Marie Curie is of", "Born, she")]
    result = asked_alike(tiny_llama, tiny_tokenizer, twice, monkeypatch, " London")
    assert result.success() == 1.0
    assert not any(record.other_target for record in result.records)
    assert result.edited == {"Marie Curie": 1}


@pytest.mark.parametrize(
    ("answer", "interferes"),
    [(" New York City", False), (" Big Apple, no doubt", False), (" Gotham", True)],
)
def test_a_right_answer_is_no_interference_though_it_names_another_target(
    answer: str, interferes: bool, tiny_llama: Any, tiny_tokenizer: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    born, speaks = (
        replace(FACTS[0], target_new="New York City", target_aliases=("Big Apple",)),
        replace(FACTS[1], target_new="New York", target_aliases=("Apple", "Gotham")),
    )
    result = asked_alike(tiny_llama, tiny_tokenizer, [born, speaks], monkeypatch, answer)
    assert {r.other_target for r in result.records if r.relation == "city"} == {interferes}
    assert any(r.other_target for r in result.records if r.relation == "language") is not interferes


def test_a_true_answer_that_names_an_edited_target_is_kept_and_no_interference(
    tiny_llama: Any, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = [replace(FACTS[0], target_new="Polish"), FACTS[1]]
    say(monkeypatch, dict.fromkeys(SAID, " Polish"))
    baseline = Baseline.of(tiny_llama, tiny_tokenizer, facts, locality=[], settings=SETTINGS)
    result = evaluate_edit(tiny_llama, tiny_tokenizer, facts[:1], baseline=baseline)
    assert result.others and all(other.kept for other in result.others)
    assert not any(other.edited_target for other in result.others)


def test_teacher_forcing_and_its_gap_stand_beside_success(
    tiny_llama: Any, tiny_tokenizer: Any, baseline: Baseline, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(monkeypatch, SAID)
    result = evaluate_edit(tiny_llama, tiny_tokenizer, FACTS, baseline=baseline)
    assert [r.reading for r in result.records] == [r.reading_before for r in result.records]
    for form, totals in result.summary()["forms"].items():
        readings = [r.reading for r in result.records if r.form == form]
        accuracy = sum(reading.accuracy for reading in readings) / len(readings)
        assert totals["teacher_forcing"] == pytest.approx(accuracy)
        assert totals["gap"] == pytest.approx(totals["success"] - accuracy)
        assert 0 < totals["target_probability"] < 1
        assert totals["target_logprob"] < 0


def test_answers_to_locality_prompts_are_compared(
    tiny_llama: Any, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(monkeypatch, SAID)
    baseline = Baseline.of(tiny_llama, tiny_tokenizer, FACTS, locality=LOCALITY, settings=SETTINGS)
    say(monkeypatch, SAID | {"Paris is": " a town"})
    result = evaluate_edit(tiny_llama, tiny_tokenizer, FACTS, baseline=baseline)
    locality = result.summary()["locality"]
    assert locality["neighbour"]["same_text"] == locality["neighbour"]["shared_text"] == 1.0
    assert locality["unrelated"]["same_text"] == 0.5
    assert 0.5 < locality["unrelated"]["shared_text"] < 1.0
    assert result.as_dict()["locality"][2]["answer"] == " a town"


def test_what_is_not_asked_for_is_absent(tiny_llama: Any, tiny_tokenizer: Any) -> None:
    settings = EvaluationSettings(max_new_tokens=1, teacher_forcing=False)
    baseline = Baseline.of(tiny_llama, tiny_tokenizer, FACTS, locality=[], settings=settings)
    summary = evaluate_edit(tiny_llama, tiny_tokenizer, FACTS, baseline=baseline).summary()
    assert summary["forms"]["statement"]["teacher_forcing"] is None
    assert summary["forms"]["statement"]["gap"] is None
    nothing = summary["locality"]["all"]
    assert nothing.pop("prompts") == 0 and set(nothing.values()) == {None}
    assert summary["r_specificity"] is None


def test_other_facts_of_an_edited_subject_should_be_kept(
    tiny_llama: Any, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = SAID | {
        "Marie Curie was born in": " Warsaw",
        "The birthplace of Marie Curie is": " Warsaw",
        "Where was Marie Curie born?": "Warsaw, in Poland",
        "Name the birthplace of Marie Curie.": "I do not know.",
    }
    say(monkeypatch, true)
    baseline = Baseline.of(tiny_llama, tiny_tokenizer, FACTS, locality=[], settings=SETTINGS)
    say(monkeypatch, true | {"The birthplace of Marie Curie is": " German"})
    ask = partial(evaluate_edit, tiny_llama, tiny_tokenizer, baseline=baseline)
    specificity = ask([FACTS[1]]).summary()["r_specificity"]
    assert (specificity["facts"], specificity["queries"], specificity["known"]) == (1, 4, 3)
    assert specificity["kept"] == pytest.approx(2 / 3)
    assert specificity["edited_target"] == pytest.approx(1 / 3)
    # nothing else is said of Newton, and a fact that was edited as well is no other fact
    assert ask([FACTS[2]]).summary()["r_specificity"] is None
    both = ask([FACTS[1]], edited=FACTS[:2])
    assert both.others == () and both.summary()["facts_per_subject"].keys() == {2}


def test_an_edited_fact_in_other_words_is_no_other_fact() -> None:
    born, speaks, works = FACTS
    candidates = [
        replace(born, relation="birthplace", ground_truth="Poland"),
        replace(born, prompt="Marie Curie comes from", relation="birthplace"),
        replace(born, prompt="Marie Curie comes from", ground_truth="Poland"),
        speaks,
        works,
    ]
    assert other_facts(candidates, [born]) == [speaks]
    assert other_facts(candidates, [born, speaks]) == []


def test_success_is_reported_beside_what_the_model_answers_natively(
    tiny_llama: Any, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = SAID | {"What does Marie Curie speak?": "German"}
    say(monkeypatch, said)
    native = {("city", "question"): 0.4, ("language", "question"): 0.8}
    baseline = Baseline.of(
        tiny_llama, tiny_tokenizer, FACTS, locality=[], settings=SETTINGS, native=native
    )
    result = evaluate_edit(tiny_llama, tiny_tokenizer, FACTS, baseline=baseline)
    question = result.summary()["forms"]["question"]
    assert question["success"] == 0.5
    assert question["headline"]["success"] == 1.0
    assert question["headline"]["normalised"] == pytest.approx(1 / 0.8)
    assert question["headline"]["not_native"] == ["city (question)"]
    statement = result.summary()["forms"]["statement"]["headline"]
    assert (statement["queries"], statement["normalised"]) == (3, None)
    assert result.summary()["headline"]["queries"] == 6


def test_a_broken_model_is_seen_in_generic_text(
    tiny_llama: Any, tiny_tokenizer: Any, baseline: Baseline
) -> None:
    whole = evaluate_edit(tiny_llama, tiny_tokenizer, FACTS, baseline=baseline).summary()
    assert whole["locality"]["generic"]["kl"] == pytest.approx(0.0, abs=1e-6)
    assert whole["fluency"]["perplexity"] == pytest.approx(whole["fluency"]["perplexity_before"])
    with torch.no_grad():
        tiny_llama.model.layers[1].mlp.down_proj.weight.mul_(-20)
    broken = evaluate_edit(tiny_llama, tiny_tokenizer, FACTS, baseline=baseline).summary()
    assert broken["locality"]["generic"]["kl"] > 0.01
    assert broken["fluency"]["perplexity"] != pytest.approx(whole["fluency"]["perplexity"])
    assert broken["locality"]["all"]["prompts"] == len(LOCALITY)


def test_numbers_that_are_not_finite_are_null_in_json(
    tiny_llama: Any, tiny_tokenizer: Any, baseline: Baseline
) -> None:
    with torch.no_grad():
        tiny_llama.model.norm.weight.fill_(float("nan"))
    result = evaluate_edit(tiny_llama, tiny_tokenizer, FACTS, baseline=baseline)
    data = json.loads(json.dumps(result.as_dict(), allow_nan=False))
    assert data["summary"]["fluency"]["perplexity"] is None


def test_a_fact_that_the_baseline_was_not_asked_for_is_refused(
    tiny_llama: Any, tiny_tokenizer: Any, baseline: Baseline
) -> None:
    other = Fact("Ada Lovelace", "city", "Ada Lovelace lived in", "Rome", "London")
    with pytest.raises(RoSEError, match="'Ada Lovelace lived in' -> 'Rome'"):
        evaluate_edit(tiny_llama, tiny_tokenizer, [*FACTS, other], baseline=baseline)


def test_an_evaluation_of_nothing_is_refused(
    tiny_llama: Any, tiny_tokenizer: Any, baseline: Baseline
) -> None:
    with pytest.raises(RoSEError, match="no fact to ask .* give at least one"):
        evaluate_edit(tiny_llama, tiny_tokenizer, [], baseline=baseline)


def test_forms_in_which_nothing_was_asked_are_named_or_none(
    tiny_llama: Any, tiny_tokenizer: Any, baseline: Baseline
) -> None:
    result = evaluate_edit(tiny_llama, tiny_tokenizer, FACTS, baseline=baseline)
    with pytest.raises(RoSEError, match="asked as multi-turn chat; asked was statement, para"):
        result.success("multi-turn chat")
    settings = EvaluationSettings(max_new_tokens=1, forms=("question",))
    newton = FACTS[2:]
    asked = Baseline.of(tiny_llama, tiny_tokenizer, newton, locality=[], settings=settings)
    empty = evaluate_edit(tiny_llama, tiny_tokenizer, newton, baseline=asked)
    summary = empty.summary()
    assert (summary["facts"], summary["forms"]) == (0, {})
    assert summary["headline"]["success"] is summary["fluency"]["ngram_entropy"] is None
    with pytest.raises(RoSEError, match="asked was nothing"):
        empty.success()
    render_report({**empty.as_dict(), "title": "", "model": "", "notes": []})


def test_bundled_locality_leaves_out_edited_subjects_and_foreign_relations() -> None:
    kepler = make_fact("country", "Johannes Kepler", target_new="Japan", ground_truth="Germany")
    foreign = Fact("Isaac Newton", "shoe size", "Isaac Newton's shoe size is", "12", "9")
    texts = [prompt.text for prompt in bundled_locality([kepler, foreign])]
    assert not any("Kepler" in text for text in texts)
    assert any("Jane Austen" in text for text in texts)
    assert bundled_locality([foreign]) and bundled_locality(load_facts("test"))


def test_locality_rows_keep_the_order_of_their_prompts(
    tiny_llama: Any, tiny_tokenizer: Any, baseline: Baseline
) -> None:
    for prompt, row in zip(LOCALITY, baseline.measured.logprobs, strict=True):
        alone = Baseline.of(
            tiny_llama, tiny_tokenizer, [], locality=[prompt], settings=SETTINGS
        ).measured.logprobs
        torch.testing.assert_close(alone[0], row, atol=1e-5, rtol=1e-5)


def test_interval_draws_whole_subjects() -> None:
    alike = {str(i): [1.0, 0.0] for i in range(8)}
    assert bootstrap_interval(alike) == (0.5, 0.5)
    split = {str(i): [float(i % 2)] * 4 for i in range(8)}
    low, high = bootstrap_interval(split)
    assert low < 0.3 and high > 0.7
    assert bootstrap_interval(split) == (low, high)


@pytest.mark.parametrize("values", [{}, {"Curie": [1.0, 0.0]}, {"Curie": [1.0], "Newton": []}])
def test_one_subject_says_nothing_of_others(values: dict[str, list[float]]) -> None:
    assert bootstrap_interval(values) is None
