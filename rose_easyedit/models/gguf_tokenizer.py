"""The tokenizer of a GGUF file, as llama.cpp splits text with it.

transformers builds it from the file, and passes over what this module sets: the pre-tokenizers of
its default class, merges that whole words go without, a beginning of text that llama.cpp adds
unasked, and the space that it leaves out (`src/llama-vocab.cpp`).
"""

from __future__ import annotations

from typing import Any

from rose_easyedit.errors import RoSEError, shown
from rose_easyedit.models.gguf_header import Header

# Names of `tokenizer.ggml.pre`. transformers splits as GPT-2 does where it knows none.
_AS_GPT2 = frozenset({"gpt-2", "phi-2", "mpt", "olmo", "jais"})
_DIGITS_APART = frozenset({"smollm", "starcoder", "refact", "codeshell", "exaone", "minerva-7b"})
# llama.cpp takes a word that is in the vocabulary whole, and begins each text, unless told not to.
_WHOLE_WORDS = frozenset(
    {"llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "tekken"}
)


def check_tokenizer(header: Header) -> None:
    """Refuses a tokenizer that would split text in another way than llama.cpp does.

    Raises:
        RoSEError: with its name.
    """
    kind = header.values.get("tokenizer.ggml.model")
    splitting = header.values.get("tokenizer.ggml.pre")
    if kind == "gpt2":
        known = _AS_GPT2 | _DIGITS_APART | set(_splits_of_transformers())
        if splitting in known:
            return
        fault = f"splits text as {shown(splitting)} does; known are {', '.join(sorted(known))}"
    elif kind == "llama":
        return
    else:
        fault = f"has a tokenizer of the kind {shown(kind)}; known are gpt2 and llama"
    raise RoSEError(
        f"The GGUF file {str(header.path)!r} {fault}. Name the model in Hugging Face's form."
    )


def as_llama_cpp(tokenizer: Any, header: Header, context: int) -> Any:
    """The tokenizer with what transformers has passed over.

    Args:
        tokenizer: as transformers' loader made it; changed.
        header: of the file.
        context: the most tokens that the model reads.

    Returns:
        One of a class that takes its file as it is, and builds nothing anew from the vocabulary.
    """
    from tokenizers import pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = tokenizer.backend_tokenizer
    splitting = header.values.get("tokenizer.ggml.pre")
    if header.values["tokenizer.ggml.model"] == "llama":
        if header.values.get("tokenizer.ggml.add_space_prefix") is False:
            _without_space(backend)
    elif splitting in _DIGITS_APART:
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
        )
    elif splitting in _WHOLE_WORDS:
        backend.model.ignore_merges = True
        if "tokenizer.ggml.add_bos_token" not in header.values:
            tokenizer.add_bos_token = True
    names = ("bos_token", "eos_token", "pad_token", "unk_token")
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        **{name: getattr(tokenizer, name) for name in names},
        model_max_length=context,
        chat_template=tokenizer.chat_template,
        clean_up_tokenization_spaces=False,
    )


def _without_space(backend: Any) -> None:
    """Takes away the space that a sentencepiece tokenizer writes before a text."""
    from tokenizers import decoders, normalizers, pre_tokenizers

    if isinstance(backend.normalizer, normalizers.Sequence):  # Phi-3's, which prepends
        backend.normalizer = normalizers.Replace(" ", "\u2581")
    elif isinstance(backend.pre_tokenizer, pre_tokenizers.Metaspace):
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )


def _splits_of_transformers() -> dict[str, str]:
    try:
        from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS
    except ImportError:  # an older release, which splits as GPT-2 does
        return {}
    return dict(GGUF_PRE_TOKENIZER_SPLITS)
