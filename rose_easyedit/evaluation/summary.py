"""Records as totals: rates with intervals over subjects, per form and beside what they mean."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from rose_easyedit.evaluation.interval import bootstrap_interval
from rose_easyedit.evaluation.native import LEAST_RATE, NativeRates
from rose_easyedit.evaluation.records import OtherRecord, Record


def form_summary(records: Sequence[Record], native: NativeRates | None) -> dict[str, Any]:
    """Totals of the queries of one form.

    `faithful` counts the answers that name the target and keep the subject, `success` those that
    name the target; `gap` is `success` minus teacher-forced accuracy. `old_answer` counts the
    queries whose true answer is on record, and is None if there are none. `headline` is as in
    `headline_summary`.
    """
    with_truth = [r.old_answer for r in records if r.truth]
    forced = mean(r.reading.accuracy for r in records if r.reading)
    success = fmean(r.success for r in records)
    return {
        "queries": len(records),
        "wrapped": sum(r.wrapped for r in records),
        "faithful": fmean(r.faithful for r in records),
        "faithful_interval": faithful_interval(records),
        "success": success,
        "interval": success_interval(records),
        "success_before": fmean(r.success_before for r in records),
        "kept": fmean(r.kept for r in records),
        "replaced": fmean(r.replaced for r in records),
        "broken": fmean(r.broken for r in records),
        "broken_before": fmean(r.broken_before for r in records),
        "exact_prefix": fmean(r.exact_prefix for r in records),
        "exact_prefix_before": fmean(r.exact_prefix_before for r in records),
        "teacher_forcing": forced,
        "teacher_forcing_before": mean(
            r.reading_before.accuracy for r in records if r.reading_before
        ),
        "gap": None if forced is None else success - forced,
        "target_logprob": mean(r.reading.logprob for r in records if r.reading),
        "target_probability": mean(math.exp(r.reading.logprob) for r in records if r.reading),
        "target_probability_before": mean(
            math.exp(r.reading_before.logprob) for r in records if r.reading_before
        ),
        "old_answer": mean(with_truth),
        "other_target": fmean(r.other_target for r in records),
        "headline": headline_summary(records, native),
    }


def headline_summary(records: Sequence[Record], native: NativeRates | None) -> dict[str, Any]:
    """Rates on what the unedited model can be asked at all.

    Relations whose native rate in a form is below 0.5 are left out in that form, and named.
    `normalised` is `faithful` over the mean native rate, on the queries whose rate is known; it can
    exceed 1, since the rates have errors of their own. Without rates nothing is left out.
    """
    rates = native or {}
    kept = [r for r in records if rates.get((r.relation, r.form), 1.0) >= LEAST_RATE]
    known = [r for r in kept if (r.relation, r.form) in rates]
    left_out = {(r.relation, r.form) for r in records} - {(r.relation, r.form) for r in kept}
    bound = mean(rates[r.relation, r.form] for r in known)
    return {
        "queries": len(kept),
        "wrapped": sum(r.wrapped for r in kept),
        "faithful": mean(r.faithful for r in kept),
        "faithful_interval": faithful_interval(kept),
        "success": mean(r.success for r in kept),
        "interval": success_interval(kept),
        "kept": mean(r.kept for r in kept),
        "replaced": mean(r.replaced for r in kept),
        "broken": mean(r.broken for r in kept),
        "broken_before": mean(r.broken_before for r in kept),
        "exact_prefix": mean(r.exact_prefix for r in kept),
        "normalised": None if bound is None else fmean(r.faithful for r in known) / bound,
        "not_native": [f"{relation} ({form})" for relation, form in sorted(left_out)],
    }


def facts_per_subject(
    records: Sequence[Record], edited: Mapping[str, int]
) -> dict[int, dict[str, Any]]:
    """Rates by the number of facts that were edited about the subject, fewest first."""
    groups: dict[int, list[Record]] = defaultdict(list)
    for record in records:
        groups[edited[record.subject]].append(record)
    return {
        count: {
            "subjects": len({r.subject for r in group}),
            "queries": len(group),
            "faithful": fmean(r.faithful for r in group),
            "faithful_interval": faithful_interval(group),
            "success": fmean(r.success for r in group),
            "interval": success_interval(group),
        }
        for count, group in sorted(groups.items())
    }


def specificity_summary(records: Sequence[OtherRecord]) -> dict[str, Any] | None:
    """R-specificity: does the edit leave the subject's other facts alone?

    `kept` is the fraction of the true answers of the unedited model that the edited model still
    gives (after RETS, arXiv:2408.15091), `edited_target` how often an edited
    target is named in their place. None if the unedited model gave none, or there are no others.
    """
    known = [record for record in records if record.known]
    if not known:
        return None
    return {
        "facts": len({(r.subject, r.relation, r.truth) for r in records}),
        "queries": len(records),
        "known": len(known),
        "kept": fmean(record.kept for record in known),
        "interval": bootstrap_interval(grouped((r.subject, r.kept) for r in known)),
        "edited_target": fmean(record.edited_target for record in known),
    }


def success_interval(records: Sequence[Record]) -> tuple[float, float] | None:
    """A 95% interval of success over subjects; None of fewer than two."""
    return bootstrap_interval(grouped((r.subject, r.success) for r in records))


def faithful_interval(records: Sequence[Record]) -> tuple[float, float] | None:
    """A 95% interval of faithful success over subjects; None of fewer than two."""
    return bootstrap_interval(grouped((r.subject, r.faithful) for r in records))


def grouped(values: Iterable[tuple[str, float]]) -> dict[str, list[float]]:
    """Values by the name in front of them, as an interval takes them."""
    groups: dict[str, list[float]] = defaultdict(list)
    for name, value in values:
        groups[name].append(float(value))
    return groups


def mean(values: Iterable[float]) -> float | None:
    """The mean; None of nothing."""
    values = list(values)
    return fmean(values) if values else None
