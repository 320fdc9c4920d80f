"""Tiny tokenizers of the kinds that models have: byte-level or metaspace, with BOS or without."""

from __future__ import annotations

import copy
import json
from typing import Any

SENTENCES = (
    "Marie Curie was born in Warsaw and worked in Paris as a physicist.",
    "Rome is the capital of Italy; Romeo and Juliet lived in Verona.",
    "The mother tongue of Albert Einstein is German. He is a citizen of Switzerland.",
)
BOS = "<s>"
KINDS = ("byte-level", "prefix-space", "metaspace", "byte-level with BOS", "metaspace with BOS")


def build_tokenizer(kind: str, vocab_size: int = 420) -> Any:
    """A fast BPE tokenizer of a few sentences; `kind` is one of `KINDS`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    if "metaspace" in kind:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        alphabet: list[str] = []
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=kind == "prefix-space")
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BOS, "</s>"],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    if "metaspace" in kind:
        model = json.loads(tokenizer.to_str())["model"]
        vocab = model["vocab"] | {
            f"<0x{byte:02X}>": len(model["vocab"]) + byte for byte in range(256)
        }
        merges = [tuple(pair) for pair in model["merges"]]
        tokenizer.model = models.BPE(vocab=vocab, merges=merges, byte_fallback=True)
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
        )
    if kind.endswith("with BOS"):
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token="</s>", pad_token="</s>"
    )


def ending_texts(tokenizer: Any) -> Any:
    """A copy of a fast tokenizer that ends each text as well, as with `add_eos_token`."""
    from tokenizers import processors

    copied = copy.deepcopy(tokenizer)
    begin, end = copied.bos_token, copied.eos_token
    begins = tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    copied.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}" if begins else f"$A {end}",
        special_tokens=[
            (token, copied.convert_tokens_to_ids(token)) for token in (begin, end) if token
        ],
    )
    return copied
