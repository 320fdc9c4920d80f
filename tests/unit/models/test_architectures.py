"""Each architecture on a tiny random model: the edit takes hold, comes off, touches nothing."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import (
    FACTS,
    MODELS,
    build,
    build_model,
    same_weights,
    settings,
    top_tokens,
    weights_of,
)

from rose_easyedit.errors import RoSEError
from rose_easyedit.method.edit import compute_edit
from rose_easyedit.method.extend import extend
from rose_easyedit.method.stage2.layers import _before_norm
from rose_easyedit.models.architectures import ARCHITECTURES, read_architecture

NEW = {"prompt": "He plays with Isaac Newton", "subject": "Isaac Newton", "target_new": "Polish"}


def test_every_known_architecture_is_tested() -> None:
    assert {model_type for model_type, _ in MODELS.values()} == set(ARCHITECTURES)


def assert_edit_takes_hold_and_comes_off(model: Any, tokenizer: Any, **overrides: Any) -> None:
    before = weights_of(model)
    delta = compute_edit(model, tokenizer, FACTS, settings(**overrides))
    assert same_weights(model, before)
    delta.apply(model)
    assert not same_weights(model, before)
    for fact in FACTS:
        top, target = top_tokens(model, tokenizer, fact["prompt"], fact["target_new"])
        assert top == target
    delta.revert(model)
    assert same_weights(model, before)


@pytest.mark.parametrize("name", MODELS)
def test_an_edit_takes_hold_and_comes_off(name: str, tiny_tokenizer: Any) -> None:
    model = build_model(name)
    for fact in FACTS:
        top, target = top_tokens(model, tiny_tokenizer, fact["prompt"], fact["target_new"])
        assert top != target
    assert_edit_takes_hold_and_comes_off(model, tiny_tokenizer)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["llama-tied", "gpt2", "gemma3_text", "gpt_neox-parallel"])
def test_half_precision_weights(name: str, dtype: torch.dtype, tiny_tokenizer: Any) -> None:
    model = build_model(name).to(dtype)
    assert_edit_takes_hold_and_comes_off(model, tiny_tokenizer)
    assert all(parameter.dtype == dtype for parameter in model.parameters())


@pytest.mark.parametrize("name", ["gpt2", "gptj", "gpt_neox-parallel"])
def test_layer_norms_in_float16_are_computed_in_their_own_precision(
    name: str, tiny_tokenizer: Any
) -> None:
    """Autocast to bfloat16 has no such layer norm on a CPU."""
    model = build_model(name).to(torch.float16)
    assert_edit_takes_hold_and_comes_off(model, tiny_tokenizer, precision="auto")
    with pytest.raises(RoSEError, match="(?s)precision is 'bfloat16'.*layer norms.*float16"):
        compute_edit(model, tiny_tokenizer, FACTS, settings(precision="bfloat16"))


def test_the_loss_to_rounding_is_reported(tiny_tokenizer: Any) -> None:
    loss = {}
    for dtype in (torch.float32, torch.bfloat16):
        delta = compute_edit(build_model("llama-tied").to(dtype), tiny_tokenizer, FACTS, settings())
        loss[dtype] = max(layer.rounding_loss for layer in delta.provenance.layers)
    assert loss[torch.float32] < 1e-5 < 1e-4 < loss[torch.bfloat16] < 0.1


def test_bfloat16_autocast_leaves_the_weights_type(tiny_tokenizer: Any) -> None:
    model = build_model("llama-tied")
    assert_edit_takes_hold_and_comes_off(model, tiny_tokenizer, precision="bfloat16")
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_nothing_but_the_answer_is_left_of_a_computation(tiny_tokenizer: Any) -> None:
    model = build_model("llama-untied").train()
    model.model.layers[2].eval()
    for index, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(index % 2 == 0)
    tiny_tokenizer.padding_side = "left"

    def state() -> dict[str, Any]:
        return {
            "training": [module.training for module in model.modules()],
            "gradients": [parameter.requires_grad for parameter in model.parameters()],
            "grad": [parameter.grad for parameter in model.parameters()],
            "hooks": [
                (len(module._forward_hooks), len(module._forward_pre_hooks))
                for module in model.modules()
            ],
            "torch": torch.get_rng_state().tolist(),
            "python": random.getstate(),
            "numpy": np.random.get_state()[1].tolist(),
            "padding": tiny_tokenizer.padding_side,
            "threads": torch.get_num_threads(),
            "config": model.config.to_dict(),
        }

    before, weights = state(), weights_of(model)
    try:
        compute_edit(
            model,
            tiny_tokenizer,
            FACTS,
            settings(hierarchy={"smoothing_radius": 0.3}, query_formats=2, chat_contexts=1),
        )
        assert state() == before
        assert same_weights(model, weights)
    finally:
        tiny_tokenizer.padding_side = "right"


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("precision", ["weights", "bfloat16"])
def test_an_edit_where_the_caller_has_turned_gradients_off(
    mode: Any, precision: str, tiny_tokenizer: Any
) -> None:
    model, hparams = build_model("llama-tied"), settings(precision=precision, kept_queries=1)
    before = weights_of(model)
    with mode():
        within = compute_edit(model, tiny_tokenizer, FACTS, hparams)
        assert not torch.is_grad_enabled()
        assert torch.is_inference_mode_enabled() is (mode is torch.inference_mode)
    outside = compute_edit(model, tiny_tokenizer, FACTS, hparams)
    for name, factors in outside.layers.items():
        assert torch.equal(factors.dense(), within.layers[name].dense())
    with within.applied(model):
        assert not same_weights(model, before)
    assert same_weights(model, before)
    # its targets are as good as any
    more = extend(model, tiny_tokenizer, within, [NEW])
    again = extend(model, tiny_tokenizer, outside, [NEW])
    assert more.fingerprint == again.fingerprint


def test_a_model_loaded_in_inference_mode_is_refused(tiny_tokenizer: Any) -> None:
    with torch.inference_mode():
        model = build_model("llama-tied")
        with pytest.raises(RoSEError, match="within torch.inference_mode.*load it outside"):
            compute_edit(model, tiny_tokenizer, FACTS, settings())
    with pytest.raises(RoSEError, match="within torch.inference_mode.*load it outside"):
        compute_edit(model, tiny_tokenizer, FACTS, settings())


def test_dropout_is_off_while_editing(tiny_tokenizer: Any) -> None:
    still = build_model("gpt2", resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5)
    in_training = build_model("gpt2", resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5).train()
    one, other = (
        compute_edit(model, tiny_tokenizer, FACTS, settings()) for model in (still, in_training)
    )
    for name, factors in one.layers.items():
        assert torch.equal(factors.dense(), other.layers[name].dense())


@pytest.mark.parametrize("name", ["gemma2", "gemma3_text", "olmo2"])
def test_a_norm_behind_the_down_projection_is_undone(name: str) -> None:
    editable = read_architecture(build_model(name))
    norm = editable.post_norms[1]
    assert norm is not None
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        norm.weight.copy_(torch.rand(32, generator=generator) + 0.5)
        outputs = torch.randn(5, 32, generator=generator)
        # reachable gains: the norm fixes the length of what it adds
        goal = norm(outputs + 0.3 * torch.randn(5, 32, generator=generator))
        gain = _before_norm(editable, 1, goal - norm(outputs), outputs, torch.ones(32))
        torch.testing.assert_close(norm(outputs + gain), goal, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("model_type", "values", "n_experts"),
    [
        ("mixtral", {"num_local_experts": 2, "num_experts_per_tok": 1}, 2),
        ("qwen3_moe", {"num_experts": 4, "moe_intermediate_size": 16}, 4),
    ],
)
def test_a_mixture_of_experts_is_refused(
    model_type: str, values: dict[str, Any], n_experts: int, tiny_tokenizer: Any
) -> None:
    model = build(model_type, {**MODELS["mistral"][1], **values})
    with pytest.raises(RoSEError, match=f"mixture of experts .*experts = {n_experts}"):
        compute_edit(model, tiny_tokenizer, FACTS, settings())


def test_quantised_weights_are_refused_with_the_way_out(tiny_tokenizer: Any) -> None:
    model = build_model("llama-tied")
    model.is_quantized = True
    with pytest.raises(RoSEError, match="quantised.*save_peft_lora"):
        compute_edit(model, tiny_tokenizer, FACTS, settings())


@pytest.mark.parametrize("part", ["lm_head", "model"])
def test_weights_that_are_not_loaded_are_refused(part: str, tiny_tokenizer: Any) -> None:
    model = build_model("llama-untied")
    model.get_submodule(part).to("meta")
    with pytest.raises(RoSEError, match="not loaded.*device_map"):
        compute_edit(model, tiny_tokenizer, FACTS, settings())


def test_an_unknown_architecture_is_told_how_to_add_a_row(tiny_tokenizer: Any) -> None:
    model = build("bloom", {"vocab_size": 512, "hidden_size": 16, "n_layer": 2, "n_head": 2})
    with pytest.raises(RoSEError, match="'bloom' is not known.*llama.*ARCHITECTURES.*row"):
        compute_edit(model, tiny_tokenizer, FACTS, settings())


def test_a_model_without_a_head_is_refused(tiny_tokenizer: Any) -> None:
    from transformers import LlamaConfig, LlamaForSequenceClassification, LlamaModel

    config = LlamaConfig(**MODELS["llama-tied"][1])
    for model in (LlamaModel(config), LlamaForSequenceClassification(config)):
        with pytest.raises(RoSEError, match=f"{type(model).__name__}.*AutoModelForCausalLM"):
            compute_edit(model, tiny_tokenizer, FACTS, settings())


def test_a_wrapped_model_is_refused(tiny_tokenizer: Any) -> None:
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(
        build_model("llama-tied"), peft.LoraConfig(target_modules=["down_proj"], r=2)
    )
    with pytest.raises(RoSEError, match="without adapters"):
        compute_edit(model, tiny_tokenizer, FACTS, settings())


def test_a_layer_that_is_not_there(tiny_tokenizer: Any) -> None:
    with pytest.raises(RoSEError, match=r"Layer 4 .* has 4 layers \(0 to 3\)"):
        compute_edit(build_model("llama-tied"), tiny_tokenizer, FACTS, settings(layers=[3, 4]))


def test_the_last_layer_can_be_the_target_layer(tiny_tokenizer: Any) -> None:
    assert_edit_takes_hold_and_comes_off(
        build_model("llama-tied"), tiny_tokenizer, layers=[1, 2], z_layer=3
    )
