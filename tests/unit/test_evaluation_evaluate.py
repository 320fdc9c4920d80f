"""What counts as a success, whose fault a failure is, and how far a model moved."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from rose_easyedit.evaluation import evaluate
from rose_easyedit.evaluation.evaluate import (
    Baseline,
    EvaluationSettings,
    bootstrap_interval,
    evaluate_edit,
)
from rose_easyedit.evaluation.facts import Fact, LocalityPrompt

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
SETTINGS = EvaluationSettings(max_new_tokens=2, batch_size=2)


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


def test_records_tell_success_old_answers_and_interference(
    tiny_llama: Any, tiny_tokenizer: Any, baseline: Baseline, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {
        "Marie Curie was born in": " London, they say",
        "The birthplace of Marie Curie is": " Warsaw",
        "Where was Marie Curie born?": "In Germany.",
        "Name the birthplace of Marie Curie.": "Londoners know.",
        "The mother tongue of Marie Curie is": " Germany's own",
        "What does Marie Curie speak?": "Polish in London",
        "Isaac Newton worked as a": " physicist and astronomer",
    }
    monkeypatch.setattr(
        evaluate, "generate_greedy", lambda model, tokenizer, texts, **_: [said[t] for t in texts]
    )
    result = evaluate_edit(tiny_llama, tiny_tokenizer, FACTS, baseline=baseline)
    seen = [(r.form, r.success, r.old_answer, r.other_target) for r in result.records]
    assert seen == [
        ("statement", True, False, False),
        ("paraphrase", False, True, False),
        ("question", False, False, True),
        ("instruction", False, False, False),
        ("statement", True, False, False),
        ("question", False, True, True),
        ("statement", True, True, False),
    ]
    summary = result.summary()
    assert (summary["facts"], summary["subjects"]) == (3, 2)
    assert summary["forms"]["statement"]["success"] == 1.0
    assert summary["forms"]["statement"]["old_answer"] == pytest.approx(1 / 3)
    assert summary["forms"]["question"]["other_target"] == 1.0
    assert result.success() == pytest.approx(3 / 7)
    assert result.success("question", "instruction") == 0.0
    assert summary["locality"]["unrelated"]["prompts"] == 2
    assert json.loads(json.dumps(result.as_dict()))["records"][0]["target"] == "London"


def test_locality_rows_keep_the_order_of_their_prompts(
    tiny_llama: Any, tiny_tokenizer: Any, baseline: Baseline
) -> None:
    for prompt, row in zip(LOCALITY, baseline.logprobs, strict=True):
        alone = Baseline.of(
            tiny_llama, tiny_tokenizer, [], locality=[prompt], settings=SETTINGS
        ).logprobs
        torch.testing.assert_close(alone[0], row, atol=1e-5, rtol=1e-5)


def test_interval_draws_whole_subjects() -> None:
    alike = {str(i): [1.0, 0.0] for i in range(8)}
    assert bootstrap_interval(alike) == (0.5, 0.5)
    split = {str(i): [float(i % 2)] * 4 for i in range(8)}
    low, high = bootstrap_interval(split)
    assert low < 0.3 and high > 0.7
    assert bootstrap_interval(split) == (low, high)
