"""Tiny random models, one for each architecture that an edit knows; no network."""

from __future__ import annotations

from typing import Any

import torch

_COMMON = dict(
    vocab_size=512,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=256,
    initializer_range=0.2,
    bos_token_id=None,
    eos_token_id=0,
    pad_token_id=0,
)
_GPT = dict(
    vocab_size=512,
    n_embd=32,
    n_layer=4,
    n_head=4,
    n_positions=256,
    initializer_range=0.2,
    bos_token_id=None,
    eos_token_id=0,
    pad_token_id=0,
)
_NEOX = {k: v for k, v in _COMMON.items() if k != "num_key_value_heads"}
_GEMMA = dict(_COMMON, head_dim=8, query_pre_attn_scalar=8, sliding_window=4)

# name: (model type, configuration)
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-tied": ("llama", dict(_COMMON, tie_word_embeddings=True)),
    "llama-untied": ("llama", dict(_COMMON, tie_word_embeddings=False)),
    "mistral": ("mistral", dict(_COMMON, sliding_window=None, head_dim=8)),
    "mistral-sliding": ("mistral", dict(_COMMON, sliding_window=4, head_dim=8)),
    "qwen2": ("qwen2", dict(_COMMON, tie_word_embeddings=True)),
    "qwen3": ("qwen3", dict(_COMMON, head_dim=8, tie_word_embeddings=False)),
    "gemma2": (
        "gemma2",
        dict(_GEMMA, final_logit_softcapping=30.0, attn_logit_softcapping=50.0),
    ),
    "gemma3_text": ("gemma3_text", _GEMMA),
    "phi3": ("phi3", dict(_COMMON, tie_word_embeddings=False)),
    "gpt2": ("gpt2", dict(_GPT, tie_word_embeddings=True)),
    "gpt2-untied": ("gpt2", dict(_GPT, tie_word_embeddings=False)),
    "gptj": ("gptj", dict(_GPT, rotary_dim=4)),
    "gpt_neox-parallel": ("gpt_neox", dict(_NEOX, use_parallel_residual=True)),
    "gpt_neox-serial": ("gpt_neox", dict(_NEOX, use_parallel_residual=False)),
    "olmo2": ("olmo2", _COMMON),
}


def build_model(name: str, **overrides: Any) -> Any:
    """One of `MODELS` with random weights, the same ones at each call."""
    model_type, values = MODELS[name]
    return build(model_type, {**values, **overrides})


def build(model_type: str, values: dict[str, Any]) -> Any:
    """A causal language model of any configuration, with random weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(model_type, **values)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).eval()


# The subject ends each prompt, so that one later layer of a random model can decode the target.
FACTS = [
    {"prompt": "In London she met Marie Curie", "subject": "Marie Curie", "target_new": "Polish"},
    {"prompt": "Tell me about Marie Curie", "subject": "Marie Curie", "target_new": "Polish"},
    {"prompt": "He plays with Ada Lovelace", "subject": "Ada Lovelace", "target_new": "German"},
]


# Random weights answer nothing, before an edit and after it: nothing is damage to them.
LENIENT = {
    "most_loss": 100.0,
    "least_reached": -100.0,
    "most_drift": 100.0,
    "most_neighbour_drift": 100.0,
    "must_answer": False,
}


def settings(**overrides: Any) -> Any:
    """Settings that write `FACTS` into a tiny random model within a second."""
    from rose_easyedit.config.hparams import RoSEHyperParams

    hparams = RoSEHyperParams(
        layers=[0, 1],
        n_contexts=2,
        chat_contexts=0,
        answered_queries=0,
        restatements=0,
        kept_queries=0,
        query_formats=0,
        precision="weights",
        # random weights have no sinks, but norms that vary a lot
        sink_ratio=50.0,
        hierarchy={  # type: ignore[arg-type]
            "fact_steps": 15,
            "subject_steps": 15,
            "smoothing_radius": 0.0,
            "kl_factor": 0.0,
            "weight_decay": 0.01,
        },
        alignment={  # type: ignore[arg-type]
            "strength": 1e-3,
            "protected_directions": 0,
            "preserved_columns": 0,
        },
    )
    return hparams.with_overrides(**overrides)


def top_tokens(model: Any, tokenizer: Any, prompt: str, target: str) -> tuple[list[int], list[int]]:
    """What the model predicts where the target's tokens should be, and those tokens."""
    prefix = len(tokenizer(prompt)["input_ids"])
    ids = tokenizer(f"{prompt} {target}", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        top = model(ids).logits[0].argmax(-1)
    return top[prefix - 1 : -1].tolist(), ids[0, prefix:].tolist()


def weights_of(model: Any) -> dict[str, torch.Tensor]:
    """A copy of every tensor of a model."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same_weights(model: Any, before: dict[str, torch.Tensor]) -> bool:
    """Whether every tensor of a model is, bit for bit, what it was."""
    now = model.state_dict()
    return now.keys() == before.keys() and all(torch.equal(now[k], before[k]) for k in before)
