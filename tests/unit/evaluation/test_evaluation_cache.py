"""The unedited model is asked once; a file that is damaged or of another question is not used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rose_easyedit.cache.entries import Cache, CacheEntry
from rose_easyedit.evaluation import cache
from rose_easyedit.evaluation.cache import default_folder, measure_once
from rose_easyedit.evaluation.evaluate import Baseline, evaluate_edit
from rose_easyedit.evaluation.facts import Fact, LocalityPrompt
from rose_easyedit.evaluation.measure import Measurement, Questions, measure
from rose_easyedit.evaluation.settings import EvaluationSettings

FACTS = [
    Fact(
        "Marie Curie",
        "city",
        "Marie Curie was born in",
        "London",
        "Warsaw",
        questions=("Where was Marie Curie born?",),
    ),
    Fact("Isaac Newton", "job", "Isaac Newton worked as a", "physicist", "astronomer"),
]
LOCALITY = [
    LocalityPrompt("unrelated", "Paris is", False),
    LocalityPrompt("neighbour", "Who is Ada Lovelace?", True),
]
SETTINGS = EvaluationSettings(max_new_tokens=3, batch_size=2, locality_text=True)
QUESTIONS = Questions.of(FACTS, LOCALITY, SETTINGS)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry each time that a model is really asked."""
    log: list[str] = []

    def counting(*args: Any) -> Measurement:
        log.append(args[-1])
        return measure(*args)

    monkeypatch.setattr(cache, "measure", counting)
    return log


def same(one: Measurement, other: Measurement) -> bool:
    return (
        one.answers == other.answers
        and one.readings == other.readings
        and one.locality_answers == other.locality_answers
        and torch.equal(one.logprobs, other.logprobs)
        and torch.equal(one.generic.logprobs, other.generic.logprobs)
        and torch.equal(one.generic.tokens, other.generic.tokens)
    )


def test_the_second_time_is_read_from_disk_bit_for_bit(
    tiny_llama: Any, tiny_tokenizer: Any, tmp_path: Path, asked: list[str]
) -> None:
    folder = tmp_path / "new" / "folder"
    first = measure_once(tiny_llama, tiny_tokenizer, QUESTIONS, SETTINGS, "before", folder)
    again = measure_once(tiny_llama, tiny_tokenizer, QUESTIONS, SETTINGS, "before", folder)
    assert asked == ["before"]
    assert same(first, again)
    assert [path.suffix for path in folder.iterdir()] == [".safetensors"]


def test_whatever_changes_an_answer_changes_the_key(
    tiny_llama: Any, tiny_tokenizer: Any, tmp_path: Path, asked: list[str]
) -> None:
    import copy
    from dataclasses import replace

    other_tokenizer = copy.deepcopy(tiny_tokenizer)
    other_tokenizer.chat_template = "{{ messages[0]['content'] }}"
    other_target = replace(FACTS[0], target_new="Rome")
    short = replace(SETTINGS, max_new_tokens=2)
    asks = [
        (tiny_tokenizer, QUESTIONS, SETTINGS),
        (other_tokenizer, QUESTIONS, SETTINGS),
        (tiny_tokenizer, Questions.of(FACTS[:1], LOCALITY, SETTINGS), SETTINGS),
        (tiny_tokenizer, Questions.of([other_target, FACTS[1]], LOCALITY, SETTINGS), SETTINGS),
        (tiny_tokenizer, Questions.of(FACTS, LOCALITY[:1], SETTINGS), SETTINGS),
        (tiny_tokenizer, QUESTIONS, short),
    ]
    for number, (tokenizer, questions, settings) in enumerate(asks, start=1):
        measure_once(tiny_llama, tokenizer, questions, settings, "before", tmp_path)
        assert len(asked) == number
    with torch.no_grad():
        tiny_llama.model.layers[1].mlp.down_proj.weight.mul_(2)
    measure_once(tiny_llama, tiny_tokenizer, QUESTIONS, SETTINGS, "before", tmp_path)
    assert len(asked) == len(asks) + 1
    tiny_llama.config.rope_parameters["rope_theta"] = 5.0
    measure_once(tiny_llama, tiny_tokenizer, QUESTIONS, SETTINGS, "before", tmp_path)
    assert len(asked) == len(asks) + 2


def test_a_token_of_its_own_in_what_is_asked_changes_the_key(
    tiny_llama: Any, tiny_tokenizer: Any, tmp_path: Path, asked: list[str]
) -> None:
    import copy

    tiny_llama.resize_token_embeddings(len(tiny_tokenizer) + 1)
    measure_once(tiny_llama, tiny_tokenizer, QUESTIONS, SETTINGS, "before", tmp_path)
    for n_asked, added in enumerate((QUESTIONS.queries[0].text, QUESTIONS.targets[0][1]), start=2):
        tokenizer = copy.deepcopy(tiny_tokenizer)
        tokenizer.add_tokens([added])
        measure_once(tiny_llama, tokenizer, QUESTIONS, SETTINGS, "before", tmp_path)
        assert len(asked) == n_asked


@pytest.mark.parametrize("damage", ["cut", "answer", "number", "empty"])
def test_a_damaged_file_is_noticed_and_replaced(
    tiny_llama: Any,
    tiny_tokenizer: Any,
    tmp_path: Path,
    asked: list[str],
    damage: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = measure_once(tiny_llama, tiny_tokenizer, QUESTIONS, SETTINGS, "before", tmp_path)
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    at = content.index(b"answers") if damage == "answer" else len(content) - 3
    changed = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
    path.write_bytes({"cut": content[:-40], "empty": b""}.get(damage, changed))
    again = measure_once(tiny_llama, tiny_tokenizer, QUESTIONS, SETTINGS, "before", tmp_path)
    assert len(asked) == 2 and same(first, again)
    assert "computed again" in caplog.text
    measure_once(tiny_llama, tiny_tokenizer, QUESTIONS, SETTINGS, "before", tmp_path)
    assert len(asked) == 2


def test_a_failed_write_leaves_no_file_and_is_no_obstacle(
    tiny_llama: Any,
    tiny_tokenizer: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    measured = measure_once(tiny_llama, tiny_tokenizer, QUESTIONS, SETTINGS, "before", tmp_path)
    assert measured.answers and list(tmp_path.iterdir()) == []
    assert "disk full" in caplog.text


def test_a_baseline_from_disk_gives_the_same_result(
    tiny_llama: Any, tiny_tokenizer: Any, tmp_path: Path, asked: list[str]
) -> None:
    results = []
    for _ in range(2):
        baseline = Baseline.of(
            tiny_llama, tiny_tokenizer, FACTS, locality=LOCALITY, settings=SETTINGS, cache=tmp_path
        )
        results.append(evaluate_edit(tiny_llama, tiny_tokenizer, FACTS, baseline=baseline))
    assert results[0].as_dict() == results[1].as_dict()
    assert len(asked) == 1


def test_the_default_folder_is_in_the_users_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROSE_EASYEDIT_CACHE", str(tmp_path / "cache"))
    assert default_folder() == tmp_path / "cache" / "evaluation"
    assert not default_folder().exists()


def test_an_entry_under_another_key_is_not_used(
    tiny_llama: Any, tiny_tokenizer: Any, tmp_path: Path, asked: list[str]
) -> None:
    first = measure_once(tiny_llama, tiny_tokenizer, QUESTIONS, SETTINGS, "before", tmp_path)
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    with torch.no_grad():
        tiny_llama.lm_head.weight.mul_(-1)
    measure_once(tiny_llama, tiny_tokenizer, QUESTIONS, SETTINGS, "before", tmp_path)
    (other,) = set(tmp_path.iterdir()) - {path}
    other.write_bytes(content)
    again = measure_once(tiny_llama, tiny_tokenizer, QUESTIONS, SETTINGS, "before", tmp_path)
    assert len(asked) == 3 and not same(first, again)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("answers", [1, 2, 3]),
        ("answers", {"a": 1}),
        ("readings", [{"accuracy": "x", "logprob": 0.0}]),
        ("readings", [{"accuracy": 0.0}]),
        ("readings", 3),
        ("locality_answers", [1, 2]),
        ("locality_answers", None),
        ("logprobs", torch.zeros(2)),
        ("logprobs", torch.zeros(2, 5, dtype=torch.float64)),
        ("generic", torch.zeros(3)),
        ("generic_tokens", torch.full((4,), 10**6)),
        ("generic_tokens", torch.zeros(4, dtype=torch.bfloat16)),
    ],
)
def test_an_odd_entry_whose_checksum_is_right_is_not_used(
    name: str, value: Any, tiny_llama: Any, tiny_tokenizer: Any, tmp_path: Path, asked: list[str]
) -> None:
    first = measure_once(tiny_llama, tiny_tokenizer, QUESTIONS, SETTINGS, "before", tmp_path)
    (path,) = tmp_path.iterdir()
    entries = Cache(tmp_path)
    record, tensors = entries.read(path.stem, lambda entry: (entry.record, dict(entry.tensors)))
    (tensors if isinstance(value, torch.Tensor) else record)[name] = value
    entries.write(path.stem, CacheEntry(tensors, record))
    again = measure_once(tiny_llama, tiny_tokenizer, QUESTIONS, SETTINGS, "before", tmp_path)
    assert len(asked) == 2 and same(first, again)
