"""One model, asked everything once: its answers, its view of the targets, and of other text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from tqdm import tqdm

from rose_easyedit.evaluation.facts import SUBJECT, Fact, LocalityPrompt, Query
from rose_easyedit.evaluation.fluency import TextReading, generic_sentences, read_text
from rose_easyedit.evaluation.metrics import next_token_logprobs
from rose_easyedit.evaluation.queries import as_text, queries_of
from rose_easyedit.evaluation.settings import EvaluationSettings
from rose_easyedit.evaluation.teacher_forcing import TargetReading, read_targets
from rose_easyedit.forward.generation import generate_greedy
from rose_easyedit.models.lock import one_at_a_time
from rose_easyedit.text.chat import in_questions

_Value = TypeVar("_Value")
Target = tuple[Query, str]


@dataclass(frozen=True)
class Questions:
    """What a model is asked: queries and targets each once, in a fixed order."""

    queries: tuple[Query, ...]
    targets: tuple[Target, ...]
    locality: tuple[LocalityPrompt, ...]

    @classmethod
    def of(
        cls,
        facts: Sequence[Fact],
        locality: Sequence[LocalityPrompt],
        settings: EvaluationSettings,
    ) -> Questions:
        """All that an evaluation of these facts asks."""
        targets = [(q, fact.target_new) for fact in facts for q in queries_of(fact, settings.forms)]
        return cls(
            queries=tuple(dict.fromkeys(query for query, _ in targets)),
            targets=tuple(dict.fromkeys(targets)) if settings.teacher_forcing else (),
            locality=tuple(locality),
        )


@dataclass(frozen=True)
class Measurement:
    """What one model makes of its questions.

    Attributes:
        answers: The greedy answer to each query.
        readings: Each target behind its query; empty if that was not asked for.
        logprobs: Of the token after each locality prompt, float32 [prompts, vocabulary], on CPU.
        locality_answers: The greedy answer to each locality prompt, None where not asked for:
            always to those of the kind `SUBJECT`, to others with `locality_text`.
        generic: The generic sentences.
    """

    answers: dict[Query, str]
    readings: dict[Target, TargetReading]
    logprobs: torch.Tensor
    locality_answers: tuple[str | None, ...]
    generic: TextReading


@one_at_a_time
def measure(
    model: Any, tokenizer: Any, questions: Questions, settings: EvaluationSettings, when: str
) -> Measurement:
    """Asks a model all questions; a base model in the form "Question: ... Answer:".

    Args:
        model: A causal language model; it is left as it was.
        tokenizer: Its tokenizer.
        questions: What to ask.
        settings: How to ask.
        when: "before the edit" or "after the edit", for the progress bars.
    """
    autocast = settings.autocast and getattr(torch, settings.autocast)
    how: dict[str, Any] = dict(batch_size=settings.batch_size, autocast=autocast)
    told: dict[str, Any] = dict(template_arguments=settings.template_arguments)

    def texts(asked: Sequence[Query | LocalityPrompt]) -> list[Any]:
        return [as_text(query, settings.system_prompt) for query in asked]

    def answer(asked: Sequence[Query | LocalityPrompt], **more: Any) -> list[str]:
        length = settings.max_new_tokens
        return generate_greedy(
            model, tokenizer, texts(asked), max_new_tokens=length, **how, **told, **more
        )

    def read(asked: Sequence[Target], **more: Any) -> list[TargetReading]:
        queries = texts([query for query, _ in asked])
        targets = [target for _, target in asked]
        return read_targets(model, tokenizer, queries, targets, **how, **told, **more)

    def next_token(asked: Sequence[LocalityPrompt], **more: Any) -> list[torch.Tensor]:
        return list(next_token_logprobs(model, tokenizer, texts(asked), **how, **told, **more))

    queries, targets, locality = questions.queries, questions.targets, questions.locality
    prompts = [p for p in locality if settings.locality_text or p.kind == SUBJECT]
    with in_questions(tokenizer):
        answers = _by_chat(answer, queries, [q.chat for q in queries], f"answers {when}")
        readings = _by_chat(read, targets, [q.chat for q, _ in targets], f"targets {when}")
        rows = _by_chat(next_token, locality, [p.chat for p in locality], "locality")
        kept = _by_chat(answer, prompts, [p.chat for p in prompts], "locality, answers")
    return Measurement(
        answers=dict(zip(queries, answers, strict=True)),
        readings=dict(zip(targets, readings, strict=True)),
        logprobs=torch.stack(rows)
        if rows
        else torch.empty(0, 1, dtype=torch.float32, device="cpu"),
        locality_answers=tuple(map(dict(zip(prompts, kept, strict=True)).get, locality)),
        generic=read_text(model, tokenizer, generic_sentences(), **how),
    )


def _by_chat(
    ask: Callable[..., Sequence[_Value]], asked: Sequence[Any], chats: Sequence[bool], bar_name: str
) -> list[_Value]:
    """`ask` applied to the plain and to the chat ones apart, its results back in order."""
    results: dict[int, _Value] = {}
    with tqdm(total=len(asked), desc=bar_name, unit="query", disable=None, leave=False) as bar:
        for chat in (False, True):
            chosen = [i for i, of in enumerate(chats) if of == chat]
            if chosen:
                values = ask([asked[i] for i in chosen], chat=chat, progress=bar.update)
                results.update(zip(chosen, values, strict=True))
    return [results[i] for i in range(len(asked))]
