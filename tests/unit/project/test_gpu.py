"""Edits on a CUDA device: a CPU's but for rounding, and the same bytes each time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload, disk_offload
from threaded_ranks import REQUESTS, together
from tiny_models import FACTS, MODELS, build_model, same_weights, settings, weights_of

from rose_easyedit.cli import main
from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.evaluation.evaluate import Baseline, EvaluationSettings, evaluate_edit
from rose_easyedit.evaluation.facts import load_facts, load_locality
from rose_easyedit.geometry.diagnosis import diagnose
from rose_easyedit.geometry.settings import DiagnosisSettings
from rose_easyedit.method.edit import compute_edit
from rose_easyedit.method.extend import extend, without
from rose_easyedit.method.stage1.store import ShiftStore

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")

GPU = torch.device("cuda", 0)


def brief(**values: Any) -> Any:
    """Few steps, so that rounding has no time to grow, with all that an edit has to do."""
    hierarchy = {"fact_steps": 3, "subject_steps": 3, "smoothing_radius": 0.1, "kl_factor": 0.1}
    alignment = {
        "protected_directions": 4,
        "statistics_tokens": 200,
        "preserved_columns": 8,
        "locality_budget": 1e3,
    }
    own = settings(n_contexts=3, query_formats=1, hierarchy=hierarchy, alignment=alignment)
    return own.with_overrides(**values)


@pytest.fixture(autouse=True)
def own_statistics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each device finds its own, and those of no other test."""
    monkeypatch.setenv("ROSE_EASYEDIT_CACHE", str(tmp_path / "cache"))


def assert_alike(found: EditDelta, wanted: EditDelta, tolerance: float) -> None:
    assert found.layers.keys() == wanted.layers.keys()
    for name, update in wanted.layers.items():
        dense = update.dense().cpu()
        assert float((found.layers[name].dense().cpu() - dense).norm() / dense.norm()) < tolerance


@pytest.mark.parametrize("name", list(MODELS))
def test_the_edit_is_that_of_the_cpu(name: str, tiny_tokenizer: Any) -> None:
    wanted = compute_edit(build_model(name), tiny_tokenizer, FACTS, brief())
    found = compute_edit(build_model(name).to(GPU), tiny_tokenizer, FACTS, brief())
    assert found.base == wanted.base
    assert_alike(found, wanted, 1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("precision", ["auto", "weights"])
def test_the_same_edit_has_the_same_bytes(
    precision: str,
    dtype: torch.dtype,
    tiny_tokenizer: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hparams = brief(
        precision=precision,
        chat_contexts=1,
        answered_queries=1,
        restatements=1,
        kept_queries=1,
        hierarchy={"fact_steps": 15, "subject_steps": 15, "context_batches": 2},
    )
    model = build_model("llama-untied", hidden_size=128, intermediate_size=256).to(GPU, dtype)
    facts = [fact.to_request() for fact in load_facts()[:24]]
    written = []
    for turn in ("first", "second", "third"):
        monkeypatch.setenv("ROSE_EASYEDIT_CACHE", str(tmp_path / f"cache of the {turn}"))
        delta = compute_edit(model, tiny_tokenizer, facts, hparams)
        written.append(delta.save(tmp_path / turn).read_bytes())
    assert written[0] == written[1] == written[2]


def test_an_edit_comes_off_to_the_bit_and_goes_on_a_cpu(
    tiny_tokenizer: Any, tmp_path: Path
) -> None:
    model = build_model("llama-untied").to(GPU)
    before = weights_of(model)
    delta = compute_edit(model, tiny_tokenizer, FACTS, settings())
    assert same_weights(model, before)
    read = EditDelta.load(delta.save(tmp_path / "edit"))
    with read.applied(model):
        edited = {name: weight.cpu() for name, weight in weights_of(model).items()}
        assert not same_weights(model, before)
    assert same_weights(model, before)
    on_cpu = build_model("llama-untied")
    with read.applied(on_cpu):
        for name, weight in on_cpu.state_dict().items():
            torch.testing.assert_close(weight, edited[name])


def test_an_edit_is_extended_with_targets_and_shifts_that_were_kept(
    tiny_tokenizer: Any, tmp_path: Path
) -> None:
    model, store = build_model("llama-untied").to(GPU), ShiftStore(tmp_path / "shifts")
    whole = compute_edit(model, tiny_tokenizer, FACTS, brief(), store)
    assert_alike(compute_edit(model, tiny_tokenizer, FACTS, brief(), store), whole, 1e-6)
    first = compute_edit(model, tiny_tokenizer, FACTS[:2], brief())
    read = EditDelta.load(first.save(tmp_path / "edit"))
    assert_alike(extend(model, tiny_tokenizer, read, FACTS[2:]), whole, 1e-4)
    assert_alike(without(model, tiny_tokenizer, whole, "Ada Lovelace"), first, 1e-4)


def test_ranks_find_the_edit_of_one_process(tiny_tokenizer: Any) -> None:
    models = [build_model("llama-untied").to(GPU) for _ in range(2)]
    alone = compute_edit(models[0], tiny_tokenizer, REQUESTS, brief())
    for delta in together(models, tiny_tokenizer, REQUESTS, brief()):
        assert_alike(delta, alone, 1e-3)


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_weights_that_come_from_elsewhere_give_the_same_edit(
    place: str, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    wanted = compute_edit(build_model("llama-untied").to(GPU), tiny_tokenizer, FACTS, brief())
    model = build_model("llama-untied")
    if place == "memory":
        cpu_offload(model, execution_device=GPU)
    else:
        disk_offload(model, tmp_path, execution_device=GPU)
    found = compute_edit(model, tiny_tokenizer, FACTS, brief())
    assert found.base == wanted.base
    assert_alike(found, wanted, 1e-6)
    if place == "memory":
        whole = build_model("llama-untied").to(GPU)
        ids = torch.tensor([[5, 6, 7, 8]], device=GPU)
        with torch.no_grad(), found.applied(model), wanted.applied(whole):
            torch.testing.assert_close(model(ids).logits, whole(ids).logits)


@pytest.fixture
def little_memory() -> Iterator[None]:
    """A device that holds 1 GiB."""
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(2**30 / torch.cuda.mem_get_info(GPU)[1])
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def test_a_device_that_is_too_small_takes_fewer_sequences_at_once(
    little_memory: None, tiny_tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    facts = [
        {"prompt": f"In {place} she met {name}", "subject": name, "target_new": "Polish German"}
        for name in ("Marie Curie", "Ada Lovelace", "Isaac Newton")
        for place in (f"{word} {number}" for word in ("London", "Paris") for number in range(300))
    ]
    model = build_model("llama-untied", vocab_size=50_000).to(GPU)
    hparams = brief(micro_batch=8192)
    halved = compute_edit(model, tiny_tokenizer, facts, hparams)
    assert "more than the memory holds" in caplog.text
    narrow = compute_edit(model, tiny_tokenizer, facts, brief(micro_batch=256))
    assert_alike(halved, narrow, 1e-2)


def test_evaluation_and_geometry_are_those_of_a_cpu(tiny_tokenizer: Any) -> None:
    facts = [fact for fact in load_facts() if fact.subject == load_facts()[0].subject]
    requests = [fact.to_request() for fact in facts]
    how = EvaluationSettings(max_new_tokens=2, locality_text=True)
    brief_diagnosis = DiagnosisSettings(directions=4, landscape_points=1, max_new_tokens=2)
    found = {}
    for device in ("cpu", "cuda"):
        model = build_model("llama-untied").to(device)
        delta = compute_edit(model, tiny_tokenizer, requests, brief())
        before = Baseline.of(
            model, tiny_tokenizer, facts, locality=load_locality(facts)[:8], settings=how
        )
        with delta.applied(model):
            result = evaluate_edit(model, tiny_tokenizer, facts, baseline=before)
        diagnosis = diagnose(model, tiny_tokenizer, facts, {"it": delta}, brief_diagnosis)
        found[device] = (
            result.summary()["locality"]["all"]["kl"],
            [query.deviation for query in diagnosis.edits[0].queries],
        )
    assert found["cuda"][0] == pytest.approx(found["cpu"][0], rel=0.05)
    assert found["cuda"][1] == pytest.approx(found["cpu"][1], rel=0.05)


def test_the_shell_edits_on_a_device(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = tmp_path / "facts.jsonl"
    facts.write_text(
        '{"prompt": "We met Marie Curie in", "subject": "Marie Curie", "target_new": "London"}\n'
    )
    words = ["--hparams", "tiny-random", "--device", "0"]
    out = str(tmp_path / "edit.safetensors")
    assert main(["edit", "--requests", str(facts), "--out", out, *words]) == 0
    assert main(["info", out]) == 0
    memory = str(tmp_path / "memory.db")
    brief_words = ["--set", "hierarchy.fact_steps=2", "--set", "hierarchy.subject_steps=2"]
    assert (
        main(["memory", "add", "--memory", memory, "--requests", str(facts), *words, *brief_words])
        == 0
    )
    assert "Marie Curie" in capsys.readouterr().out
