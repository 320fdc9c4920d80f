"""Tiny models as GGUF files, written as llama.cpp's own converter writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import torch

from rose_easyedit.models.architectures import ARCHITECTURES


def write_gguf(
    path: Path, model: Any, tokenizer: Any, splitting: str = "gpt-2", **values: Any
) -> Path:
    """Writes a model of `tiny_models` with a byte-level tokenizer.

    Args:
        path: a new file.
        model: of a family that llama.cpp knows.
        tokenizer: whose vocabulary is filled up to the model's.
        splitting: what `tokenizer.ggml.pre` says.
        values: further keys of the family, dots as underscores doubled (`rope__scaling__type`), or
            one of None to leave it out.
    """
    config, family = model.config, ARCHITECTURES[model.config.model_type].gguf
    writer = gguf.GGUFWriter(path, family)
    writer.add_name("tiny")
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    known: dict[str, Any] = {
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": getattr(config, "intermediate_size", 4 * config.hidden_size),
        "attention.head_count": heads,
        "attention.head_count_kv": getattr(config, "num_key_value_heads", heads),
        "vocab_size": config.vocab_size,
    }
    if family == "gpt2":
        known["attention.layer_norm_epsilon"] = config.layer_norm_epsilon
        del known["attention.head_count_kv"]
    else:
        known["attention.layer_norm_rms_epsilon"] = config.rms_norm_eps
        known["rope.freq_base"] = float(_rotation(config)["rope_theta"])
        known["rope.dimension_count"] = width
        known["attention.key_length"] = width
    if family in ("gemma2", "gemma3"):
        known["attention.sliding_window"] = config.sliding_window
    for key, value in {**known, **values}.items():
        _add(writer, f"{family}.{key.replace('__', '.')}", value)
    _add_tokenizer(writer, tokenizer, config.vocab_size, splitting)
    for name, tensor in _tensors(model, family):
        writer.add_tensor(name, tensor.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _rotation(config: Any) -> dict[str, Any]:
    return config.rope_parameters.get("full_attention", config.rope_parameters)


def _add(writer: Any, key: str, value: Any) -> None:
    if isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif value is not None:
        writer.add_uint32(key, value)


def _add_tokenizer(writer: Any, tokenizer: Any, size: int, splitting: str) -> None:
    import json

    written = json.loads(tokenizer.backend_tokenizer.to_str())
    words = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    special = {token["content"] for token in written["added_tokens"]}
    kinds = [gguf.TokenType.CONTROL if w in special else gguf.TokenType.NORMAL for w in words]
    for index in range(len(words), size):
        words.append(f"[PAD{index}]")
        kinds.append(gguf.TokenType.UNUSED)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(splitting)
    writer.add_token_list(words)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in written["model"]["merges"]])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_chat_template(tokenizer.chat_template)


def _tensors(model: Any, family: str) -> Any:
    """The weights under llama.cpp's names, as its converter lays them out."""
    config = model.config
    (key,) = (key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == family)
    table = gguf.get_tensor_name_map(key, config.num_hidden_layers)
    tied = config.tie_word_embeddings
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and tied:
            continue
        tensor = weight.detach().clone()
        if family in ("gemma2", "gemma3") and name.endswith("norm.weight"):
            tensor = tensor + 1
        if family == "llama" and ("q_proj" in name or "k_proj" in name):
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            tensor = _pairs_from_halves(tensor, heads)
        if family == "gpt2" and name.endswith("weight") and tensor.dim() == 2:
            if any(part in name for part in ("c_attn", "c_proj", "c_fc")):
                tensor = tensor.T
        yield table.get_name(name, try_suffixes=(".weight", ".bias")), tensor


def _pairs_from_halves(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Puts the two rows that a rotation mixes side by side, half a head apart in transformers."""
    halves = weight.view(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return halves.transpose(1, 2).reshape(weight.shape)
