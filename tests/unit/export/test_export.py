"""An edit in other tools' forms gives what the edit itself gives."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import FACTS, build_model, same_weights, settings, weights_of
from torch import Tensor

from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.edits.provenance import Provenance
from rose_easyedit.errors import RoSEError
from rose_easyedit.export.save import save_merged, save_peft_lora
from rose_easyedit.method.edit import compute_edit

IDS = torch.arange(10, 42).reshape(2, 16)


@pytest.fixture(scope="module", params=["llama-tied", "llama-untied", "gpt2", "gpt_neox-parallel"])
def edit(request: pytest.FixtureRequest, tiny_tokenizer: Any) -> tuple[str, EditDelta]:
    """The name of a model, with Linear or Conv1D layers, and a real edit of it."""
    model = build_model(request.param)
    return request.param, compute_edit(model, tiny_tokenizer, FACTS, settings())


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        return model(IDS).logits


def edited_logits(name: str, delta: EditDelta) -> Tensor:
    model = build_model(name)
    plain = logits(model)
    with delta.applied(model):
        edited = logits(model)
    assert float((edited - plain).abs().max()) > 0.1
    return edited


def test_peft_loads_the_adapter_and_it_is_the_edit(
    edit: tuple[str, EditDelta], tmp_path: Path
) -> None:
    peft = pytest.importorskip("peft")
    name, delta = edit
    folder = save_peft_lora(delta, tmp_path / "lora")
    model = peft.PeftModel.from_pretrained(build_model(name), folder)
    wanted = edited_logits(name, delta)
    torch.testing.assert_close(logits(model), wanted, rtol=1e-3, atol=1e-3)
    merged = model.merge_and_unload()
    torch.testing.assert_close(logits(merged), wanted, rtol=1e-3, atol=1e-3)


def test_layers_of_different_rank_share_one_adapter(tmp_path: Path) -> None:
    from tiny_edits import make_delta

    peft = pytest.importorskip("peft")
    for name in ("llama-tied", "gpt2"):
        delta = make_delta(build_model(name), name)
        assert len({factors.rank for factors in delta.layers.values()}) == 2
        folder = save_peft_lora(delta, tmp_path / name)
        model = peft.PeftModel.from_pretrained(build_model(name), folder)
        wanted = edited_logits(name, delta)
        torch.testing.assert_close(logits(model), wanted, rtol=1e-3, atol=1e-3)


def test_the_adapter_touches_the_edited_layers_only(
    edit: tuple[str, EditDelta], tmp_path: Path
) -> None:
    _, delta = edit
    folder = save_peft_lora(delta, tmp_path / "lora")
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["target_modules"] == [n.removesuffix(".weight") for n in delta.layers]
    assert config["lora_alpha"] == config["r"]


@pytest.mark.parametrize(
    ("name", "base"),
    [("embedded", "HuggingFaceTB/SmolLM2-135M-Instruct"), ("a/b", "a/b"), (None, None)],
)
def test_the_adapter_names_a_base_that_peft_can_load(
    name: str | None, base: str | None, tmp_path: Path
) -> None:
    from tiny_edits import make_delta

    delta = make_delta(build_model("llama-tied"), "llama-tied")
    delta.provenance = Provenance(hparams={"model_name": name})
    config = json.loads((save_peft_lora(delta, tmp_path / "a") / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == base


def test_the_merged_folder_is_the_edited_model(
    edit: tuple[str, EditDelta], tmp_path: Path, tiny_tokenizer: Any
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    name, delta = edit
    model = build_model(name)
    before = weights_of(model)
    folder = save_merged(delta, model, tiny_tokenizer, tmp_path / "new" / "merged")
    assert same_weights(model, before) and not delta.is_applied(model)
    loaded = AutoModelForCausalLM.from_pretrained(folder).eval()
    with delta.applied(model):
        assert same_weights(loaded, weights_of(model))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = FACTS[0]["prompt"]
    assert tokenizer(text)["input_ids"] == tiny_tokenizer(text)["input_ids"]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["merged"]


def export(form: str, delta: EditDelta, name: str, tokenizer: Any, folder: Path) -> Path:
    if form == "lora":
        return save_peft_lora(delta, folder)
    return save_merged(delta, build_model(name), tokenizer, folder)


@pytest.mark.parametrize("form", ["lora", "merged"])
def test_what_is_there_stays(
    form: str, edit: tuple[str, EditDelta], tmp_path: Path, tiny_tokenizer: Any
) -> None:
    name, delta = edit
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for taken in ("folder", "file"):
        with pytest.raises(RoSEError, match=f"{taken}' exists already; name a new or empty"):
            export(form, delta, name, tiny_tokenizer, tmp_path / taken)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder", "mine.txt"]
    (tmp_path / "empty").mkdir()
    export(form, delta, name, tiny_tokenizer, tmp_path / "empty")


@pytest.mark.parametrize("form", ["lora", "merged"])
def test_an_interrupt_leaves_no_folder_and_no_edit(
    form: str,
    edit: tuple[str, EditDelta],
    tmp_path: Path,
    tiny_tokenizer: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name, delta = edit

    def interrupted(*_args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    model = build_model(name)
    before = weights_of(model)
    with pytest.raises(KeyboardInterrupt):
        if form == "lora":
            save_peft_lora(delta, tmp_path / "out")
        else:
            save_merged(delta, model, tiny_tokenizer, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    assert same_weights(model, before)


def test_another_base_is_not_merged(
    edit: tuple[str, EditDelta], tmp_path: Path, tiny_tokenizer: Any
) -> None:
    name, delta = edit
    model = build_model(name).to(torch.bfloat16)
    with pytest.raises(RoSEError, match="another precision"):
        save_merged(delta, model, tiny_tokenizer, tmp_path / "merged")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("umask", "files", "folder"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700)]
)
def test_others_may_read_an_export_as_far_as_they_may_read_new_files(
    umask: int, files: int, folder: int, edit: tuple[str, EditDelta], tmp_path: Path
) -> None:
    before = os.umask(umask)
    try:
        out = save_peft_lora(edit[1], tmp_path / "out")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in out.iterdir()} == {files}
    assert out.stat().st_mode & 0o777 == folder


def test_an_export_goes_to_where_a_link_leads_and_not_to_the_working_folder(
    edit: tuple[str, EditDelta], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "link").symlink_to(real)
    save_peft_lora(edit[1], tmp_path / "link")
    assert (real / "adapter_config.json").is_file()
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    with pytest.raises(RoSEError, match="is where this runs"):
        save_peft_lora(edit[1], ".")
    assert list(empty.iterdir()) == []
