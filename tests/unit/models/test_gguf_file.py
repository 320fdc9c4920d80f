"""A GGUF file as a model: every family that can be read computes what it did, others are named."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_gguf import write_gguf
from tiny_llama import build_tokenizer
from tiny_models import build_model
from torch import nn

from rose_easyedit.cli.main import main
from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.errors import RoSEError
from rose_easyedit.models import gguf_file
from rose_easyedit.models.gguf_header import llama3_rotation
from rose_easyedit.models.loading import load_model

FAMILIES = ("llama-tied", "llama-untied", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3")
FAMILIES += ("gpt2", "gpt2-untied")
TEXT = "In 1999 M\u00fcller paid 3.50; Marie Curie, \u6771\u4eac!  \n\nTwo  spaces"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("ROSE_EASYEDIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def trained(name: str, **overrides: Any) -> Any:
    """A tiny model whose norms have gains, as those of trained models have."""
    model = build_model(name, **overrides)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in model.modules():
            if "Norm" in type(module).__name__:
                for parameter in module.parameters():
                    parameter.add_(0.3 * torch.randn(parameter.shape, generator=draw))
    return model


def agree(first: nn.Module, second: nn.Module) -> bool:
    ids = torch.arange(1, 25)[None]
    with torch.no_grad():
        return torch.allclose(first(ids).logits, second(ids).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_computes_what_it_did(name: str, tmp_path: Path) -> None:
    model, tokenizer = trained(name), build_tokenizer()
    path = write_gguf(tmp_path / "tiny.gguf", model, tokenizer)
    found, reader = load_model(str(path))
    assert found.dtype == torch.float32 and not found.training
    assert agree(found, model)
    assert not hasattr(found.config, "quantization_config")
    assert reader(TEXT).input_ids == tokenizer(TEXT).input_ids
    assert reader.decode(reader(TEXT).input_ids) == TEXT
    assert (reader.eos_token, reader.pad_token) == ("<|end|>", "<|end|>")
    assert reader.chat_template == tokenizer.chat_template
    assert reader.model_max_length == 256
    assert found.generation_config.eos_token_id == tokenizer.eos_token_id


def test_a_file_is_expanded_once_under_its_checksum(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", trained("llama-tied"), build_tokenizer())
    load_model(str(path))
    assert capfd.readouterr() == ("", "")
    (folder,) = (place for place in (cache / "models").iterdir() if place.is_dir())
    monkeypatch.setattr(gguf_file, "expand_gguf", lambda *_: pytest.fail("expanded again"))
    assert load_model(str(path))[0].name_or_path == str(folder)
    moved = path.rename(tmp_path / "moved.gguf")
    assert load_model(str(moved))[0].name_or_path == str(folder)


@pytest.mark.parametrize("name", ["llama-tied", "gemma3_text"])
def test_a_rotation_that_is_stretched_evenly_is(name: str, tmp_path: Path) -> None:
    model = trained(name)
    stretched = {"rope_type": "linear", "factor": 4.0}
    rotation = dict(model.config.rope_parameters)
    if "full_attention" in rotation:
        rotation["full_attention"] = rotation["full_attention"] | stretched
    else:
        rotation |= stretched
    wanted = trained(name, rope_parameters=rotation, layer_types=None)
    values = {"rope__scaling__type": "linear", "rope__scaling__factor": 4.0}
    path = write_gguf(tmp_path / "tiny.gguf", wanted, build_tokenizer(), **values)
    found, _ = load_model(str(path))
    assert agree(found, wanted)
    assert name != "llama-tied" or not agree(found, model)


def test_the_factors_of_llama_3_are_recognised() -> None:
    """The numbers of Llama 3.2 1B's file: ones, then a ramp, then 32."""
    factors = []
    for i in range(32):
        wavelength = 2 * math.pi * 500000.0 ** (i / 32)
        if wavelength < 2048:
            factors.append(1.0)
        elif wavelength > 8192:
            factors.append(32.0)
        else:
            smooth = (8192 / wavelength - 1) / 3
            factors.append(1 / ((1 - smooth) / 32 + smooth))
    found = llama3_rotation(500000.0, tuple(factors))
    assert found["rope_type"] == "llama3" and found["factor"] == 32.0
    assert llama3_rotation(500000.0, tuple(reversed(factors))) == {}


def test_the_largest_gemma_scales_attention_by_the_stream(tmp_path: Path) -> None:
    sizes = {"num_hidden_layers": 46, "query_pre_attn_scalar": 32 // 2, "num_attention_heads": 2}
    model = trained("gemma2", **sizes)
    path = write_gguf(tmp_path / "tiny.gguf", model, build_tokenizer())
    found, _ = load_model(str(path))
    assert found.config.query_pre_attn_scalar == 16
    assert agree(found, model)


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"expert_count": 8}, r"is a mixture of experts \(8 of them\)"),
        ({"rope__scaling__type": "yarn", "rope__scaling__factor": 4.0}, "rotation by 'yarn'"),
        ({"splitting": "of-its-own"}, "splits text as 'of-its-own' does; known are .*smollm"),
    ],
)
def test_what_would_be_read_wrongly_is_refused(
    values: dict[str, Any], part: str, tmp_path: Path, cache: Path
) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", trained("llama-tied"), build_tokenizer(), **values)
    with pytest.raises(RoSEError, match=part):
        load_model(str(path))
    assert not any(place.is_dir() for place in (cache / "models").iterdir())


def test_a_family_that_transformers_does_not_read_is_named(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", trained("olmo2"), build_tokenizer())
    with pytest.raises(RoSEError, match=r"cannot read the GGUF file.*olmo2"):
        load_model(str(path))


def test_a_family_that_no_edit_knows_is_named(tmp_path: Path) -> None:
    import gguf

    for family, kind, part in (
        ("mamba", "model", "architecture 'mamba'; an edit knows gemma2"),
        ("llama", "adapter", "holds 'adapter', and no model"),
    ):
        writer = gguf.GGUFWriter(tmp_path / "other.gguf", family)
        writer.add_type(kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        with pytest.raises(RoSEError, match=part):
            load_model(str(tmp_path / "other.gguf"))


def test_weights_that_have_no_place_are_refused(tmp_path: Path) -> None:
    """A Llama with biases, say: the loader leaves them out without a word."""
    model = trained("llama-tied", attention_bias=True)
    path = write_gguf(tmp_path / "tiny.gguf", model, build_tokenizer())
    with pytest.raises(RoSEError, match=r"a LlamaForCausalLM takes \d+ \(missing: none"):
        load_model(str(path))


@pytest.mark.parametrize("content", [b"", b"half a file", b"GGUF\x03\x00\x00\x00" + b"\xff" * 64])
def test_what_is_no_gguf_file_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(content)
    with pytest.raises(RoSEError, match=r"bad.gguf' is no GGUF file that can be read"):
        load_model(str(tmp_path / "bad.gguf"))


def test_words_that_are_whole_need_no_merges(tmp_path: Path) -> None:
    """Llama 3's vocabulary has words that its merges do not lead to, and texts begin with BOS."""
    tokenizer = build_tokenizer()
    tokenizer.bos_token = "<|user|>"
    path = tmp_path / "tiny.gguf"
    write_gguf(path, trained("llama-tied"), tokenizer, splitting="llama-bpe")
    _, reader = load_model(str(path))
    assert reader.backend_tokenizer.model.ignore_merges


def test_an_edit_of_a_file_leaves_as_an_adapter_for_it(tmp_path: Path) -> None:
    tiny, tokenizer = load_model("tiny-random")
    path = write_gguf(tmp_path / "tiny.gguf", tiny, tokenizer)
    fact = {"prompt": "Marie Curie is a", "subject": "Marie Curie", "target_new": "singer"}
    (tmp_path / "facts.jsonl").write_text(json.dumps(fact))
    edit, adapter = str(tmp_path / "edit.safetensors"), tmp_path / "adapter.gguf"
    words = ["--model", str(path), "--hparams", "tiny-random", "--out", edit]
    for setting in ("hierarchy.fact_steps=1", "hierarchy.subject_steps=1"):
        words += ["--set", setting]
    assert main(["edit", "--requests", str(tmp_path / "facts.jsonl"), *words]) == 0
    assert main(["export", "--delta", edit, "--gguf", str(adapter)]) == 0
    assert EditDelta.load(edit).is_of(tiny)  # the weights went through the file bit for bit
    card = adapter.with_suffix(".md").read_text()
    assert "tiny.gguf, a GGUF file, its weights expanded to float32" in card
    assert str(tmp_path) not in card and "base_model:" not in card


@pytest.mark.parametrize(
    "values",
    [
        {"block_count": "many"},
        {"block_count": 10**9},
        {"attention__head_count": 0},
        {"context_length": "long"},
        {"rope__freq_base": "high"},
        {"rope__scaling__factor": "far"},
        {"attention__key_length": "wide"},
        {"embedding_length": 10**9},
    ],
)
def test_a_header_that_says_what_cannot_be_is_refused(
    values: dict[str, Any], tmp_path: Path, cache: Path
) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", trained("llama-tied"), build_tokenizer(), **values)
    with pytest.raises(RoSEError, match=r"tiny\.gguf'"):
        load_model(str(path))
    assert not any(place.is_dir() for place in (cache / "models").iterdir())
