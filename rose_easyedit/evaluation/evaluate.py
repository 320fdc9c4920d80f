"""The evaluation of an edit: what the edited model answers, and what it should not have changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rose_easyedit.errors import RoSEError
from rose_easyedit.evaluation.cache import measure_once
from rose_easyedit.evaluation.datasets.merging import merged
from rose_easyedit.evaluation.facts import SUBJECT, Fact, LocalityPrompt
from rose_easyedit.evaluation.interval import bootstrap_interval
from rose_easyedit.evaluation.locality import default_locality, replaced_answers
from rose_easyedit.evaluation.measure import Measurement, Questions, measure
from rose_easyedit.evaluation.metrics import (
    kl_divergence,
    shared_beginning,
    top1_agreement,
    words_kept,
)
from rose_easyedit.evaluation.native import NativeRates
from rose_easyedit.evaluation.records import Record, edited_records, other_facts, other_records
from rose_easyedit.evaluation.result import EvaluationResult, GenericText, LocalityText
from rose_easyedit.evaluation.settings import EvaluationSettings

__all__ = [
    "Baseline",
    "EvaluationResult",
    "EvaluationSettings",
    "Record",
    "bootstrap_interval",
    "evaluate_edit",
]


@dataclass(frozen=True)
class Baseline:
    """The unedited model, asked once; every edit of it is measured against this.

    Attributes:
        facts: The facts that it was asked for.
        locality: Prompts that no edit should change.
        measured: Its answers.
        settings: How it was asked; the edited model will be asked alike.
        on_record: The settings with what of the model and tokenizer belongs to them.
        native: What it answers by itself, if that is known.
    """

    facts: tuple[Fact, ...]
    locality: tuple[LocalityPrompt, ...]
    measured: Measurement
    settings: EvaluationSettings
    on_record: dict[str, Any]
    native: NativeRates | None = None

    @classmethod
    def of(
        cls,
        model: Any,
        tokenizer: Any,
        facts: Sequence[Fact],
        *,
        locality: Sequence[LocalityPrompt] | None = None,
        settings: EvaluationSettings | None = None,
        native: NativeRates | None = None,
        cache: Path | None = None,
    ) -> Baseline:
        """Ask the unedited model everything that an evaluation of `facts` needs.

        Args:
            model: The unedited model.
            tokenizer: Its tokenizer.
            facts: The facts that will be edited, and more facts about their subjects, if there
                are any, that will not be.
            locality: Prompts that no edit should change; by default those of
                `locality.default_locality`.
            settings: How to ask.
            native: (relation, form) to the rate at which the model answers true facts; success
                is then reported beside it (`native`).
            cache: A folder that keeps the answers for the next time (`cache.default_folder`);
                None asks anew.
        """
        settings = settings or EvaluationSettings()
        locality = default_locality(facts) if locality is None else locality
        questions = Questions.of(facts, locality, settings)
        when = "before the edit"
        if cache is None:
            measured = measure(model, tokenizer, questions, settings, when)
        else:
            measured = measure_once(model, tokenizer, questions, settings, when, cache)
        return cls(
            facts=tuple(facts),
            locality=tuple(locality),
            measured=measured,
            settings=settings,
            on_record=settings.on_record(model, tokenizer),
            native=native,
        )


def evaluate_edit(
    model: Any,
    tokenizer: Any,
    facts: Sequence[Fact],
    *,
    baseline: Baseline,
    edited: Sequence[Fact] | None = None,
) -> EvaluationResult:
    """Ask an edited model for its edited facts, and for what it should not have changed.

    The baseline's further facts about the same subjects are asked too: their true answers should
    still be given (R-specificity). Of its queries about the subjects (`SUBJECT`) those are left
    out whose unedited answer holds what a fact replaces.

    Args:
        model: The edited model.
        tokenizer: Its tokenizer.
        facts: The edited facts, all of them among the baseline's.
        baseline: The answers of the unedited model; its settings are used here too.
        edited: All facts that the edit holds, if `facts` are but some of them.

    Raises:
        RoSEError: If there are no facts, or the baseline was not asked for one of them.
    """
    _check_asked(facts, baseline)
    edited = merged([*facts, *(edited or ())])
    subjects = {fact.subject for fact in facts}
    others = other_facts((f for f in baseline.facts if f.subject in subjects), edited)
    forms, before = baseline.settings.forms, baseline.measured
    asked = _left_alone(baseline, edited, subjects)
    locality = [baseline.locality[place] for place in asked]
    questions = Questions.of([*facts, *others], locality, baseline.settings)
    after = measure(model, tokenizer, questions, baseline.settings, "after the edit")
    logprobs = before.logprobs[asked]
    answers = [before.locality_answers[place] for place in asked]
    return EvaluationResult(
        records=tuple(edited_records(facts, edited, forms, before, after)),
        locality=tuple(locality),
        kl=tuple(kl_divergence(logprobs, after.logprobs).tolist()),
        top1=tuple(top1_agreement(logprobs, after.logprobs).tolist()),
        texts=_locality_texts(tokenizer, answers, after.locality_answers),
        others=tuple(other_records(others, edited, forms, before.answers, after.answers)),
        generic=GenericText(
            kl=tuple(kl_divergence(before.generic.logprobs, after.generic.logprobs).tolist()),
            top1=tuple(top1_agreement(before.generic.logprobs, after.generic.logprobs).tolist()),
            perplexity=after.generic.perplexity,
            perplexity_before=before.generic.perplexity,
        ),
        settings=baseline.on_record,
        native=baseline.native,
        edited=Counter(fact.subject for fact in edited),
    )


def _check_asked(facts: Sequence[Fact], baseline: Baseline) -> None:
    if not facts:
        raise RoSEError("There is no fact to ask the edited model for; give at least one.")
    asked = set(baseline.facts)
    faults = [
        f"{fact.prompt!r} -> {fact.target_new!r}: give it to Baseline.of as well"
        for fact in facts
        if fact not in asked
    ]
    if faults:
        raise RoSEError.of("The baseline was not asked for every fact:", faults)


def _left_alone(baseline: Baseline, edited: Sequence[Fact], subjects: Collection[str]) -> list[int]:
    """The places of the baseline's prompts that an edit should leave alone."""
    answers = baseline.measured.locality_answers
    said = {q.text: answer for q, answer in baseline.measured.answers.items() if not q.chat}
    replaced = {
        subject: replaced_answers(
            [fact for fact in edited if fact.subject == subject],
            lambda fact: said.get(fact.prompt, ""),
        )
        for subject in subjects
    }
    return [
        place
        for place, (prompt, answer) in enumerate(zip(baseline.locality, answers, strict=True))
        if prompt.kind != SUBJECT
        or (prompt.subject in subjects and not replaced[prompt.subject].are_in(answer or ""))
    ]


def _locality_texts(
    tokenizer: Any, before: Sequence[str | None], after: Sequence[str | None]
) -> tuple[LocalityText | None, ...]:
    def tokens(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"] if text else []

    def compared(old: str, new: str) -> LocalityText:
        shared = shared_beginning(tokens(old), tokens(new))
        return LocalityText(old, new, shared, words_kept(old, new))

    return tuple(
        None if old is None or new is None else compared(old, new)
        for old, new in zip(before, after, strict=True)
    )
