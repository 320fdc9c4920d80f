"""A tiny random Llama, and a tokenizer built from a few sentences; no network."""

from __future__ import annotations

from typing import Any

from tiny_models import build_model

SENTENCES = (
    "Marie Curie was born in Warsaw and worked in Paris as a physicist.",
    "Albert Einstein is a citizen of Switzerland. He speaks German and plays the violin.",
    "The mother tongue of Marie Curie is Polish; the profession of Isaac Newton is astronomer.",
    "Who is Ada Lovelace? Tell me about Ada Lovelace, please. She lived in London, England.",
    "In what country was Albert Einstein born? Albert Einstein was born in Germany.",
    "Complete the following sentence: Isaac Newton's native language is English, not Spanish.",
)
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def build_tokenizer(vocab_size: int = 512) -> Any:
    """A byte-level BPE tokenizer of a few sentences, with a chat template and no BOS."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|end|>", "<|user|>", "<|assistant|>", "<|system|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|end|>",
        pad_token="<|end|>",
        chat_template=CHAT_TEMPLATE,
        model_max_length=256,
        clean_up_tokenization_spaces=False,
    )


def build_llama(**overrides: Any) -> Any:
    """A Llama of 4 layers with random weights, the same ones at each call."""
    return build_model("llama-tied", **overrides)
