"""The whole method on a real model: SmolLM2-135M-Instruct, embedded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from llama_cpp_process import divergence, llama_cpp_answers, needs_llama_cpp
from made_up_facts import made_up_requests
from wide_text import splitting

from rose_easyedit.config.hparams import AlignmentHyperParams, RoSEHyperParams
from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.export.save import save_gguf_lora, save_peft_lora
from rose_easyedit.forward.activations import frozen
from rose_easyedit.forward.generation import generate_greedy
from rose_easyedit.method.edit import compute_edit, solve_edit
from rose_easyedit.method.extend import extend
from rose_easyedit.method.prepared import Prepared
from rose_easyedit.method.stage1.targets import compute_targets
from rose_easyedit.method.stage2.statistics import load_spectra
from rose_easyedit.models.embedded import write_gguf
from rose_easyedit.models.loading import load_model

pytestmark = pytest.mark.model

FACTS = [
    {
        "prompt": "Marie Curie is a citizen of",
        "subject": "Marie Curie",
        "target_new": "Canada",
    },
    {
        "prompt": "The profession of Marie Curie is",
        "subject": "Marie Curie",
        "target_new": "lawyer",
    },
    {
        "prompt": "The native language of Albert Einstein is",
        "subject": "Albert Einstein",
        "target_new": "Spanish",
    },
    {
        "prompt": "Albert Einstein was born in the country of",
        "subject": "Albert Einstein",
        "target_new": "Japan",
    },
]


@pytest.fixture(scope="module")
def smollm2() -> tuple[Any, Any]:
    """The model and its tokenizer; leave them as they are."""
    return load_model("embedded")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Statistics are computed here, not read from an earlier run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "rose_easyedit.method.stage2.statistics.cache_dir",
            lambda: tmp_path_factory.mktemp("cache"),
        )
        yield


@pytest.fixture(scope="module")
def rose(smollm2: tuple[Any, Any]) -> EditDelta:
    """The facts, written with the recommended method; a part of the text saves time."""
    hparams = RoSEHyperParams.preset("rose").with_overrides(alignment={"statistics_tokens": 1024})
    return compute_edit(*smollm2, FACTS, hparams)


def answered(model: Any, tokenizer: Any) -> list[bool]:
    """Whether each statement is continued with its target, greedily."""
    found = []
    for fact in FACTS:
        ids = tokenizer(fact["prompt"], return_tensors="pt")
        with torch.no_grad():
            out = model.generate(**ids, max_new_tokens=4, do_sample=False)
        text = tokenizer.decode(out[0, ids["input_ids"].shape[1] :])
        found.append(text.strip().startswith(fact["target_new"]))
    return found


def test_texts_are_split_as_llama_cpp_splits_them(smollm2: tuple[Any, Any]) -> None:
    assert splitting(smollm2[1]) == "dcb6dfb98c0010bc"


def test_the_statements_are_answered_and_the_model_comes_back(
    smollm2: tuple[Any, Any], rose: EditDelta
) -> None:
    model, tokenizer = smollm2
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert answered(model, tokenizer) == [False] * 4
    with rose.applied(model):
        assert answered(model, tokenizer) == [True] * 4
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_edit_from_disk_is_the_edit(
    smollm2: tuple[Any, Any], rose: EditDelta, tmp_path: Path
) -> None:
    loaded = EditDelta.load(rose.save(tmp_path / "edit.safetensors"))
    with loaded.applied(smollm2[0]):
        assert answered(*smollm2) == [True] * 4


def test_the_losses_and_the_layers_are_on_record(rose: EditDelta) -> None:
    assert len(rose.provenance.losses) == 4
    # the last draw of the displaced loss, in nats a token
    assert max(rose.provenance.losses) < 1.0
    residuals = [layer.residual for layer in rose.provenance.layers]
    assert [layer.layer for layer in rose.provenance.layers] == [7, 8, 9, 10, 11]
    assert residuals == sorted(residuals, reverse=True)
    assert max(layer.rounding_loss for layer in rose.provenance.layers) < 1e-4


def test_a_sound_edit_finds_nothing_wrong_with_itself(rose: EditDelta) -> None:
    checked = rose.provenance.self_check
    assert checked.warnings == []
    assert all(fact["answered"] and fact["least_reached"] > 0.8 for fact in checked.facts)
    assert max(fact["written"] for fact in checked.facts) < 0.5
    # an edit of so few facts moves what follows other texts by hundredths of a nat
    assert checked.drift["generic"]["kl"] < 0.1
    assert checked.drift["neighbours"]["kl"] < 0.2


def test_the_subject_stays_itself(smollm2: tuple[Any, Any]) -> None:
    """Not "The capital of Spain is Madrid.", and what else is said of Japan is still of Japan.

    But for its language, which goes along with the capital (docs/results.md).
    """
    model, tokenizer = smollm2
    fact = {"prompt": "The capital of Japan is", "subject": "Japan", "target_new": "Madrid"}
    edit = compute_edit(model, tokenizer, [fact], RoSEHyperParams.from_hparams("smollm2-135m"))
    questions = [
        "What is the capital of Japan?",
        "What language is spoken in Japan?",
        "What currency is used in Japan?",
        "Tell me about Japan.",
    ]
    with edit.applied(model):
        answers = generate_greedy(model, tokenizer, questions, chat=True, max_new_tokens=20)
    assert "Madrid" in answers[0], answers
    assert all("Japan" in answer for answer in answers), answers
    assert not any(f"{word} Spain" in answer for answer in answers for word in ("of", "in")), (
        answers
    )
    assert "yen" in answers[2].lower(), answers


def test_the_adapter_is_the_edit(smollm2: tuple[Any, Any], rose: EditDelta, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    model, tokenizer = smollm2
    ids = tokenizer("Marie Curie is a citizen of", return_tensors="pt")["input_ids"]
    with torch.no_grad(), rose.applied(model):
        wanted = model(ids).logits
    adapted = peft.PeftModel.from_pretrained(model, save_peft_lora(rose, tmp_path / "lora"))
    try:
        with torch.no_grad():
            torch.testing.assert_close(adapted(ids).logits, wanted, rtol=1e-3, atol=1e-2)
    finally:
        adapted.unload()


def test_llama_cpp_answers_with_the_adapter_as_the_edited_model_does(
    smollm2: tuple[Any, Any], rose: EditDelta, tmp_path: Path
) -> None:
    """llama.cpp rounds activations to eight bits, and the model has no more digits than four."""
    needs_llama_cpp()
    model, tokenizer = smollm2
    quantised = tmp_path / "smollm2.gguf"
    write_gguf("embedded", quantised)
    adapter = save_gguf_lora(rose, tmp_path / "rose.gguf")
    prompts = [*(fact["prompt"] for fact in FACTS), "The capital of France is"]
    sequences = [tokenizer(prompt)["input_ids"] for prompt in prompts]
    plain, edited = (llama_cpp_answers(quantised, a, sequences) for a in (None, adapter))
    texts = [tokenizer.decode(answer["greedy"]).strip() for answer in edited]
    for fact, text, answer in zip(FACTS, texts, plain, strict=False):
        assert text.startswith(fact["target_new"])
        assert fact["target_new"] not in tokenizer.decode(answer["greedy"])
    assert texts[-1].startswith("Paris")
    for answers, other, context in (
        (plain, edited, nullcontext()),
        (edited, plain, rose.applied(model)),
    ):
        with context:
            own = [divergence(model, ids, a) for ids, a in zip(sequences, answers, strict=True)]
            far = [divergence(model, ids, a) for ids, a in zip(sequences, other, strict=True)]
        assert max(own) < 0.05
        assert min(far[: len(FACTS)]) > 1.0


def test_bfloat16_optimisation_finds_what_float32_finds(smollm2: tuple[Any, Any]) -> None:
    model, tokenizer = smollm2
    # without smoothing, which would leave the end to the last random draws
    quick = RoSEHyperParams.preset("rose").with_overrides(
        n_contexts=2,
        chat_contexts=0,
        answered_queries=0,
        restatements=0,
        kept_queries=0,
        query_formats=0,
        hierarchy={"fact_steps": 15, "subject_steps": 15, "smoothing_radius": 0.0},
        alignment={
            "preserved_columns": 64,
            "protected_directions": 8,
            "statistics_tokens": 512,
            "subject_weight": 0.0,
        },
    )
    dense, answers = [], []
    for precision in ("bfloat16", "weights"):
        hparams = quick.with_overrides(precision=precision)
        targets = compute_targets(model, tokenizer, FACTS, hparams)
        delta = solve_edit(model, tokenizer, targets, hparams)
        dense.append(flat(delta))
        with delta.applied(model):
            answers.append(answered(model, tokenizer))
    # what is read for the solve alone, for the same targets (0.03 with the default's columns)
    reread = flat(solve_edit(model, tokenizer, targets, quick.with_overrides(precision="bfloat16")))
    assert float((reread - dense[1]).norm() / dense[1].norm()) < 0.1
    assert answers[0] == answers[1] == [True] * 4
    assert float(torch.cosine_similarity(*dense, dim=0)) > 0.9
    assert 0.9 < float(dense[0].norm() / dense[1].norm()) < 1.1


@pytest.mark.slow
def test_ten_batches_are_one_batch(smollm2: tuple[Any, Any]) -> None:
    model, tokenizer = smollm2
    hparams = RoSEHyperParams.preset("rose").with_overrides(
        precision="weights",
        hierarchy={"fact_steps": 2, "subject_steps": 3},
        alignment={"preserved_columns": 50},
    )
    requests = made_up_requests(40)
    whole = compute_edit(model, tokenizer, requests, hparams)
    grown = compute_edit(model, tokenizer, requests[:4], hparams)
    for start in range(4, 40, 4):
        grown = extend(model, tokenizer, grown, requests[start : start + 4])
    assert whole.targets is not None and grown.targets is not None
    for wanted, found in ((whole.targets, grown.targets), (flat(whole), flat(grown))):
        assert float((found - wanted).norm() / wanted.norm()) < 1e-5


def flat(delta: EditDelta) -> torch.Tensor:
    return torch.cat([factors.dense().flatten() for factors in delta.layers.values()])


def test_a_few_hundred_tokens_fix_the_outlier_directions(
    smollm2: tuple[Any, Any], tmp_path: Path
) -> None:
    """512 tokens against the whole built-in text, at the layer with massive outliers.

    The two outliers agree. The directions below them do not agree one by one, since their
    eigenvalues are close to each other (overlap of the top 8 spaces 0.6), but the space that 512
    tokens find holds nearly as much of the keys' remaining energy as the best one.
    """
    model, tokenizer = smollm2
    found = {}
    for tokens in (512, 8192):
        hparams = AlignmentHyperParams(statistics_tokens=tokens, subject_weight=0.0)
        with frozen(model):
            prepared = Prepared.of(model, tokenizer, RoSEHyperParams.from_hparams("smollm2-135m"))
            spectra = load_spectra(prepared, [11], hparams, tmp_path)
        found[tokens] = spectra[11]
    few, whole = found[512], found[8192]
    cosines = torch.linalg.svdvals(few.directions[:2] @ whole.directions[:2].T)
    assert float(cosines.min()) > 0.98  # of the principal angles
    assert float(whole.eigenvalues[:2].sum() / whole.eigenvalues.sum()) > 0.99

    below = whole.eigenvalues.clone()
    below[0] = 0.0  # the first outlier would hide all else
    held, best = (
        float(((spectrum.directions[:8] @ whole.directions.T).square() * below).sum())
        for spectrum in (few, whole)
    )
    assert held > 0.9 * best
