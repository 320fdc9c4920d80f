"""The main metrics of a sweep as its report names and writes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rose_easyedit.evaluation.report_front import (
    FAITHFUL,
    SAME_TOKEN,
    TRUTHS_KEPT,
    WORDS_KEPT,
    tone_of,
)
from rose_easyedit.evaluation.report_words import number, percent
from rose_easyedit.experiment.report_data import Sweep

# All others are named after a form.
_TITLES = {
    "asked": "questions and instructions",
    "named": "names the target",
    "broken": "broken answers",
    "kl": "KL",
    "top1": "top-1",
    "neighbours_top1": "neighbours' top-1",
    "generic_kl": "KL of generic text",
    "subject_kl": "KL of the subject's other queries",
    "subject_kept": "other answers about the subject",
    "subject_words": "words of the subject's other answers",
    "specificity": "other facts kept",
}
# The columns of the table of all jobs that a reader does not have to ask for.
MAIN = (
    "statement", "paraphrase", "question", "instruction", "asked", "named", "broken", "kl", "top1",
)  # fmt: skip
_LENGTHS = ("kl", "generic_kl", "subject_kl")
_FAULTS = ("broken",)
# Of good and poor. All that are not here and no KL are rates of faithful answers.
_LIMITS = {
    "top1": SAME_TOKEN,
    "neighbours_top1": SAME_TOKEN,
    "subject_kept": FAITHFUL,
    "subject_words": WORDS_KEPT,
    "specificity": TRUTHS_KEPT,
}
_UNJUDGED = ("named", *_FAULTS, *_LENGTHS)


@dataclass(frozen=True)
class Metric:
    """A number by which jobs are compared; see `metrics.main_metrics`.

    Attributes:
        name: as the runs have it.
        title: for people.
        less_is_better: it is a KL, or a rate of faults.
        length: it is a KL, in nats; all others are rates.
    """

    name: str
    title: str
    less_is_better: bool
    length: bool

    @property
    def axis_title(self) -> str:
        """The title with its unit."""
        return f"{self.title} ({'nats' if self.length else '%'})"

    def tone(self, value: float | None) -> str:
        """How good the value is (`report_front.tone_of`); "" of what has no limits."""
        if value is None or self.name in _UNJUDGED:
            return ""
        return tone_of(value, _LIMITS.get(self.name, FAITHFUL))

    def text(self, value: float | None, interval: Sequence[float] | None = None) -> str:
        """The value, with its interval."""
        if self.length or value is None:
            return number(value)
        if interval is None:
            return percent(value)
        return f"{percent(value)} {self.interval_text(interval)}"

    def interval_text(self, interval: Sequence[float]) -> str:
        """An interval in the unit of the value, without it."""
        scale, digits = (1, 3) if self.length else (100, 0)
        return "[" + "\u2013".join(f"{scale * end:.{digits}f}" for end in interval) + "]"


def metrics_of(sweep: Sweep) -> list[Metric]:
    """The metrics that a job of the sweep has, rates of answers first."""
    names = dict.fromkeys(name for row in sweep.done for name in row.metrics)
    return [
        Metric(name, _TITLES.get(name, name), name in (*_LENGTHS, *_FAULTS), name in _LENGTHS)
        for name in names
    ]


def success_metric(metrics: Sequence[Metric]) -> Metric | None:
    """The rate that a sweep is judged by: as a user would ask, or else the first form."""
    rates = [metric for metric in metrics if not metric.less_is_better]
    asked = [metric for metric in rates if metric.name == "asked"]
    return next(iter([*asked, *rates]), None)
