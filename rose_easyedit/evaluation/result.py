"""What an evaluation found: every answer, and totals of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from rose_easyedit.errors import RoSEError
from rose_easyedit.evaluation.facts import LocalityPrompt
from rose_easyedit.evaluation.fluency import ngram_entropy
from rose_easyedit.evaluation.native import NativeRates
from rose_easyedit.evaluation.queries import ALL_FORMS
from rose_easyedit.evaluation.records import OtherRecord, Record
from rose_easyedit.evaluation.summary import (
    facts_per_subject,
    form_summary,
    headline_summary,
    mean,
    plain,
    specificity_summary,
)


@dataclass(frozen=True)
class LocalityText:
    """Greedy answers to a locality prompt, of the unedited and of the edited model.

    Attributes:
        shared: Tokens up to the first difference, over the tokens of the longer answer.
    """

    before: str
    answer: str
    shared: float


@dataclass(frozen=True)
class GenericText:
    """How far the model moved in generic sentences, position by position, and its perplexity."""

    kl: tuple[float, ...]
    top1: tuple[bool, ...]
    perplexity: float
    perplexity_before: float


@dataclass(frozen=True)
class EvaluationResult:
    """Every answer, and how far the model moved where it should not have.

    Attributes:
        records: One per query of each fact.
        locality: The prompts that `kl`, `top1` and `texts` belong to.
        kl: KL(before || after) of the next token, in nats.
        top1: Whether the likeliest next token is the same.
        texts: Their answers; empty if not asked for.
        others: Queries of facts that were not edited, about subjects that were.
        generic: Running text.
        settings: How both models were asked (`EvaluationSettings.on_record`).
        native: What the unedited model answers by itself, if that is known.
        edited: How many facts were edited about each subject.
    """

    records: tuple[Record, ...]
    locality: tuple[LocalityPrompt, ...]
    kl: tuple[float, ...]
    top1: tuple[bool, ...]
    texts: tuple[LocalityText, ...] = ()
    others: tuple[OtherRecord, ...] = ()
    generic: GenericText | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    native: NativeRates | None = None
    edited: Mapping[str, int] = field(default_factory=dict)

    def success(self, *forms: str) -> float:
        """Fraction of the queries of these forms (default all) whose answer names the target.

        Raises:
            RoSEError: If none was asked.
        """
        rate = mean(r.success for r in self.records if r.form in (forms or ALL_FORMS))
        if rate is None:
            asked = ", ".join(dict.fromkeys(r.form for r in self.records)) or "nothing"
            raise RoSEError(
                f"No query was asked as {', '.join(forms or ALL_FORMS)}; asked was {asked}. Choose "
                "one of these forms, or ask again with others (EvaluationSettings.forms)."
            )
        return rate

    def summary(self) -> dict[str, Any]:
        """Totals as plain data.

        Returns:
            `forms`: per form, with 95% intervals over subjects (`summary.form_summary`);
            `headline`: all forms together, of what the unedited model can be asked at all;
            `facts_per_subject`: success by how many facts the subject had edited;
            `locality`: per kind of prompt, `all` of them (None of no prompts), and `generic`,
            whose "prompts" are positions in running text and no part of `all`;
            `r_specificity`: the subjects' other facts, None if there are none;
            `fluency`: of the answers and of generic text, before and after.
        """
        forms = [form for form in ALL_FORMS if any(r.form == form for r in self.records)]
        by_form = {form: [r for r in self.records if r.form == form] for form in forms}
        return {
            "facts": len({(r.subject, r.relation, r.target) for r in self.records}),
            "subjects": len({r.subject for r in self.records}),
            "headline": headline_summary(self.records, self.native),
            "forms": {form: form_summary(of, self.native) for form, of in by_form.items()},
            "facts_per_subject": facts_per_subject(self.records, self.edited),
            "locality": self._locality(),
            "r_specificity": specificity_summary(self.others),
            "fluency": self._fluency(),
        }

    def as_dict(self) -> dict[str, Any]:
        """Settings, summary and records as plain data, ready for JSON."""
        locality: list[dict[str, Any]] = [
            {**asdict(prompt), "kl": kl, "top1": same}
            for prompt, kl, same in zip(self.locality, self.kl, self.top1, strict=True)
        ]
        for line, text in zip(locality, self.texts, strict=False):
            line |= asdict(text)
        data = {
            "settings": self.settings,
            "summary": self.summary(),
            "records": [asdict(record) for record in self.records],
            "others": [asdict(record) for record in self.others],
            "locality": locality,
        }
        return plain(data)

    def _locality(self) -> dict[str, dict[str, Any]]:
        kinds = ["all", *dict.fromkeys(prompt.kind for prompt in self.locality)]
        summary = {kind: self._kind_summary(kind) for kind in kinds}
        if self.generic is not None:
            summary["generic"] = {
                "prompts": len(self.generic.kl),
                "kl": mean(self.generic.kl),
                "top1": mean(self.generic.top1),
                "shared_text": None,
                "same_text": None,
            }
        return summary

    def _kind_summary(self, kind: str) -> dict[str, Any]:
        chosen = [i for i, p in enumerate(self.locality) if kind in ("all", p.kind)]
        texts = [self.texts[i] for i in chosen] if self.texts else []
        return {
            "prompts": len(chosen),
            "kl": mean(self.kl[i] for i in chosen),
            "top1": mean(self.top1[i] for i in chosen),
            "shared_text": mean(text.shared for text in texts),
            "same_text": mean(text.before == text.answer for text in texts),
        }

    def _fluency(self) -> dict[str, float | None]:
        generic = self.generic
        return {
            "ngram_entropy": mean(ngram_entropy(r.answer) for r in self.records),
            "ngram_entropy_before": mean(ngram_entropy(r.before) for r in self.records),
            "perplexity": generic.perplexity if generic else None,
            "perplexity_before": generic.perplexity_before if generic else None,
        }
