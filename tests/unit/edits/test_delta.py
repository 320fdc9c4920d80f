"""The edit as an object: on and off bit-exactly, bound to its base, whole on disk or not at all."""

from __future__ import annotations

import gc
import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_edits import NAMES, make_delta
from tiny_models import build_model, same_weights, weights_of

from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.edits.factors import Factors
from rose_easyedit.edits.file import EditRecord, write_edit
from rose_easyedit.errors import RoSEError
from rose_easyedit.models.fingerprint import model_fingerprint, weights_fingerprint


@pytest.fixture(params=list(NAMES))
def pair(request: pytest.FixtureRequest) -> tuple[Any, EditDelta]:
    """A model, with Linear or with Conv1D layers, and an edit of it."""
    model = build_model(request.param)
    return model, make_delta(model, request.param)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", list(NAMES))
def test_an_edit_adds_its_product_and_comes_off(name: str, dtype: torch.dtype) -> None:
    model = build_model(name).to(dtype)
    delta, before = make_delta(model, name), weights_of(model)
    assert not delta.is_applied(model)
    delta.apply(model)
    assert delta.is_applied(model)
    for key, now in model.state_dict().items():
        if key in delta.layers:
            factors = delta.layers[key]
            product = factors.left.double() @ factors.right.double()
            exact = before[key].double() + (product.T if name == "gpt2" else product)
            assert now.dtype == dtype
            assert torch.equal(now, exact.to(dtype))
            assert not torch.equal(now, before[key])
        else:
            assert torch.equal(now, before[key])
    delta.revert(model)
    assert not delta.is_applied(model)
    assert same_weights(model, before)


def test_weights_keep_their_place_and_their_gradients(pair: tuple[Any, EditDelta]) -> None:
    model, delta = pair
    before = {n: (p.data_ptr(), p.requires_grad) for n, p in model.named_parameters()}
    delta.apply(model)
    delta.revert(model)
    assert {n: (p.data_ptr(), p.requires_grad) for n, p in model.named_parameters()} == before
    assert all(parameter.grad_fn is None for parameter in model.parameters())


def test_the_edited_model_lives_inside_the_block(pair: tuple[Any, EditDelta]) -> None:
    model, delta = pair
    before = weights_of(model)
    with delta.applied(model) as edited:
        assert edited is model
        assert not same_weights(model, before)
    assert same_weights(model, before)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_in_the_block_takes_the_edit_off(
    error: type[BaseException], pair: tuple[Any, EditDelta]
) -> None:
    model, delta = pair
    before = weights_of(model)
    with pytest.raises(error, match="inside"), delta.applied(model):
        raise error("inside")
    assert same_weights(model, before)
    delta.apply(model)


def test_twice_is_refused(pair: tuple[Any, EditDelta]) -> None:
    model, delta = pair
    before = weights_of(model)
    delta.apply(model)
    edited = weights_of(model)
    for verify in (True, False):
        with pytest.raises(RoSEError, match="applied to this model already; revert it first"):
            delta.apply(model, verify=verify)
    assert same_weights(model, edited)
    delta.revert(model)
    assert same_weights(model, before)


def test_a_copy_read_from_disk_is_no_way_to_apply_twice(tmp_path: Path) -> None:
    model = build_model("llama-tied")
    delta = make_delta(model)
    copy = EditDelta.load(delta.save(tmp_path / "a.safetensors"))
    delta.apply(model)
    edited = weights_of(model)
    with pytest.raises(RoSEError, match="edited already"):
        copy.apply(model)
    assert same_weights(model, edited)


def test_reverting_what_was_not_applied_is_refused(pair: tuple[Any, EditDelta]) -> None:
    model, delta = pair
    before = weights_of(model)
    with pytest.raises(RoSEError, match="not applied to this model by this object"):
        delta.revert(model)
    delta.apply(model)
    delta.revert(model)
    with pytest.raises(RoSEError, match="not applied to this model by this object"):
        delta.revert(model)
    assert same_weights(model, before)


def test_one_edit_on_two_models() -> None:
    one, other = build_model("llama-tied"), build_model("llama-tied")
    delta, before = make_delta(one), weights_of(one)
    delta.apply(one)
    delta.apply(other)
    delta.revert(one)
    assert same_weights(one, before) and not same_weights(other, before)
    delta.revert(other)
    assert same_weights(other, before)


def test_two_edits_of_one_model_are_stacked_and_unstacked() -> None:
    model = build_model("llama-tied")
    before, first = weights_of(model), make_delta(model)
    first.apply(model)
    middle, second = weights_of(model), make_delta(model, scale=0.3)
    second.apply(model)
    second.revert(model)
    assert same_weights(model, middle)
    first.revert(model)
    assert same_weights(model, before)


def test_edits_come_off_in_reverse_order_only() -> None:
    model = build_model("llama-tied")
    before, first = weights_of(model), make_delta(model)
    first.apply(model)
    second = make_delta(model, scale=0.3)
    second.apply(model)
    edited = weights_of(model)
    with pytest.raises(RoSEError, match="have changed since .* the last one first"):
        first.revert(model)
    assert same_weights(model, edited)
    second.revert(model)
    first.revert(model)
    assert same_weights(model, before)


def test_weights_that_another_hand_put_back_count_as_reverted() -> None:
    model = build_model("llama-tied")
    delta, before = make_delta(model), weights_of(model)
    delta.apply(model)
    edited = weights_of(model)
    model.load_state_dict(before)
    assert not delta.is_applied(model)
    with pytest.raises(RoSEError, match="not applied to this model"):
        delta.revert(model)
    delta.apply(model)
    assert same_weights(model, edited)
    delta.revert(model)
    assert same_weights(model, before)


def test_the_copy_of_weights_that_another_hand_put_back_can_be_let_go() -> None:
    model = build_model("llama-tied")
    delta, before = make_delta(model), weights_of(model)
    delta.release(model)  # there is none yet
    delta.apply(model)
    delta.release(model)
    assert delta.is_applied(model) and len(delta._records) == 1
    model.load_state_dict(before)
    delta.release(model)
    assert not delta.is_applied(model) and len(delta._records) == 0
    delta.apply(model)
    delta.revert(model)
    assert same_weights(model, before)


def test_an_edit_that_rounding_swallows_is_applied_and_comes_off() -> None:
    model = build_model("llama-tied").to(torch.bfloat16)
    delta, before = make_delta(model, scale=1e-9), weights_of(model)
    with delta.applied(model):
        assert delta.is_applied(model) and same_weights(model, before)
    assert not delta.is_applied(model)


def test_an_edit_keeps_no_model_alive() -> None:
    model = build_model("llama-tied")
    delta = make_delta(model)
    delta.apply(model)
    assert len(delta._records) == 1
    del model
    gc.collect()
    assert len(delta._records) == 0


def changed(model: Any) -> Any:
    with torch.no_grad():
        model.get_parameter(NAMES["llama-tied"][1])[3, 5] += 1e-4
    return model


@pytest.mark.parametrize("how", ["changed", "precision"])
def test_another_base_is_refused_unless_asked_for(how: str) -> None:
    delta = make_delta(build_model("llama-tied"))
    model = build_model("llama-tied")
    model = changed(model) if how == "changed" else model.to(torch.bfloat16)
    before = weights_of(model)
    with pytest.raises(RoSEError, match="another precision, or edited already.*verify=False"):
        delta.apply(model)
    assert same_weights(model, before)
    with delta.applied(model, verify=False):
        assert not same_weights(model, before)
    assert same_weights(model, before)


def test_another_weight_that_is_not_edited_does_not_matter() -> None:
    model = build_model("llama-tied")
    delta = make_delta(model)
    with torch.no_grad():
        model.model.embed_tokens.weight[0] += 1
    delta.apply(model)


def test_what_does_not_fit_is_told_together() -> None:
    delta = make_delta(build_model("llama-tied"))
    wider = build_model("llama-tied", intermediate_size=48)
    before = weights_of(wider)
    for verify in (True, False):
        with pytest.raises(RoSEError, match="does not fit the model") as caught:
            delta.apply(wider, verify=verify)
        for name in delta.layers:
            assert f"{name}: shape (32, 48), the edit has (32, 64)" in str(caught.value)
    assert same_weights(wider, before)
    with pytest.raises(RoSEError, match=r"layers.2.*the model has no such weight"):
        delta.apply(build_model("llama-tied", num_hidden_layers=2), verify=False)


def test_quantised_and_offloaded_weights_are_refused() -> None:
    delta = make_delta(build_model("llama-tied"))
    model = build_model("llama-tied").to("meta")
    with pytest.raises(RoSEError, match="float32 on meta cannot be edited in place; use save_peft"):
        delta.apply(model)
    model = build_model("llama-tied")
    layer = model.model.layers[1].mlp.down_proj
    layer.weight = torch.nn.Parameter(layer.weight.to(torch.int8), requires_grad=False)
    with pytest.raises(RoSEError, match="int8 on cpu cannot be edited in place; use save_peft"):
        delta.apply(model)


@pytest.mark.parametrize("verify", [True, False])
def test_a_quantised_weight_is_told_as_such_whatever_its_shape(verify: bool) -> None:
    """As bitsandbytes keeps 4-bit weights (two a byte, one column), others 8-bit floats."""
    delta = make_delta(build_model("llama-tied"))
    for kept in (
        torch.zeros(32 * 64 // 2, 1, dtype=torch.uint8),
        torch.zeros(32, 64, dtype=torch.float8_e4m3fn),
    ):
        model = build_model("llama-tied")
        layer = model.model.layers[1].mlp.down_proj
        layer.weight = torch.nn.Parameter(kept, requires_grad=False)
        with pytest.raises(RoSEError) as error:
            delta.apply(model, verify=verify)
        message = str(error.value)
        assert f"{kept.dtype} on cpu cannot be edited in place; use save_peft_lora" in message
        assert "shape" not in message


def test_a_quantised_model_without_such_weights_is_told_as_such() -> None:
    """As GPTQ and AWQ keep them, under other names."""
    delta, model = make_delta(build_model("llama-tied")), build_model("llama-tied")
    del model.model.layers[1].mlp.down_proj.weight
    model.quantization_method = "gptq"
    with pytest.raises(RoSEError, match="no such weight under that name, since it is quantised"):
        delta.apply(model)


def test_an_edit_that_overflows_the_type_changes_nothing() -> None:
    model = build_model("llama-tied").half()
    delta, before = make_delta(model, scale=1e6), weights_of(model)
    with pytest.raises(RoSEError, match="not finite"):
        delta.apply(model)
    assert same_weights(model, before)
    assert not delta.is_applied(model)


@pytest.mark.parametrize("after", [1, 2])
def test_an_interrupt_while_applying_restores(after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_model("llama-tied")
    delta, before = make_delta(model), weights_of(model)
    copy_, left = torch.Tensor.copy_, after

    def interrupted(self: torch.Tensor, other: torch.Tensor, *args: Any) -> torch.Tensor:
        nonlocal left
        result = copy_(self, other, *args)
        left -= 1
        if left == 0:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(torch.Tensor, "copy_", interrupted)
    with pytest.raises(KeyboardInterrupt):
        delta.apply(model)
    monkeypatch.undo()
    assert same_weights(model, before)
    assert not delta.is_applied(model)
    delta.apply(model)


def test_an_interrupt_while_reverting_can_be_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_model("llama-tied")
    delta, before = make_delta(model), weights_of(model)
    delta.apply(model)

    def interrupted(*_args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "copy_", interrupted)
        with pytest.raises(KeyboardInterrupt):
            delta.revert(model)
    delta.revert(model)
    assert same_weights(model, before)


def test_an_edit_survives_the_disk(pair: tuple[Any, EditDelta], tmp_path: Path) -> None:
    model, delta = pair
    path = delta.save(tmp_path / "new" / "edit.safetensors")
    loaded = EditDelta.load(path)
    assert path == tmp_path / "new" / "edit.safetensors"
    assert (loaded.base, loaded.provenance) == (delta.base, delta.provenance)
    assert loaded.layers.keys() == delta.layers.keys()
    for name, factors in delta.layers.items():
        other = loaded.layers[name]
        assert torch.equal(other.left, factors.left)
        assert torch.equal(other.right, factors.right)
        assert other.transposed == factors.transposed
    assert torch.equal(loaded.targets, delta.targets)
    with delta.applied(model):
        weights = weights_of(model)
    with loaded.applied(model):
        assert same_weights(model, weights)
    assert list(path.parent.iterdir()) == [path]
    assert loaded.save(tmp_path / "again").read_bytes() == path.read_bytes()


def test_an_edit_from_disk_knows_its_base_whatever_the_order_of_its_layers(tmp_path: Path) -> None:
    # a file's header sorts names as text, layer 10 before layer 9
    model = build_model("llama-tied")
    delta = make_delta(model)
    layers = dict(reversed(delta.layers.items()))
    base = weights_fingerprint((name, model.get_parameter(name)) for name in layers)
    path = EditDelta(layers, base).save(tmp_path / "edit.safetensors")
    before = weights_of(model)
    with EditDelta.load(path).applied(model):
        assert not same_weights(model, before)


def test_layers_from_disk_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    names = [f"model.layers.{number}.mlp.down_proj.weight" for number in (2, 9, 10, 11, 100)]
    layers = {name: Factors(torch.ones(2, 1), torch.ones(1, 3)) for name in names}
    path = EditDelta(layers, "base").save(tmp_path / "edit.safetensors")
    assert list(EditDelta.load(path).layers) == names


def test_an_edit_without_targets_survives_the_disk(tmp_path: Path) -> None:
    delta = make_delta(build_model("llama-tied"))
    bare = EditDelta(delta.layers, delta.base, delta.provenance)
    loaded = EditDelta.load(bare.save(tmp_path / "bare.safetensors"))
    assert bare.targets is None and loaded.targets is None


def test_the_file_is_plain_safetensors_with_the_record_in_its_header(tmp_path: Path) -> None:
    from safetensors import safe_open

    delta = make_delta(build_model("llama-tied"))
    with safe_open(delta.save(tmp_path / "a.safetensors"), framework="pt") as file:
        record = json.loads(file.metadata()["rose_easyedit.delta/2"])
        assert record["provenance"] == delta.provenance.as_dict()
        assert len(list(file.keys())) == 2 * len(delta.layers) + 1  # and the targets


def test_an_edit_is_small(pair: tuple[Any, EditDelta], tmp_path: Path) -> None:
    _, delta = pair
    assert delta.n_parameters == (3 + 2) * sum(next(iter(delta.layers.values())).dense().shape)
    assert delta.save(tmp_path / "a").stat().st_size < 4 * delta.n_parameters + 2000


def test_every_truncation_is_detected(tmp_path: Path) -> None:
    path = make_delta(build_model("llama-tied")).save(tmp_path / "a.safetensors")
    content = path.read_bytes()
    for size in (0, 1, 7, 8, 9, 100, len(content) // 2, len(content) - 4, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(RoSEError, match="damaged"):
            EditDelta.load(path)


def test_every_flipped_bit_in_the_numbers_is_detected(tmp_path: Path) -> None:
    path = make_delta(build_model("llama-tied")).save(tmp_path / "a.safetensors")
    content = path.read_bytes()
    (header,) = struct.unpack("<Q", content[:8])
    for place in range(8 + header, len(content), 97):
        flipped = bytearray(content)
        flipped[place] ^= 1 << (place % 8)
        path.write_bytes(flipped)
        with pytest.raises(RoSEError, match="damaged"):
            EditDelta.load(path)


def test_a_flipped_bit_in_the_header_does_no_harm(tmp_path: Path) -> None:
    """It is detected, or it changes what no weight depends on, or the edit fits no model."""
    model = build_model("llama-tied")
    delta, before = make_delta(model), weights_of(model)
    with delta.applied(model):
        edited = weights_of(model)
    path = delta.save(tmp_path / "a.safetensors")
    content = path.read_bytes()
    (header,) = struct.unpack("<Q", content[:8])
    n_refused = 0
    for place in range(0, 8 + header, 7):
        flipped = bytearray(content)
        flipped[place] ^= 1 << (place % 7)
        path.write_bytes(flipped)
        try:
            with EditDelta.load(path).applied(model):
                assert same_weights(model, edited)
        except RoSEError:
            n_refused += 1
        assert same_weights(model, before)
    assert n_refused > 10


def write_foreign(path: Path, metadata: dict[str, str] | None) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.ones(2)}, path, metadata=metadata)


def test_other_files_are_no_edits(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(RoSEError, match="There is no edit file"):
        EditDelta.load(path)
    with pytest.raises(RoSEError, match="is a folder, and no edit file"):
        EditDelta.load(tmp_path)
    path.write_text("layers: [1]")
    with pytest.raises(RoSEError, match="damaged or no edit"):
        EditDelta.load(path)
    write_foreign(path, None)
    with pytest.raises(RoSEError, match="not an edit of this version .its header has nothing"):
        EditDelta.load(path)
    write_foreign(path, {"format": "pt"})
    with pytest.raises(RoSEError, match="holds the weights of a model or an adapter"):
        EditDelta.load(path)
    write_foreign(path, {"rose_easyedit.delta/9": "{}", "format": "pt"})
    with pytest.raises(
        RoSEError, match="has 'format', 'rose_easyedit.delta/9', expected .*delta/2"
    ):
        EditDelta.load(path)


@pytest.mark.parametrize(
    "record",
    [
        "{",
        "[]",
        "3",
        "null",
        "{}",
        '{"layers": [], "base": "", "provenance": {}, "sha256": ""}',
        '{"layers": {"b": false}, "base": "", "provenance": {}, "sha256": ""}',
        '{"layers": {}, "base": "", "provenance": {}, "sha256": ""}',
    ],
)
def test_a_broken_record_is_an_error_of_ours(record: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_foreign(path, {"rose_easyedit.delta/2": record})
    with pytest.raises(RoSEError, match="damaged"):
        EditDelta.load(path)


@pytest.mark.parametrize(
    ("left", "right", "message"),
    [
        (torch.ones(4, 2), torch.ones(3, 5), "do not match"),
        (torch.ones(4), torch.ones(3, 5), "do not match"),
        (torch.ones(4, 2).int(), torch.ones(2, 5), "type torch.int32"),
        (torch.full((4, 2), float("nan")), torch.ones(2, 5), "not finite"),
    ],
)
def test_factors_that_are_no_update(
    left: torch.Tensor, right: torch.Tensor, message: str, tmp_path: Path
) -> None:
    path = EditDelta({"w": Factors(left, right)}, "base").save(tmp_path / "a")
    with pytest.raises(RoSEError, match=f"(?s)is damaged.*w: .*{message}"):
        EditDelta.load(path)


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_file(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build_model("llama-tied")
    path = make_delta(model).save(tmp_path / "a.safetensors")
    old = path.read_bytes()

    def fail(*_args: Any) -> None:
        raise error

    for function in ("replace", "fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(os, function, fail)
            with pytest.raises(type(error)):
                make_delta(model, scale=0.7).save(path)
        assert path.read_bytes() == old
        assert list(tmp_path.iterdir()) == [path]


def test_the_file_can_be_read_by_others(tmp_path: Path) -> None:
    """As any file that a program writes: by the user's own mask, not for the owner alone."""
    path = make_delta(build_model("llama-tied")).save(tmp_path / "a.safetensors")
    (tmp_path / "plain").write_text("")
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("transposed", [False, True])
def test_compression_keeps_the_product_and_drops_the_rest(transposed: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(8, 3, generator=generator).double()
    right = torch.randn(3, 12, generator=generator).double()
    doubled = Factors(torch.cat([left, left], 1), torch.cat([right, -0.5 * right]), transposed)
    small = doubled.compressed()
    assert small.rank == 3
    assert small.left.dtype == small.right.dtype == torch.float32
    wanted = 0.5 * left @ right
    torch.testing.assert_close(small.dense(), wanted.T if transposed else wanted, rtol=0, atol=1e-5)
    assert small.dense().shape == ((12, 8) if transposed else (8, 12))


def test_compression_of_many_columns_and_of_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    wide = Factors(torch.randn(4, 50, generator=generator), torch.randn(50, 6, generator=generator))
    small = wide.compressed()
    assert small.rank == 4
    torch.testing.assert_close(small.dense(), wide.dense(), rtol=0, atol=1e-4)
    nothing = Factors(torch.zeros(4, 3), torch.zeros(3, 6)).compressed()
    assert nothing.rank == 1
    assert float(nothing.dense().abs().max()) == 0.0


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (torch.ones(2, 32), r"2, but there are 1 groups"),
        (torch.ones(32), r"\(32,\) of type torch.float32"),
        (torch.ones(1, 32).int(), "of type torch.int32"),
        (torch.full((1, 32), torch.inf), "not finite"),
    ],
)
def test_targets_that_are_none(targets: torch.Tensor, message: str, tmp_path: Path) -> None:
    delta = make_delta(build_model("llama-tied"))
    edit = EditDelta(delta.layers, delta.base, delta.provenance, targets)
    with pytest.raises(RoSEError, match=f"(?s)is damaged.*targets: .*{message}"):
        EditDelta.load(edit.save(tmp_path / "a"))


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("requests", [{"prompt": "a"}]),
        ("requests", 3),
        ("losses", [1.0, 2.0]),
        ("losses", [10**400]),
        ("groups", [[1]]),
        ("replaced", 5),
        ("replaced", [{}]),
        ("steps", [1, 2]),
        ("hparams", ["a"]),
        ("hparams", {"model_name": "${oc.env:HOME}"}),
        ("log", [1]),
        ("versions", None),
        ("dtype", 3),
        ("version", 2),
        ("layers", [{"layer": 1}]),
        ("disturbance", "none"),
        ("calibration", 1.0),
    ],
)
def test_a_record_of_other_types_is_refused(entry: str, value: Any, tmp_path: Path) -> None:
    delta = make_delta(build_model("llama-tied"))
    record = {**delta.provenance.as_dict(), entry: value}
    with pytest.raises(RoSEError, match=f"(?s)cannot be read.*{entry[:7]}"):
        EditDelta(delta.layers, delta.base, record)
    edit = EditRecord(delta.layers, delta.base, record, delta.targets)
    with pytest.raises(RoSEError, match=f"(?s)is damaged.*{entry[:7]}"):
        EditDelta.load(write_edit(tmp_path / "a", edit))


def test_what_a_file_says_of_a_weight_is_part_of_its_checksum(tmp_path: Path) -> None:
    """A square weight would take the edit either way up."""
    path = EditDelta({"w": Factors(torch.ones(2, 1), torch.ones(1, 2))}, "base").save(
        tmp_path / "a"
    )
    content = path.read_bytes()
    path.write_bytes(content.replace(b'{\\"w\\": false}', b'{\\"w\\": true }'))
    assert path.read_bytes() != content
    with pytest.raises(RoSEError, match="its content has changed"):
        EditDelta.load(path)


def test_a_file_that_may_not_be_replaced_stays(tmp_path: Path) -> None:
    delta = make_delta(build_model("llama-tied"))
    path = delta.save(tmp_path / "a", replace=False)
    whole = path.read_bytes()
    path.write_bytes(b"precious")
    with pytest.raises(RoSEError, match="exists by now; name another file"):
        delta.save(path, replace=False)
    assert path.read_bytes() == b"precious"
    assert delta.save(path).read_bytes() == whole
    assert list(tmp_path.iterdir()) == [path]


def test_without_links_a_file_is_not_replaced_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: Any) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    delta = make_delta(build_model("llama-tied"))
    path = delta.save(tmp_path / "a", replace=False)
    with pytest.raises(RoSEError, match="exists by now"):
        delta.save(path, replace=False)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_is_told_from_one_with_a_single_other_number(dtype: torch.dtype) -> None:
    model = build_model("llama-tied").to(dtype)
    before = model_fingerprint(model)
    assert model_fingerprint(build_model("llama-tied").to(dtype)) == before
    embeddings = model.get_input_embeddings().weight
    with torch.no_grad():
        embeddings[3, 5] += 1
    assert model_fingerprint(model) != before
