"""Models of which Accelerate keeps weights in memory or on disk: edited like any, to the bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload, disk_offload, dispatch_model
from tiny_models import FACTS, build_model, settings
from torch import Tensor

from rose_easyedit.easyedit.editor import apply_rose_to_model
from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.errors import RoSEError
from rose_easyedit.export.save import save_merged
from rose_easyedit.forward.activations import frozen
from rose_easyedit.forward.generation import generate_greedy
from rose_easyedit.forward.replay import capture
from rose_easyedit.method.edit import compute_edit
from rose_easyedit.method.extend import extend
from rose_easyedit.method.stage1.store import ShiftStore
from rose_easyedit.models.architectures import read_architecture
from rose_easyedit.models.fingerprint import model_fingerprint
from rose_easyedit.models.loading import load_model
from rose_easyedit.text.locate_subject import TokenQuery

# Layers 0 and 1 are edited.
PARTS = ("model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head")
PLACES = {
    **dict.fromkeys(PARTS, "cpu"),
    **{
        f"model.layers.{layer}": place for layer, place in enumerate(["cpu", "cpu", "disk", "disk"])
    },
}


def in_memory(model: Any, _folder: Path) -> Any:
    return cpu_offload(model)


def on_disk(model: Any, folder: Path) -> Any:
    disk_offload(model, folder)
    return model


def layer_by_layer(model: Any, _folder: Path) -> Any:
    return cpu_offload(model, preload_module_classes=["LlamaDecoderLayer"])


def in_part(model: Any, folder: Path) -> Any:
    return dispatch_model(model, PLACES, offload_dir=folder)


WAYS = (in_memory, layer_by_layer, on_disk, in_part)


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        return model(torch.tensor([[5, 6, 7, 8]])).logits


def brief(**values: Any) -> Any:
    hierarchy = {"fact_steps": 3, "subject_steps": 3, "smoothing_radius": 0.1, "kl_factor": 0.1}
    alignment = {"protected_directions": 4, "statistics_tokens": 200, "preserved_columns": 12}
    return settings(hierarchy=hierarchy, alignment=alignment, **values)


@pytest.mark.parametrize("precision", ["weights", "bfloat16"])
@pytest.mark.parametrize("way", WAYS)
def test_the_edit_is_that_of_the_whole_model_to_the_byte(
    way: Callable[..., Any], precision: str, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    hparams = brief(precision=precision)
    wanted = compute_edit(build_model("llama-tied"), tiny_tokenizer, FACTS, hparams)
    model = way(build_model("llama-tied"), tmp_path / "weights")
    model.model.layers[3].requires_grad_(False)
    before = {n: (p.device, p.requires_grad) for n, p in model.named_parameters()}
    found = compute_edit(model, tiny_tokenizer, FACTS, hparams)
    first, second = wanted.save(tmp_path / "first"), found.save(tmp_path / "second")
    assert first.read_bytes() == second.read_bytes()
    # what came for a step has gone again, the weights of the layers whose gradients it took too
    assert {n: (p.device, p.requires_grad) for n, p in model.named_parameters()} == before
    assert any(device.type == "meta" for device, _ in before.values())


@pytest.mark.parametrize("name", ["gpt2", "gemma2", "gpt_neox-parallel"])
def test_other_architectures(name: str, tiny_tokenizer: Any) -> None:
    wanted = compute_edit(build_model(name), tiny_tokenizer, FACTS, brief())
    found = compute_edit(cpu_offload(build_model(name)), tiny_tokenizer, FACTS, brief())
    assert wanted.base == found.base
    for weight, update in wanted.layers.items():
        assert torch.equal(update.dense(), found.layers[weight].dense())


# transformers 5.5 looks for an offloaded model on "meta", where its weights are not
@pytest.mark.filterwarnings("ignore:You are calling .generate.. with the `input_ids`:UserWarning")
@pytest.mark.parametrize("way", [in_memory, in_part])
def test_an_edit_is_applied_where_the_weights_are_and_comes_off_to_the_bit(
    way: Callable[..., Any], tiny_tokenizer: Any, tmp_path: Path
) -> None:
    whole, model = build_model("llama-tied"), way(build_model("llama-tied"), tmp_path)
    delta = compute_edit(whole, tiny_tokenizer, FACTS, settings())
    plain = logits(whole)
    with delta.applied(whole):
        edited = logits(whole)
        answer = generate_greedy(whole, tiny_tokenizer, ["We met"], chat=False, max_new_tokens=4)
    assert not torch.equal(edited, plain)
    with delta.applied(model):
        assert delta.is_applied(model)
        assert torch.equal(logits(model), edited)
        assert answer == generate_greedy(
            model, tiny_tokenizer, ["We met"], chat=False, max_new_tokens=4
        )
        with pytest.raises(RoSEError, match="is applied to this model already"):
            delta.apply(model)
    assert torch.equal(logits(model), plain)
    assert model_fingerprint(model) == model_fingerprint(whole)


@pytest.mark.filterwarnings("ignore:Attempting to save a model with offloaded modules")
@pytest.mark.parametrize("way", [in_memory, in_part])
def test_the_edited_model_is_written_whole(
    way: Callable[..., Any], tiny_tokenizer: Any, tmp_path: Path
) -> None:
    whole, model = build_model("llama-tied"), way(build_model("llama-tied"), tmp_path / "weights")
    delta = compute_edit(whole, tiny_tokenizer, FACTS, settings())
    save_merged(delta, model, tiny_tokenizer, tmp_path / "edited")
    written, _ = load_model(str(tmp_path / "edited"))
    with delta.applied(whole):
        assert torch.equal(logits(written), logits(whole))


def test_an_edit_is_not_written_to_disk_where_the_model_itself_may_be(
    tiny_tokenizer: Any, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    whole = build_model("llama-tied")
    whole.save_pretrained(tmp_path / "model")
    places = {**PLACES, "model.layers.1": "disk"}
    model = AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", device_map=places, offload_folder=tmp_path / "weights"
    )
    files = {path: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    delta = compute_edit(model, tiny_tokenizer, FACTS, settings())
    with pytest.raises(RoSEError, match=r"layers\.1\..*offloaded to disk.*save_peft_lora") as error:
        delta.apply(model)
    assert "layers.0." not in str(error.value)
    assert not delta.is_applied(model)
    assert torch.equal(logits(model), logits(whole))
    assert {path: path.read_bytes() for path in (tmp_path / "model").iterdir()} == files
    with delta.applied(whole):  # the edit itself is good
        pass


def test_what_is_kept_of_a_model_is_found_again_wherever_its_weights_are(
    tiny_tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rose_easyedit.method.stage1 import targets

    store, whole = ShiftStore(tmp_path / "shifts"), build_model("llama-tied")
    delta = compute_edit(whole, tiny_tokenizer, FACTS[:2], settings(), store)
    model = on_disk(build_model("llama-tied"), tmp_path / "weights")
    assert model_fingerprint(model) == model_fingerprint(whole)
    monkeypatch.setattr(targets, "optimise", None)
    compute_edit(model, tiny_tokenizer, FACTS[:2], settings(), store)
    monkeypatch.undo()
    longer = extend(model, tiny_tokenizer, delta, FACTS[2:])
    wanted = extend(whole, tiny_tokenizer, delta, FACTS[2:])
    assert longer.targets is not None and wanted.targets is not None
    assert torch.equal(longer.targets, wanted.targets)


@pytest.mark.parametrize("offloaded", [False, True])
def test_weights_do_not_wait_for_the_gradients_on_the_device(offloaded: bool) -> None:
    model = build_model("llama-untied")
    shapes = {tuple(weight.shape) for weight in model.model.layers[2].mlp.parameters()}
    if offloaded:
        cpu_offload(model)
    kept = set()

    def note(tensor: Tensor) -> Tensor:
        kept.update({tuple(tensor.shape), tuple(tensor.T.shape)} if tensor.dim() == 2 else ())
        return tensor

    with frozen(model):
        replay = capture(read_architecture(model), [TokenQuery((1, 2, 3, 4), 1, 1)], 1)
        shift = torch.zeros(1, 32, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss = replay.log_probabilities(shift).sum()
        loss.backward()
    assert shift.grad is not None and bool(shift.grad.any())
    assert bool(shapes & kept) is not offloaded


def test_a_model_on_two_devices_is_refused(tiny_tokenizer: Any) -> None:
    model = build_model("llama-untied")
    cpu_offload(model.lm_head, execution_device=torch.device("cuda:0"))
    with pytest.raises(RoSEError, match="computes on cpu, cuda:0.*on one.*device_map"):
        compute_edit(model, tiny_tokenizer, FACTS, settings())


def test_easyedit_which_would_restore_nothing_is_refused(tiny_tokenizer: Any) -> None:
    model = cpu_offload(build_model("llama-tied"))
    before = model_fingerprint(model)
    with pytest.raises(RoSEError, match="EasyEdit.*offloaded.*rose_easyedit.edit"):
        apply_rose_to_model(model, tiny_tokenizer, FACTS, settings())
    assert model_fingerprint(model) == before


def test_offloaded_weights_that_are_edited_already_are_noticed(
    tiny_tokenizer: Any, tmp_path: Path
) -> None:
    model = cpu_offload(build_model("llama-tied"))
    path = compute_edit(model, tiny_tokenizer, FACTS, settings()).save(tmp_path / "edit")
    EditDelta.load(path).apply(model)
    with pytest.raises(RoSEError, match="are not those that this edit was computed for"):
        EditDelta.load(path).apply(model)
