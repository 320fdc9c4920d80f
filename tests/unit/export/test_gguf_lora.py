"""An edit as a GGUF adapter: llama.cpp's names and shapes, and the update itself read back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from tiny_edits import make_delta
from tiny_models import build_model

from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.edits.factors import Factors
from rose_easyedit.errors import RoSEError
from rose_easyedit.export.save import save_gguf_lora
from rose_easyedit.models.architectures import ARCHITECTURES, read_architecture

# name of a tiny model, and of its family in GGUF files
FAMILIES = {
    "llama-tied": "llama",
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "phi3": "phi3",
    "gpt2": "gpt2",
    "gpt_neox-parallel": "gptneox",
    "olmo2": "olmo2",
}


def random_edit(name: str, layers: tuple[int, ...] = (1, 3)) -> EditDelta:
    """An edit of a tiny model with updates of different ranks."""
    editable = read_architecture(build_model(name))
    draw = torch.Generator().manual_seed(0)
    updates = {
        editable.weight_name(layer): Factors(
            torch.randn(32, rank, generator=draw),
            torch.randn(rank, editable.weight(layer).numel() // 32, generator=draw),
            editable.is_transposed(layer),
        )
        for rank, layer in enumerate(layers, 2)
    }
    return EditDelta(updates, "0" * 64, {"architecture": editable.model.config.model_type})


def contents(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Fields and tensors of a GGUF file, as the reader of the format's owners has them."""
    reader = gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    return fields, {t.name: torch.from_numpy(t.data.copy()) for t in reader.tensors}


@pytest.mark.parametrize("name", list(FAMILIES))
def test_the_update_is_rebuilt_from_the_file(name: str, tmp_path: Path) -> None:
    """As llama.cpp computes it: alpha / r * lora_b @ lora_a, and r is each weight's own."""
    delta = random_edit(name)
    path = save_gguf_lora(delta, tmp_path / "edit.gguf")
    fields, tensors = contents(path)
    assert fields["general.type"] == "adapter"
    assert fields["adapter.type"] == "lora"
    assert fields["general.architecture"] == FAMILIES[name]
    rebuilt = {}
    for layer in (1, 3):
        a, b = (tensors.pop(f"blk.{layer}.ffn_down.weight.lora_{part}") for part in "ab")
        rank = b.shape[1]
        rebuilt[layer] = fields["adapter.lora.alpha"] / rank * (b.double() @ a.double())
    assert tensors == {}
    for layer, (weight_name, factors) in zip((1, 3), delta.layers.items(), strict=True):
        dense = factors.dense().T if factors.transposed else factors.dense()  # [d, d_ff]
        assert f".{layer}." in weight_name and dense.shape[0] == 32
        torch.testing.assert_close(rebuilt[layer], dense)


def test_every_family_that_llama_cpp_runs_is_known_to_the_package_of_the_format() -> None:
    known = {row.gguf for row in ARCHITECTURES.values() if row.gguf}
    assert known == set(FAMILIES.values())
    assert known <= set(gguf.MODEL_ARCH_NAMES.values())


def test_a_family_that_llama_cpp_does_not_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RoSEError, match="architecture 'gptj'; it can of gemma2.*qwen3"):
        save_gguf_lora(random_edit("gptj"), tmp_path / "edit.gguf")
    bare = EditDelta(random_edit("llama-tied").layers, "0" * 64)
    with pytest.raises(RoSEError, match="architecture None"):
        save_gguf_lora(bare, tmp_path / "edit.gguf")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.1.mlp.up_proj.weight",
        "model.layers.01.mlp.down_proj.weight",
        "model.layers.99999999999999999999.mlp.down_proj.weight",
        "model.layers.\u0663.mlp.down_proj.weight",
        "transformer.h.1.mlp.c_proj.weight",
        "x",
    ],
)
def test_a_weight_of_another_name_is_refused(name: str, tmp_path: Path) -> None:
    delta = random_edit("llama-tied")
    delta.layers[name] = next(iter(delta.layers.values()))
    with pytest.raises(RoSEError, match=r"no such weights as these.*\n  - '"):
        save_gguf_lora(delta, tmp_path / "edit.gguf")
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_stays(tmp_path: Path) -> None:
    delta = make_delta(build_model("llama-tied"))
    for taken in ("edit.gguf", "edit.md"):
        (tmp_path / taken).write_text("mine")
        with pytest.raises(RoSEError, match=rf"{taken}' exists already; name a new file"):
            save_gguf_lora(delta, tmp_path / "edit.gguf")
        assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]
        (tmp_path / taken).unlink()
    assert save_gguf_lora(delta, tmp_path / "new" / "edit.gguf").is_file()
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["edit.gguf", "edit.md"]


def test_an_interrupt_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "link", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_gguf_lora(make_delta(build_model("llama-tied")), tmp_path / "edit.gguf")
    assert list(tmp_path.iterdir()) == []
