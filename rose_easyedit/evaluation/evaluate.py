"""The evaluation of an edit: what the edited model answers, and what it should not have changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rose_easyedit.errors import RoSEError
from rose_easyedit.evaluation.cache import measure_once
from rose_easyedit.evaluation.datasets.merging import merged
from rose_easyedit.evaluation.facts import (
    CORE,
    Fact,
    LocalityPrompt,
    load_locality,
    relation_names,
)
from rose_easyedit.evaluation.interval import bootstrap_interval
from rose_easyedit.evaluation.measure import Measurement, Questions, measure
from rose_easyedit.evaluation.metrics import kl_divergence, shared_beginning, top1_agreement
from rose_easyedit.evaluation.native import NativeRates
from rose_easyedit.evaluation.records import Record, edited_records, other_facts, other_records
from rose_easyedit.evaluation.result import EvaluationResult, GenericText, LocalityText
from rose_easyedit.evaluation.settings import EvaluationSettings
from rose_easyedit.names import Names

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
            locality: Prompts that no edit should change; by default the bundled ones.
            settings: How to ask.
            native: (relation, form) to the rate at which the model answers true facts; success
                is then reported beside it (`native`).
            cache: A folder that keeps the answers for the next time (`cache.default_folder`);
                None asks anew.
        """
        settings = settings or EvaluationSettings()
        locality = bundled_locality(facts) if locality is None else locality
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
    still be given (R-specificity).

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
    questions = Questions.of([*facts, *others], baseline.locality, baseline.settings)
    after = measure(model, tokenizer, questions, baseline.settings, "after the edit")
    return EvaluationResult(
        records=tuple(edited_records(facts, edited, forms, before, after)),
        locality=baseline.locality,
        kl=tuple(kl_divergence(before.logprobs, after.logprobs).tolist()),
        top1=tuple(top1_agreement(before.logprobs, after.logprobs).tolist()),
        texts=_locality_texts(tokenizer, before, after),
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


def bundled_locality(facts: Sequence[Fact], name: str = CORE) -> list[LocalityPrompt]:
    """A bundled set's prompts for the relations at hand, without those about an edited subject."""
    relations = set(relation_names(name))
    prompts = load_locality([fact for fact in facts if fact.relation in relations], name)
    subjects = Names.of(fact.subject for fact in facts)
    return [prompt for prompt in prompts if not subjects.are_in(prompt.text)]


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


def _locality_texts(
    tokenizer: Any, before: Measurement, after: Measurement
) -> tuple[LocalityText, ...]:
    def tokens(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"] if text else []

    return tuple(
        LocalityText(old, new, shared_beginning(tokens(old), tokens(new)))
        for old, new in zip(before.locality_answers, after.locality_answers, strict=True)
    )
