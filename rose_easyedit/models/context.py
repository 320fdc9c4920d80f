"""How many tokens a model reads: more of them are answered, too, but with nonsense."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rose_easyedit.errors import RoSEError


def context_length(model: Any) -> int:
    """The most tokens, prompt and answer, that a model was made for; very many if it names none."""
    config = model.config.get_text_config()
    return int(getattr(config, "max_position_embeddings", None) or 10**9)


def check_context(model: Any, rows: Sequence[Sequence[int]], max_new_tokens: int) -> None:
    """Refuses prompts that leave no room for an answer of the length that is asked for.

    Args:
        model: A causal language model.
        rows: Token ids of each prompt.
        max_new_tokens: Most tokens per answer.

    Raises:
        RoSEError: The longest prompt with its answer is longer than the model's context.
    """
    length, longest = context_length(model), max(map(len, rows), default=0)
    if longest + max_new_tokens <= length:
        return
    room = length - longest
    advice = (
        f", or ask for {room} at the most (max_new_tokens, --max-new-tokens)" if room > 0 else ""
    )
    raise RoSEError(
        f"The prompt has {longest} tokens and its answer may have {max_new_tokens}, and the model "
        f"reads {length} in all; shorten the prompt{advice}."
    )
