"""A GGUF file as a model: read by transformers' own loader, its weights expanded to float32."""

from __future__ import annotations

import io
import sys
from contextlib import nullcontext, redirect_stderr
from pathlib import Path
from typing import Any

from rose_easyedit.errors import RoSEError, first_line
from rose_easyedit.models.expanded import expanded, sha256
from rose_easyedit.models.gguf_header import Header, carry_over, read_header
from rose_easyedit.models.gguf_tokenizer import as_llama_cpp, check_tokenizer

# Where a model that answers chats ends its turn, beside the end of a text.
_ENDS = ("eos_token_id", "eot_token_id", "eom_token_id")
_PROBE = (
    "In 1999, M\u00fcller's 3 dogs \u2014 \u6771\u4eac!\n\n\tdef f(x):  return x  # \U0001f600 "
)


def gguf_model(path: Path) -> Path:
    """The folder of a GGUF file's model, which it is expanded into once, by its checksum.

    Args:
        path: of the file.

    Returns:
        A folder that `from_pretrained` reads, every file as its checksum says.

    Raises:
        RoSEError: the file holds no model that can be edited, or the cache cannot be written.
    """
    checksum = sha256(path)
    # four bits become 32, and the draft of a second file may stand beside
    megabytes = path.stat().st_size * 8 // 10**6 + 100
    return expanded(
        f"gguf-{checksum[:32]}-v1", megabytes, checksum, lambda folder: expand_gguf(path, folder)
    )


def expand_gguf(path: Path, folder: Path) -> None:
    """Writes weights, configuration and tokenizer of a GGUF file in Hugging Face's form.

    Raises:
        RoSEError: it is no GGUF file, of a family that an edit or transformers does not know, of a
            tokenizer that transformers cannot convert, or has weights that have no place in its
            model, or the other way round.
    """
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoTokenizer

    header = read_header(path)
    source = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    # the loader's bars know no terminal
    with nullcontext() if sys.stderr.isatty() else redirect_stderr(io.StringIO()):
        try:
            check_tokenizer(header)
            config = AutoConfig.from_pretrained(**source)
            carry_over(header, config)
            tokenizer = AutoTokenizer.from_pretrained(**source)
            tokenizer = as_llama_cpp(tokenizer, header, config.max_position_embeddings)
            tokenizer.save_pretrained(folder)
            _weights(header, config, source).save_pretrained(folder)
        except (RoSEError, OSError, MemoryError, SafetensorError):  # of what is written
            raise
        # what a file says may be of any type, and the loader trusts it
        except Exception as error:
            raise RoSEError(
                f"transformers cannot read the GGUF file {str(path)!r}: "
                f"{first_line(str(error)) or type(error).__name__}"
            ) from error
        read_back = AutoTokenizer.from_pretrained(str(folder))
    if read_back(_PROBE).input_ids != tokenizer(_PROBE).input_ids:
        raise RoSEError(
            f"The tokenizer of the GGUF file {str(path)!r} is another one once transformers has "
            "kept it; name the model in Hugging Face's form."
        )


def _weights(header: Header, config: Any, source: dict[str, str]) -> Any:
    """The model in float32, as if it had never been quantised."""
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    model, found = AutoModelForCausalLM.from_pretrained(
        **source, config=config, dtype=torch.float32, output_loading_info=True
    )
    taken = sum(parameter.numel() for parameter in model.parameters())
    if found["missing_keys"] or found["mismatched_keys"] or taken != header.n_weights:
        missing = ", ".join(sorted(map(str, found["missing_keys"]))) or "none"
        raise RoSEError(
            f"The GGUF file {str(header.path)!r} has {header.n_weights} numbers and a "
            f"{type(model).__name__} takes {taken} (missing: {missing}): it is a variant of "
            f"{header.family} that transformers does not read; name the model in Hugging Face's "
            "form."
        )
    for owner, name in ((model, "hf_quantizer"), (model.config, "quantization_config")):
        if hasattr(owner, name):
            delattr(owner, name)
    # the file's title, and an entry that no configuration of a model has elsewhere
    for name in ("_model_name_or_path", "unk_token_id"):
        if hasattr(model.config, name):
            delattr(model.config, name)
    keys = (f"tokenizer.ggml.{name}" for name in _ENDS)
    ends = sorted({header.values[key] for key in keys if key in header.values})
    model.generation_config = GenerationConfig(
        bos_token_id=header.values.get("tokenizer.ggml.bos_token_id"),
        eos_token_id=ends if len(ends) > 1 else next(iter(ends), None),
        pad_token_id=header.values.get("tokenizer.ggml.padding_token_id"),
    )
    return model
