"""The totals of an evaluation as rows of text, for the terminal and for the page alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rose_easyedit.evaluation.facts import SUBJECT
from rose_easyedit.evaluation.report_front import FAITHFUL, SAME_TOKEN, front_of, tone_of
from rose_easyedit.evaluation.report_words import number, percent, points, with_interval
from rose_easyedit.files.amounts import counted

_KINDS = {
    "all": "all prompts",
    "generic": "generic text",
    SUBJECT: "other queries of the subjects",
}
_FORMS_COLUMNS = (
    "form",
    "asked",
    "faithful",
    "names the target",
    "before",
    "replaced",
    "broken",
    "exact prefix",
    "teacher forced",
    "gap",
    "old answer",
    "interference",
    "normalised",
)
_FORMS_HINT = (
    "Faithful: the greedy answer names the target and is still about the subject; names the "
    "target: whatever it says it of, as before the edit. 95% intervals over subjects, of two "
    "or more. Replaced: something else stands in the subject's place. Broken: it repeats the "
    "target or itself. Exact prefix: it begins with the target. Teacher forced: tokens of the "
    "target that are the likeliest ones when it is put behind the query; gap: names the target "
    "minus that, in points. Interference: the answer names the target of another fact of the "
    "subject. Normalised: faithful over what the unedited model answers by itself."
)


@dataclass(frozen=True)
class TableRow:
    """Cells of text.

    Attributes:
        cells: The first one names the row.
        bar: The row's main rate in percent, where it has one.
        tone: How good that is (`report_front.tone_of`).
    """

    cells: tuple[str, ...]
    bar: float | None = None
    tone: str = ""

    @classmethod
    def rated(cls, rate: float, limits: tuple[float, float], cells: tuple[str, ...]) -> TableRow:
        """A row with its main rate and the limits of good and poor."""
        return cls(cells, round(100 * rate, 1), tone_of(rate, limits))


@dataclass(frozen=True)
class TextTable:
    """A table of text; the first column names the rows, `hint` explains the others."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]
    hint: str = ""


def summary_tables(summary: Mapping[str, Any]) -> list[TextTable]:
    """The tables of `EvaluationResult.summary()`, those without content left out."""
    tables = [
        _front(summary),
        _forms(summary),
        _locality(summary["locality"]),
        _per_subject(summary["facts_per_subject"]),
        _whole(summary),
    ]
    return [table for table in tables if table.rows]


def harness_table(results: Mapping[str, Any]) -> TextTable:
    """Scores of `harness.run_harness`, before and after."""
    rows = [
        TableRow((f"{task}: {metric}", number(before), number(results["after"][task].get(metric))))
        for task, metrics in results["before"].items()
        for metric, before in metrics.items()
    ]
    return TextTable("Language model evaluation harness", ("task", "before", "after"), tuple(rows))


def _front(summary: Mapping[str, Any]) -> TextTable:
    rows = [TableRow((of.name, of.value, of.more, of.judged)) for of in front_of(summary)]
    return TextTable(
        "In short",
        ("", "after the edit", "", "judged"),
        tuple(rows),
        "Faithful: the answer names the target and is still about the subject: it begins with the "
        "target, names the subject or leaves it to the question; names the target: whatever it "
        "says it of. Broken answers repeat the target or themselves. Words kept: of the unedited "
        "model's answers to queries that ask for no edited fact.",
    )


def _forms(summary: Mapping[str, Any]) -> TextTable:
    rows = []
    for form, of in summary["forms"].items():
        name = form
        if of["wrapped"]:
            some = "" if of["wrapped"] == of["queries"] else f"{of['wrapped']} "
            name = f"{form} ({some}wrapped)"
        of_a_form = (
            percent(of["success_before"]),
            percent(of["teacher_forcing"]),
            points(of["gap"]),
            percent(of["old_answer"]),
            percent(of["other_target"]),
        )
        rows.append(_form_row(name, of, of_a_form, of["headline"]["normalised"]))
    headline = summary["headline"]
    left_out = headline["not_native"]
    if headline["faithful"] is not None:
        rows.append(_form_row("all forms", headline, [""] * 5, headline["normalised"]))
    hint = _FORMS_HINT
    if left_out:
        hint += f" Not among all forms, as not native: {', '.join(left_out)}."
    return TextTable("Answers about the edited facts", _FORMS_COLUMNS, tuple(rows), hint)


def _form_row(
    name: str, of: Mapping[str, Any], of_a_form: Sequence[str], normalised: float | None
) -> TableRow:
    """How the queries of a form, or of all, were answered; `of_a_form` are cells of one only."""
    before, *others = of_a_form
    cells = (
        name,
        str(of["queries"]),
        with_interval(of["faithful"], of["faithful_interval"]),
        with_interval(of["success"], of["interval"]),
        before,
        percent(of["replaced"]),
        percent(of["broken"]),
        percent(of["exact_prefix"]),
        *others,
        percent(normalised),
    )
    return TableRow.rated(of["faithful"], FAITHFUL, cells)


def _locality(kinds: Mapping[str, Mapping[str, Any]]) -> TextTable:
    rows = [
        TableRow.rated(
            of["top1"],
            SAME_TOKEN,
            (
                _KINDS.get(kind, kind),
                str(of["prompts"]),
                with_interval(of["top1"], of["interval"]),
                number(of["kl"]),
                with_interval(of["words_kept"], of["words_interval"]),
                percent(of["shared_text"]),
                percent(of["same_text"]),
            ),
        )
        for kind, of in kinds.items()
        if of["prompts"]
    ]
    return TextTable(
        "What should not have changed",
        ("kind", "prompts", "same next token", "KL", "words kept", "shared answer", "same answer"),
        tuple(rows),
        "KL(before || after) of the next token in nats. Words kept: of the greedy answer's "
        "different words; shared answer: its tokens up to the first difference. Other queries of "
        "the subjects ask for no edited fact; they and generic text, which counts positions, are "
        "no part of all prompts.",
    )


def _per_subject(groups: Mapping[Any, Mapping[str, Any]]) -> TextTable:
    rows = [
        TableRow.rated(
            of["faithful"],
            FAITHFUL,
            (
                counted(int(count), "fact"),
                str(of["subjects"]),
                with_interval(of["faithful"], of["faithful_interval"]),
                with_interval(of["success"], of["interval"]),
            ),
        )
        for count, of in groups.items()
    ]
    return TextTable(
        "By facts edited per subject",
        ("edited", "subjects", "faithful", "names the target"),
        tuple(rows),
        "Over all forms.",
    )


def _whole(summary: Mapping[str, Any]) -> TextTable:
    fluency, kept = summary["fluency"], summary["r_specificity"]
    rows = [
        TableRow(
            (
                "n-gram entropy of the answers (bits)",
                number(fluency["ngram_entropy_before"], 2),
                number(fluency["ngram_entropy"], 2),
            )
        ),
        TableRow(
            (
                "perplexity of generic text",
                number(fluency["perplexity_before"], 2),
                number(fluency["perplexity"], 2),
            )
        ),
    ]
    if kept is not None:
        name = f"other facts of the subjects kept ({kept['known']})"
        rows.append(TableRow((name, percent(1.0), with_interval(kept["kept"], kept["interval"]))))
    return TextTable(
        "The model as a whole",
        ("", "before", "after"),
        tuple(rows),
        "Entropy falls when answers repeat themselves; perplexity rises when the model breaks. "
        "Other facts: those that were not edited; what was answered truly should still be.",
    )
