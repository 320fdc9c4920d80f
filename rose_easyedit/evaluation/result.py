"""What an evaluation found: every answer, and totals of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

from rose_easyedit.errors import RoSEError
from rose_easyedit.evaluation.facts import SUBJECT, LocalityPrompt
from rose_easyedit.evaluation.fluency import ngram_entropy
from rose_easyedit.evaluation.interval import bootstrap_interval
from rose_easyedit.evaluation.native import NativeRates
from rose_easyedit.evaluation.queries import ALL_FORMS
from rose_easyedit.evaluation.records import OtherRecord, Record
from rose_easyedit.evaluation.summary import (
    facts_per_subject,
    form_summary,
    grouped,
    headline_summary,
    mean,
    specificity_summary,
)
from rose_easyedit.evaluation.verdict import Asked, judge
from rose_easyedit.files.plain import plain


@dataclass(frozen=True)
class LocalityText:
    """Greedy answers to a locality prompt, of the unedited and of the edited model.

    Attributes:
        shared: Tokens up to the first difference, over the tokens of the longer answer.
        words: Share of the unedited answer's words that come back (`metrics.words_kept`).
    """

    before: str
    answer: str
    shared: float
    words: float


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
        texts: Their answers, None where none was asked for.
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
    texts: tuple[LocalityText | None, ...] = ()
    others: tuple[OtherRecord, ...] = ()
    generic: GenericText | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    native: NativeRates | None = None
    edited: Mapping[str, int] = field(default_factory=dict)

    def faithful(self, *forms: str) -> float:
        """Fraction of the queries of these forms (default all) with a faithful answer.

        Raises:
            RoSEError: If none was asked.
        """
        return fmean(record.faithful for record in self._asked(forms))

    def success(self, *forms: str) -> float:
        """As `faithful`, of the answers that name the target, whatever they say it of."""
        return fmean(record.success for record in self._asked(forms))

    def _asked(self, forms: Sequence[str]) -> list[Record]:
        records = [r for r in self.records if r.form in (forms or ALL_FORMS)]
        if not records:
            asked = ", ".join(dict.fromkeys(r.form for r in self.records)) or "nothing"
            raise RoSEError(
                f"No query was asked as {', '.join(forms or ALL_FORMS)}; asked was {asked}. Choose "
                "one of these forms, or ask again with others (EvaluationSettings.forms)."
            )
        return records

    def summary(self) -> dict[str, Any]:
        """Totals as plain data.

        Returns:
            `forms`: per form, with 95% intervals over subjects (`summary.form_summary`);
            `headline`: all forms together, of what the unedited model can be asked at all;
            `facts_per_subject`: the same by how many facts the subject had edited;
            `locality`: per kind of prompt, and `all` (None of no prompts) but for those of the
            kind "subject", which ask for other things of the edited subjects; and `generic`, whose
            "prompts" are positions in running text and no part of `all` either. `interval` is of
            `top1`, `words_interval` of `words_kept`, over what the prompts are about;
            `subject_kept` is of the answers of the kind "subject" (`verdict.judge`);
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
            line |= asdict(text) if text else {}
        data = {
            "settings": self.settings,
            "summary": self.summary(),
            "records": [asdict(record) for record in self.records],
            "others": [asdict(record) for record in self.others],
            "locality": locality,
        }
        found: dict[str, Any] = plain(data)
        return found

    def _locality(self) -> dict[str, dict[str, Any]]:
        kinds = ["all", *dict.fromkeys(prompt.kind for prompt in self.locality)]
        summary = {kind: self._kind_summary(kind) for kind in kinds}
        if self.generic is not None:
            summary["generic"] = {
                "prompts": len(self.generic.kl),
                "kl": mean(self.generic.kl),
                "top1": mean(self.generic.top1),
                "interval": None,
                "subject_kept": None,
                "words_kept": None,
                "words_interval": None,
                "shared_text": None,
                "same_text": None,
            }
        return summary

    def _kind_summary(self, kind: str) -> dict[str, Any]:
        # what they are about, and where nobody said it the prompt, tells prompts apart
        of = {i: p.subject or p.text for i, p in enumerate(self.locality) if _is(p, kind)}
        texts = {i: self.texts[i] for i in of if self.texts}
        answered = {i: text for i, text in texts.items() if text}
        about = {i: text for i, text in answered.items() if self.locality[i].kind == SUBJECT}
        return {
            "prompts": len(of),
            "kl": mean(self.kl[i] for i in of),
            "top1": mean(self.top1[i] for i in of),
            "interval": bootstrap_interval(grouped((of[i], self.top1[i]) for i in of)),
            "subject_kept": mean(_keeps(self.locality[i], t) for i, t in about.items()),
            "words_kept": mean(text.words for text in answered.values()),
            "words_interval": bootstrap_interval(
                grouped((of[i], text.words) for i, text in answered.items())
            ),
            "shared_text": mean(text.shared for text in answered.values()),
            "same_text": mean(text.before == text.answer for text in answered.values()),
        }

    def _fluency(self) -> dict[str, float | None]:
        generic = self.generic
        return {
            "ngram_entropy": mean(ngram_entropy(r.answer) for r in self.records),
            "ngram_entropy_before": mean(ngram_entropy(r.before) for r in self.records),
            "perplexity": generic.perplexity if generic else None,
            "perplexity_before": generic.perplexity_before if generic else None,
        }


def _is(prompt: LocalityPrompt, kind: str) -> bool:
    return prompt.kind != SUBJECT if kind == "all" else prompt.kind == kind


def _keeps(prompt: LocalityPrompt, text: LocalityText) -> bool:
    """Whether the answer to a query about a subject is still about it."""
    return judge(text.answer, Asked(prompt.text, text.before, prompt.subject)).kept
