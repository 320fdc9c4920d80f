"""EasyEdit's own FT and LoRA, run by its functions on all facts in one call.

Its shipped settings for Llama are kept (FT: 25 rounds, one down projection two thirds up; LoRA:
rank 8, alpha 32, dropout 0.1, on the queries' and values' projections), but for four things: FT
takes the loss of the whole target (`target_new`, its better variant), a step takes 8 facts instead
of one, LoRA takes so many rounds that it makes about the 70 steps that it makes for a fact, and the
adapter is a plain one, since AdaLoRA as EasyEdit calls it is refused by today's PEFT.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

import torch
from easyedit_clone import easyedit_at

from rose_easyedit.models.architectures import read_architecture
from rose_easyedit.requests import EditRequest

BATCH = 8
FT_ROUNDS = 25
LORA_STEPS = 70
FT_DEPTH = 21 / 32


def easyedit_ft(
    model: Any, tokenizer: Any, requests: Sequence[EditRequest], learning_rate: float
) -> Any:
    """The model, changed in place by EasyEdit's FT. EASYEDIT_HOME names a clone of EasyEdit."""
    editable = read_architecture(model)
    layer = int(FT_DEPTH * editable.n_layers)
    with _easyedit("ft", tokenizer) as ft:
        hparams = ft.FTHyperParams(
            layers=[layer],
            num_steps=FT_ROUNDS,
            batch_size=BATCH,
            lr=learning_rate,
            weight_decay=0,
            kl_factor=0,
            norm_constraint=False,
            objective_optimization="target_new",
            rewrite_module_tmp=f"{editable.paths.layers}.{{}}.{editable.paths.down_projection}.weight",
            layer_module_tmp=f"{editable.paths.layers}.{{}}",
            mlp_module_tmp="",
            attn_module_tmp="",
            ln_f_module="",
            lm_head_module="",
            device="cpu",
            alg_name="FT",
            model_name=model.config.name_or_path,
        )
        return ft.apply_ft_to_model(model, tokenizer, _records(requests), hparams)[0]


def easyedit_lora(
    model: Any, tokenizer: Any, requests: Sequence[EditRequest], learning_rate: float
) -> Any:
    """The model with the adapter of EasyEdit's LoRA merged into it, changed in place."""
    use_cache = model.config.use_cache
    with _easyedit("lora", tokenizer) as lora, torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        hparams = lora.LoRAHyperParams(
            lora_type="lora",
            layers=[],
            num_steps=math.ceil(LORA_STEPS * BATCH / len(requests)),
            batch_size=BATCH,
            lr=learning_rate,
            weight_decay=0,
            kl_factor=0,
            norm_constraint=False,
            target_modules=["q_proj", "v_proj"],
            rank=8,
            lora_alpha=32,
            lora_dropout=0.1,
            device="cpu",
            alg_name="LoRA",
            model_name=model.config.name_or_path,
        )
        adapted, _ = lora.apply_lora_to_model(model, tokenizer, _records(requests), hparams)
        merged = adapted.merge_and_unload()
        # it has turned these for its training
        merged.gradient_checkpointing_disable()
        merged.disable_input_require_grads()
        merged.config.use_cache = use_cache
        return merged


@contextlib.contextmanager
def _easyedit(name: str, tokenizer: Any) -> Iterator[Any]:
    """A method's module, its prints put away, its tokenizer padding as its editor has it."""
    with (
        easyedit_at(os.environ["EASYEDIT_HOME"], f"{name}.{name}_main") as (module,),
        contextlib.redirect_stdout(io.StringIO()),
        mock.patch.object(tokenizer, "padding_side", "left"),
        torch.enable_grad(),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", FutureWarning)  # its old calls are not ours to mend
        yield module


def _records(requests: Sequence[EditRequest]) -> list[dict[str, Any]]:
    return [request.as_dict() for request in requests]
