"""The model's own rewritings of a statement as a question and as an instruction.

They are contexts to learn a fact in, made from its statement alone by the unedited model, with two
examples to go by. A rewriting that lost the subject, or what is said of it, is not used.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rose_easyedit.generation import generate_greedy
from rose_easyedit.requests import EditRequest

_LONGEST = 24  # tokens of a rewriting at the most
_BATCH = 32

# In the order in which they are asked for.
KINDS = (
    (
        "Question",
        "Rewrite the sentence as a question.",
        (
            ("Mount Everest is located in ___.", "Where is Mount Everest located?"),
            ("The author of Hamlet is ___.", "Who is the author of Hamlet?"),
        ),
    ),
    (
        "Instruction",
        "Rewrite the sentence as an instruction.",
        (
            (
                "Mount Everest is located in ___.",
                "Name the place where Mount Everest is located.",
            ),
            ("The author of Hamlet is ___.", "Tell me the author of Hamlet."),
        ),
    ),
)

_FILLER = frozenset(
    "the a an of in is are was were who what which where when how to for and by on at as that it "
    "its from with".split()
)


def rewritings(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[EditRequest],
    n_kinds: int,
) -> list[list[str]]:
    """The usable rewritings of each request: as a question, as an instruction.

    Args:
        model: the unedited model; greedy, so the same each time.
        tokenizer: its tokenizer.
        requests: the facts, of which only prompt and subject are read.
        n_kinds: how many kinds are asked for: 0 for none, 1 for questions, 2 for both.
    """
    found: list[list[str]] = [[] for _ in requests]
    for name, task, examples in KINDS[:n_kinds]:
        shots = "\n\n".join(f"Sentence: {a}\n{name}: {b}" for a, b in examples)
        asked = [
            f"{task}\n\n{shots}\n\nSentence: {request.prompt} ___.\n{name}:" for request in requests
        ]
        answers = generate_greedy(
            model, tokenizer, asked, chat=False, max_new_tokens=_LONGEST, batch_size=_BATCH
        )
        for texts, request, answer in zip(found, requests, answers, strict=True):
            text = answer.strip().partition("\n")[0].strip()
            if is_usable(text, request) and text not in texts:
                texts.append(text)
    return found


def is_usable(text: str, request: EditRequest) -> bool:
    """Whether a text is whole, names the subject, and keeps half of what is said of it."""
    if request.subject not in text or not text.endswith((".", "?")):
        return False
    said = _words(request.prompt.replace(request.subject, " "))
    kept = _words(text.replace(request.subject, " "))
    return bool(said) and 2 * len(said & kept) >= len(said)


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.casefold())) - _FILLER
