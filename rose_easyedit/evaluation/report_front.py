"""What an evaluation says first: the numbers that an edit is judged by, and how good they are.

The limits are the same for every model. Poor is where a person who reads the answers would not keep
the edit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rose_easyedit.evaluation.facts import SUBJECT
from rose_easyedit.evaluation.report_words import number, percent

GOOD, BAD = "good", "bad"
# What a tone is called beside its colour.
JUDGED = {GOOD: "good", BAD: "poor", "": ""}
# Good from the first number on, poor from the second on; where the first is the smaller one, less
# is better. Of broken answers it is how many more there are than before, of perplexity the ratio.
FAITHFUL, _REPLACED = (0.8, 0.5), (0.05, 0.2)
WORDS_KEPT, TRUTHS_KEPT, SAME_TOKEN = (0.7, 0.5), (0.9, 0.7), (0.95, 0.85)
_MORE_BROKEN, _BITS_LOST, _PERPLEXITY = (0.02, 0.1), (0.1, 0.5), (1.02, 1.1)


@dataclass(frozen=True)
class Front:
    """One number.

    Attributes:
        name: What it is.
        value: As it is shown.
        more: Its interval, what it was before, or what it is of.
        tone: `GOOD`, `BAD` or neither.
    """

    name: str
    value: str
    more: str = ""
    tone: str = ""

    @property
    def judged(self) -> str:
        """The tone in a word, for who sees no colour."""
        return JUDGED[self.tone]


def front_of(summary: Mapping[str, Any]) -> list[Front]:
    """The first numbers of `EvaluationResult.summary()`; what was not measured is left out."""
    head, fluency, locality = summary["headline"], summary["fluency"], summary["locality"]
    front = []
    if head["faithful"] is not None:
        named, bound, broken = head["success"], head["normalised"], head["broken"]
        more = broken - head["broken_before"]
        before = f"{percent(head['broken_before'])} before"
        asked = f"{head.get('wrapped')} of {head['queries']} queries wrap the statement"
        wrapped = asked if head.get("wrapped") else ""
        within = head["faithful_interval"]
        front += [
            _rate("faithful success", head["faithful"], FAITHFUL, within, wrapped),
            _rate("names the target", named, None, head["interval"]),
            _rate("another subject in its place", head["replaced"], _REPLACED),
            Front("broken answers", percent(broken), before, tone_of(more, _MORE_BROKEN)),
            Front("exact prefix", percent(head["exact_prefix"]), "answers that begin with it"),
        ]
        if bound is not None:
            front.append(Front("normalised", percent(bound), "of what the model can be asked"))
    if fluency["ngram_entropy"] is not None:
        entropy, before = fluency["ngram_entropy"], fluency["ngram_entropy_before"]
        tone = tone_of(before - entropy, _BITS_LOST)
        more = f"bits, {number(before, 2)} before"
        front.append(Front("n-gram entropy of the answers", number(entropy, 2), more, tone))
    if SUBJECT in locality:
        of, name = locality[SUBJECT], "other answers about the subjects: words kept"
        front.append(_rate(name, of["words_kept"], WORDS_KEPT, of["words_interval"], _moved(of)))
    if (truths := summary["r_specificity"]) is not None:
        name, of = "true facts of the subjects kept", f"of {truths['known']}"
        front.append(_rate(name, truths["kept"], TRUTHS_KEPT, truths["interval"], of))
    kind = "neighbour" if "neighbour" in locality else "all"
    if (near := locality[kind])["prompts"]:
        name = f"{'neighbours' if kind == 'neighbour' else 'other prompts'}: same next token"
        more = f"KL {number(near['kl'])}"
        front.append(_rate(name, near["top1"], SAME_TOKEN, near["interval"], more))
    if fluency["perplexity"] is not None and fluency["perplexity_before"] is not None:
        perplexity, before = fluency["perplexity"], fluency["perplexity_before"]
        tone = tone_of(perplexity / before, _PERPLEXITY)
        more = f"{number(before, 1)} before"
        front.append(Front("perplexity of generic text", number(perplexity, 1), more, tone))
    return front


def tone_of(value: float, limits: tuple[float, float]) -> str:
    """`GOOD`, `BAD` or neither, of a number and the limits of both."""
    good, bad = limits
    sign = 1 if good > bad else -1
    if sign * value >= sign * good:
        return GOOD
    return BAD if sign * value <= sign * bad else ""


def _rate(
    name: str,
    rate: float,
    limits: tuple[float, float] | None,
    interval: Sequence[float] | None = None,
    more: str = "",
) -> Front:
    within = f"{percent(interval[0])} to {percent(interval[1])}" if interval else ""
    told = ", ".join(filter(None, (within, more)))
    return Front(name, percent(rate), told, tone_of(rate, limits) if limits else "")


def _moved(of: Mapping[str, Any]) -> str:
    told = f"same next token {percent(of['top1'])}, KL {number(of['kl'])}"
    return f"about the subject {percent(of['subject_kept'])}, {told}"
