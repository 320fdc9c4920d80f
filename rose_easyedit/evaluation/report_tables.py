"""The totals of an evaluation as rows of text, for the terminal and for the page alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

UNKNOWN = "\u2013"


@dataclass(frozen=True)
class Row:
    """Cells of text; `bar` is the row's main rate in percent, where it has one."""

    cells: tuple[str, ...]
    bar: float | None = None


@dataclass(frozen=True)
class TextTable:
    """A table of text; the first column names the rows, `hint` explains the others."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    hint: str = ""


def summary_tables(summary: Mapping[str, Any]) -> list[TextTable]:
    """The tables of `EvaluationResult.summary()`, those without content left out."""
    tables = [
        _forms(summary),
        _locality(summary["locality"]),
        _per_subject(summary["facts_per_subject"]),
        _whole(summary),
    ]
    return [table for table in tables if table.rows]


def harness_table(results: Mapping[str, Any]) -> TextTable:
    """Scores of `harness.run_harness`, before and after."""
    rows = [
        Row((f"{task}: {metric}", number(before), number(results["after"][task].get(metric))))
        for task, metrics in results["before"].items()
        for metric, before in metrics.items()
    ]
    return TextTable("Language model evaluation harness", ("task", "before", "after"), tuple(rows))


def percent(value: float | None) -> str:
    """A rate as the tables show it."""
    return UNKNOWN if value is None else f"{value:.0%}"


def number(value: Any, digits: int = 3) -> str:
    """A number as the tables show it."""
    if value is None:
        return UNKNOWN
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def _forms(summary: Mapping[str, Any]) -> TextTable:
    rows = []
    for form, of in summary["forms"].items():
        name = f"{form} (wrapped)" if of["wrapped"] == of["queries"] else form
        rows.append(
            Row(
                (
                    name,
                    str(of["queries"]),
                    _with_interval(of["success"], of["interval"]),
                    percent(of["success_before"]),
                    percent(of["exact_prefix"]),
                    percent(of["teacher_forcing"]),
                    _points(of["gap"]),
                    percent(of["old_answer"]),
                    percent(of["other_target"]),
                    percent(of["headline"]["normalised"]),
                ),
                bar=round(100 * of["success"], 1),
            )
        )
    headline = summary["headline"]
    left_out = headline["not_native"]
    if headline["success"] is not None:
        rows.append(
            Row(
                (
                    "all forms",
                    str(headline["queries"]),
                    _with_interval(headline["success"], headline["interval"]),
                    *[""] * 6,
                    percent(headline["normalised"]),
                ),
                bar=round(100 * headline["success"], 1),
            )
        )
    return TextTable(
        "Answers that name the target",
        (
            "form",
            "asked",
            "success",
            "before",
            "exact prefix",
            "teacher forced",
            "gap",
            "old answer",
            "interference",
            "normalised",
        ),
        tuple(rows),
        "Success: the greedy answer names the target, with a 95% interval over subjects, of two "
        "or more. Exact prefix: it begins with it. Teacher forced: tokens of the target that are "
        "the likeliest ones when it is put behind the query; gap: success minus that, in points. "
        "Interference: the answer names the target of another fact of the subject. Normalised: "
        "success over what the unedited model answers by itself."
        + (f" Not among all forms, as not native: {', '.join(left_out)}." if left_out else ""),
    )


def _locality(kinds: Mapping[str, Mapping[str, Any]]) -> TextTable:
    rows = [
        Row(
            (
                {"all": "all prompts", "generic": "generic text"}.get(kind, kind),
                str(of["prompts"]),
                percent(of["top1"]),
                number(of["kl"]),
                percent(of["shared_text"]),
                percent(of["same_text"]),
            )
        )
        for kind, of in kinds.items()
        if of["prompts"]
    ]
    return TextTable(
        "What should not have changed",
        ("kind", "prompts", "same next token", "KL", "shared answer", "same answer"),
        tuple(rows),
        "KL(before || after) of the next token in nats. Shared answer: the greedy answer's tokens "
        "up to the first difference. Generic text counts positions, and is no part of all prompts.",
    )


def _per_subject(groups: Mapping[Any, Mapping[str, Any]]) -> TextTable:
    rows = [
        Row(
            (
                f"{count} facts" if int(count) > 1 else "1 fact",
                str(of["subjects"]),
                _with_interval(of["success"], of["interval"]),
            ),
            bar=round(100 * of["success"], 1),
        )
        for count, of in groups.items()
    ]
    return TextTable(
        "By facts edited per subject",
        ("edited", "subjects", "success"),
        tuple(rows),
        "Over all forms.",
    )


def _whole(summary: Mapping[str, Any]) -> TextTable:
    fluency, kept = summary["fluency"], summary["r_specificity"]
    rows = [
        Row(
            (
                "n-gram entropy of the answers (bits)",
                number(fluency["ngram_entropy_before"], 2),
                number(fluency["ngram_entropy"], 2),
            )
        ),
        Row(
            (
                "perplexity of generic text",
                number(fluency["perplexity_before"], 2),
                number(fluency["perplexity"], 2),
            )
        ),
    ]
    if kept is not None:
        name = f"other facts of the subjects kept ({kept['known']})"
        rows.append(Row((name, percent(1.0), _with_interval(kept["kept"], kept["interval"]))))
    return TextTable(
        "The model as a whole",
        ("", "before", "after"),
        tuple(rows),
        "Entropy falls when answers repeat themselves; perplexity rises when the model breaks. "
        "Other facts: those that were not edited; what was answered truly should still be.",
    )


def _with_interval(rate: float | None, interval: Sequence[float] | None) -> str:
    if rate is None or interval is None:
        return percent(rate)
    low, high = interval
    return f"{rate:.0%} [{100 * low:.0f}\u2013{100 * high:.0f}]"


def _points(value: float | None) -> str:
    return UNKNOWN if value is None else f"{100 * value:+.0f}"
