"""What the unedited model answered, kept on disk under a key made of all that changes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rose_easyedit.cache.entries import Cache, CacheEntry, key_of
from rose_easyedit.config.paths import cache_dir
from rose_easyedit.config.results_version import EVALUATIONS
from rose_easyedit.evaluation.facts import LocalityPrompt, Query
from rose_easyedit.evaluation.fluency import TextReading, generic_sentences
from rose_easyedit.evaluation.measure import Measurement, Questions, measure
from rose_easyedit.evaluation.queries import as_text
from rose_easyedit.evaluation.settings import EvaluationSettings
from rose_easyedit.evaluation.teacher_forcing import TargetReading
from rose_easyedit.files.plain import is_number
from rose_easyedit.forward.generation import encode
from rose_easyedit.models.fingerprint import computation_fingerprint
from rose_easyedit.models.lock import one_at_a_time
from rose_easyedit.text.chat import in_questions

FORMAT = "rose_easyedit.evaluation/4"


def default_folder() -> Path:
    """Where the command line keeps its measurements; not created here."""
    return cache_dir() / "evaluation"


@one_at_a_time
def measure_once(
    model: Any,
    tokenizer: Any,
    questions: Questions,
    settings: EvaluationSettings,
    when: str,
    folder: Path,
) -> Measurement:
    """`measure`, unless the same questions were put to the same model before.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        questions: What to ask.
        settings: How to ask.
        when: As `measure` takes it.
        folder: Where measurements are kept; a damaged file in it is replaced.
    """
    cache = Cache(folder)
    key = _key(model, tokenizer, questions, settings)
    kept = cache.read(key, partial(_measurement, questions))
    if kept is not None:
        return kept
    measured = measure(model, tokenizer, questions, settings, when)
    cache.write(key, _entry(measured))
    return measured


def _key(model: Any, tokenizer: Any, questions: Questions, settings: EvaluationSettings) -> str:
    asked: list[Query | LocalityPrompt] = [*questions.queries, *questions.locality]
    texts = [(as_text(query, settings.system_prompt), query.chat) for query in asked]
    by_chat = {chat: [text for text, of in texts if of == chat] for chat in (False, True)}
    written = [*generic_sentences(), *(target for _, target in questions.targets)]
    with in_questions(tokenizer):
        ids = [
            encode(tokenizer, each, chat=chat, template_arguments=settings.template_arguments)
            for chat, each in by_chat.items()
            if each
        ]
    parts = {
        "format": FORMAT,
        "evaluations": EVALUATIONS,
        "versions": [version(name) for name in ("torch", "transformers")],
        "model": computation_fingerprint(model),
        "settings": settings.on_record(model, tokenizer),
        "texts": texts,
        # as the tokenizer reads them
        "ids": ids,
        "written": encode(tokenizer, written, chat=False),
        "forms": [query.form for query in questions.queries],
        "kinds": [prompt.kind for prompt in questions.locality],
        "targets": [(astuple(query), target) for query, target in questions.targets],
    }
    return key_of(parts)


def _entry(measured: Measurement) -> CacheEntry:
    record = {
        "answers": list(measured.answers.values()),
        "readings": [asdict(reading) for reading in measured.readings.values()],
        "locality_answers": list(measured.locality_answers),
    }
    tensors = {
        "logprobs": measured.logprobs,
        "generic": measured.generic.logprobs,
        "generic_tokens": measured.generic.tokens,
    }
    return CacheEntry(tensors, record)


def _measurement(questions: Questions, entry: CacheEntry) -> Measurement:
    record, tensors = entry.record, entry.tensors
    readings = [TargetReading(**reading) for reading in record["readings"]]
    if not _fit(questions, record, readings, tensors):
        raise ValueError("it is of other questions, or holds what is no answer")
    return Measurement(
        answers=dict(zip(questions.queries, record["answers"], strict=True)),
        readings=dict(zip(questions.targets, readings, strict=True)),
        logprobs=tensors["logprobs"],
        locality_answers=tuple(record["locality_answers"]),
        generic=TextReading(tensors["generic"], tensors["generic_tokens"]),
    )


def _fit(
    questions: Questions,
    record: Any,
    readings: Sequence[TargetReading],
    tensors: Mapping[str, Tensor],
) -> bool:
    """Whether an entry, whose content may be any, is of the types that are worked with."""
    logprobs, generic, tokens = (tensors[n] for n in ("logprobs", "generic", "generic_tokens"))
    answers, of_locality = record["answers"], record["locality_answers"]
    numbers = [number for reading in readings for number in (reading.accuracy, reading.logprob)]
    return (
        len(questions.locality) == len(logprobs) == len(of_locality)
        and all(isinstance(answer, str) for answer in answers)
        and all(isinstance(answer, str | None) for answer in of_locality)
        and all(map(is_number, numbers))
        and logprobs.dtype == generic.dtype == torch.float32
        and logprobs.dim() == generic.dim() == 2
        and tokens.dtype == torch.long
        and tokens.shape == generic.shape[:1]
        and bool(((tokens >= 0) & (tokens < generic.shape[1])).all())
    )
