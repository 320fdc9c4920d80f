"""The evaluation of an edit: what the edited model answers, and what it should not have changed."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from statistics import fmean
from typing import Any

import torch
from tqdm import tqdm

from rose_easyedit.evaluation.facts import FORMS, Fact, LocalityPrompt, Query, load_locality
from rose_easyedit.evaluation.generation import generate_greedy
from rose_easyedit.evaluation.metrics import (
    contains_target,
    kl_divergence,
    next_token_logprobs,
    top1_agreement,
)

_RESAMPLES = 2000


@dataclass(frozen=True)
class EvaluationSettings:
    """How a model is asked; two evaluations are comparable when these agree."""

    max_new_tokens: int = 24
    batch_size: int = 64
    autocast: torch.dtype | None = None


@dataclass(frozen=True)
class Baseline:
    """The unedited model, asked once; every edit of it is measured against this."""

    facts: tuple[Fact, ...]
    answers: dict[Query, str]
    locality: tuple[LocalityPrompt, ...]
    logprobs: torch.Tensor
    settings: EvaluationSettings

    @classmethod
    def of(
        cls,
        model: Any,
        tokenizer: Any,
        facts: Sequence[Fact],
        *,
        locality: Sequence[LocalityPrompt] | None = None,
        settings: EvaluationSettings | None = None,
    ) -> Baseline:
        """Ask the unedited model everything that an evaluation of `facts` needs.

        Args:
            model: The unedited model.
            tokenizer: Its tokenizer.
            facts: The facts that will be edited.
            locality: Prompts that no edit should change; by default the bundled ones.
            settings: How to ask.
        """
        settings = settings or EvaluationSettings()
        locality = load_locality(facts) if locality is None else locality
        return cls(
            facts=tuple(facts),
            answers=_ask(model, tokenizer, facts, settings, "before the edit"),
            locality=tuple(locality),
            logprobs=_locality_logprobs(model, tokenizer, locality, settings),
            settings=settings,
        )


@dataclass(frozen=True)
class Record:
    """One query and its answer.

    `old_answer` says that the true answer was named, `other_target` that the target of another
    fact of the same subject was: the two ways in which an edit fails most often.
    """

    subject: str
    relation: str
    form: str
    query: str
    target: str
    before: str
    answer: str
    success: bool
    success_before: bool
    old_answer: bool
    other_target: bool


@dataclass(frozen=True)
class EvaluationResult:
    """Every answer, and how far the model moved on prompts that it should not have."""

    records: tuple[Record, ...]
    locality: tuple[LocalityPrompt, ...]
    kl: tuple[float, ...]
    top1: tuple[bool, ...]

    def success(self, *forms: str) -> float:
        """Fraction of the queries of these forms (default all) whose answer names the target."""
        return fmean(record.success for record in self.records if record.form in (forms or FORMS))

    def summary(self) -> dict[str, Any]:
        """Totals as plain data: per form with a 95% interval over subjects, and the locality."""
        forms = [form for form in FORMS if any(r.form == form for r in self.records)]
        return {
            "facts": len({(r.subject, r.relation) for r in self.records}),
            "subjects": len({r.subject for r in self.records}),
            "forms": {form: self._form_summary(form) for form in forms},
            "locality": {kind: self._locality_summary(kind) for kind in self._kinds()},
        }

    def as_dict(self) -> dict[str, Any]:
        """Summary and records as plain data, ready for JSON."""
        prompts = zip(self.locality, self.kl, self.top1, strict=True)
        return {
            "summary": self.summary(),
            "records": [asdict(record) for record in self.records],
            "locality": [{**asdict(p), "kl": kl, "top1": same} for p, kl, same in prompts],
        }

    def _form_summary(self, form: str) -> dict[str, Any]:
        records = [record for record in self.records if record.form == form]
        by_subject: dict[str, list[float]] = defaultdict(list)
        for record in records:
            by_subject[record.subject].append(float(record.success))
        return {
            "queries": len(records),
            "success": fmean(r.success for r in records),
            "interval": bootstrap_interval(by_subject),
            "success_before": fmean(r.success_before for r in records),
            "old_answer": fmean(r.old_answer for r in records),
            "other_target": fmean(r.other_target for r in records),
        }

    def _kinds(self) -> list[str]:
        return ["all", *dict.fromkeys(prompt.kind for prompt in self.locality)]

    def _locality_summary(self, kind: str) -> dict[str, float]:
        chosen = [i for i, p in enumerate(self.locality) if kind in ("all", p.kind)]
        return {
            "prompts": len(chosen),
            "kl": fmean(self.kl[i] for i in chosen) if chosen else 0.0,
            "top1": fmean(self.top1[i] for i in chosen) if chosen else 1.0,
        }


def evaluate_edit(
    model: Any,
    tokenizer: Any,
    facts: Sequence[Fact],
    *,
    baseline: Baseline,
) -> EvaluationResult:
    """Ask an edited model for its edited facts, and for what it should not have changed.

    Success is a greedy answer that names the target (`contains_target`); questions and
    instructions are asked through the chat template.

    Args:
        model: The edited model.
        tokenizer: Its tokenizer.
        facts: The edited facts, all of them among the baseline's.
        baseline: The answers of the unedited model; its settings are used here too.
    """
    answers = _ask(model, tokenizer, facts, baseline.settings, "after the edit")
    logprobs = _locality_logprobs(model, tokenizer, baseline.locality, baseline.settings)
    return EvaluationResult(
        records=tuple(_records(facts, baseline.answers, answers)),
        locality=baseline.locality,
        kl=tuple(kl_divergence(baseline.logprobs, logprobs).tolist()),
        top1=tuple(top1_agreement(baseline.logprobs, logprobs).tolist()),
    )


def bootstrap_interval(
    values: Mapping[str, Sequence[float]], *, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the mean when whole groups (subjects) are drawn with replacement.

    Facts of one subject succeed and fail together, so drawing single facts would pretend to more
    evidence than there is.
    """
    groups = [(sum(group), len(group)) for group in values.values() if group]
    draw = random.Random(seed)
    means = []
    for _ in range(_RESAMPLES):
        sample = draw.choices(groups, k=len(groups))
        means.append(sum(total for total, _ in sample) / sum(count for _, count in sample))
    means.sort()
    tail = round((1 - level) / 2 * (_RESAMPLES - 1))
    return means[tail], means[-1 - tail]


def _ask(
    model: Any, tokenizer: Any, facts: Sequence[Fact], settings: EvaluationSettings, when: str
) -> dict[Query, str]:
    queries = list(dict.fromkeys(query for fact in facts for query in fact.queries))
    answers: dict[Query, str] = {}
    with tqdm(total=len(queries), desc=f"answers {when}", unit="query", disable=None) as bar:
        for chat in (False, True):
            asked = [query for query in queries if query.chat == chat]
            texts = generate_greedy(
                model,
                tokenizer,
                [query.text for query in asked],
                chat=chat,
                max_new_tokens=settings.max_new_tokens,
                batch_size=settings.batch_size,
                autocast=settings.autocast,
                progress=bar.update,
            )
            answers.update(zip(asked, texts, strict=True))
    return answers


def _locality_logprobs(
    model: Any, tokenizer: Any, prompts: Sequence[LocalityPrompt], settings: EvaluationSettings
) -> torch.Tensor:
    """Next-token log-probabilities of each prompt, [prompts, vocabulary]."""
    with tqdm(total=len(prompts), desc="locality", unit="prompt", disable=None) as bar:
        read = partial(
            next_token_logprobs,
            model,
            tokenizer,
            batch_size=settings.batch_size,
            autocast=settings.autocast,
            progress=bar.update,
        )
        return _by_chat(read, prompts)


def _by_chat(read: Callable[..., torch.Tensor], prompts: Sequence[LocalityPrompt]) -> torch.Tensor:
    """`read` applied to the plain and to the chat prompts apart, rows back in order."""
    rows: dict[int, torch.Tensor] = {}
    for chat in (False, True):
        chosen = [i for i, prompt in enumerate(prompts) if prompt.chat == chat]
        if chosen:
            logprobs = read(texts=[prompts[i].text for i in chosen], chat=chat)
            rows.update(zip(chosen, logprobs, strict=True))
    return torch.stack([rows[i] for i in range(len(prompts))]) if rows else torch.empty(0, 0)


def _records(
    facts: Sequence[Fact], before: Mapping[Query, str], after: Mapping[Query, str]
) -> list[Record]:
    siblings: dict[str, list[Fact]] = defaultdict(list)
    for fact in facts:
        siblings[fact.subject].append(fact)
    return [
        _record(fact, query, before[query], after[query], siblings[fact.subject])
        for fact in facts
        for query in fact.queries
    ]


def _record(fact: Fact, query: Query, before: str, answer: str, siblings: Sequence[Fact]) -> Record:
    others = [other for other in siblings if other is not fact]
    return Record(
        subject=fact.subject,
        relation=fact.relation,
        form=query.form,
        query=query.text,
        target=fact.target_new,
        before=before,
        answer=answer,
        success=contains_target(answer, fact.target_new, fact.target_aliases),
        success_before=contains_target(before, fact.target_new, fact.target_aliases),
        old_answer=contains_target(answer, fact.ground_truth, fact.truth_aliases),
        other_target=any(
            contains_target(answer, other.target_new, other.target_aliases) for other in others
        ),
    )
