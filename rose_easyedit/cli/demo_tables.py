"""What the demonstration prints: totals over all facts, six of the answers, and what stayed."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table
from rich.text import Text

from rose_easyedit.evaluation.facts import FORMS
from rose_easyedit.evaluation.records import OtherRecord, Record
from rose_easyedit.evaluation.report_words import percent
from rose_easyedit.evaluation.result import EvaluationResult
from rose_easyedit.text.names import Names

PLAIN_WIDTH = 110
_ANSWER_WIDTH = 90
_SHOWN, _SHOWN_KEPT = 6, 3
_WORDS_OF_ANSWERS = {
    "name the target": "success",
    "another subject in its place": "replaced",
    "broken": "broken",
}


@dataclass(frozen=True)
class Outcome:
    """What one method made of the facts, and the seconds that its edit took."""

    name: str
    result: EvaluationResult
    seconds: float


def totals_table(outcomes: Sequence[Outcome]) -> Table:
    """Faithful answers per form, those that name the target, what stayed, and the seconds."""
    table = Table(title="In total", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column("")
    for outcome in outcomes:
        table.add_column(outcome.name, justify="right")
    answers = [outcome.result.records for outcome in outcomes]
    table.add_row("faithful answers", *(_count(r.faithful for r in of) for of in answers))
    for form in FORMS:
        counts = [_count(r.faithful for r in of if r.form == form) for of in answers]
        table.add_row(f"  {form}", *counts)
    for name, hits in _WORDS_OF_ANSWERS.items():
        table.add_row(name, *(_count(getattr(r, hits) for r in of) for of in answers))
    summaries = [outcome.result.summary() for outcome in outcomes]
    specificity = [of["r_specificity"] for of in summaries]
    if all(specificity):
        kept = (f"{percent(of['kept'])} of {of['known']}" for of in specificity)
        table.add_row("other facts of the subjects kept", *kept)
    near = [of["locality"].get("neighbour") for of in summaries]
    if all(near):
        table.add_row("neighbours: same next token", *(percent(of["top1"]) for of in near))
    table.add_row("seconds for the edit", *(f"{o.seconds:.0f}" for o in outcomes))
    return table


def shares(
    outcomes: Sequence[Outcome],
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]]:
    """Of each method the share of faithful answers by form, and of what stayed by what it is."""
    written: dict[str, dict[str, float]] = {}
    kept: dict[str, dict[str, float]] = {}
    for outcome in outcomes:
        summary = outcome.result.summary()
        others, near = summary["r_specificity"], summary["locality"].get("neighbour")
        written[outcome.name] = {f"{form}s": summary["forms"][form]["faithful"] for form in FORMS}
        kept[outcome.name] = {
            **({"other facts\nof the subjects": others["kept"]} if others else {}),
            **({"next token\nof other subjects": near["top1"]} if near else {}),
        }
    return written, kept


def answers_text(outcomes: Sequence[Outcome]) -> Text:
    """The first questions, of each fact one, and the answers before and after."""
    rows = zip(*(outcome.result.records for outcome in outcomes), strict=True)
    asked = [row for row in rows if row[0].form == "question"][:_SHOWN]
    text = Text(f"\nThe first {len(asked)} questions; [brackets] mark the target\n")
    for row in asked:
        text.append(_question(outcomes, row, [row[0].target, *row[0].aliases]))
    return text


def kept_text(outcomes: Sequence[Outcome]) -> Text:
    """The first questions about the same subjects that no fact answers, and their answers."""
    rows = zip(*(outcome.result.others for outcome in outcomes), strict=True)
    asked = [row for row in rows if row[0].form == "question" and row[0].known][:_SHOWN_KEPT]
    if not asked:
        return Text()
    text = Text(f"\nAnd what was not edited: the first {len(asked)} questions\n")
    for row in asked:
        text.append(_question(outcomes, row, []))
    return text


def _question(
    outcomes: Sequence[Outcome], row: Sequence[Record | OtherRecord], names: Sequence[str]
) -> Text:
    """A question, and a line for each answer: of the unedited model, then of each method."""
    text = Text.assemble((f"\n{row[0].query}\n", "bold"))
    answers = [("before", row[0].before)]
    answers += [(o.name, record.answer) for o, record in zip(outcomes, row, strict=True)]
    for name, answer in answers:
        text.append(f"  {name:<12}", "dim")
        text.append(mark_target(answer, names))
        text.append("\n")
    return text


def mark_target(answer: str, names: Iterable[str], width: int = _ANSWER_WIDTH) -> Text:
    """One line of the answer, cut to about `width`, with the first name found in [brackets].

    An answer that names the target late is cut at its front, so that the mark is seen.
    """
    line = " ".join(unicodedata.normalize("NFKC", answer).split())
    pieces = Names.of(names).split(line)
    place = next((i for i, (_, marked) in enumerate(pieces) if marked), None)
    if place is None:
        return Text(_shorten(line, width))
    before = "".join(text for text, _ in pieces[:place])
    target = pieces[place][0]
    after = "".join(text for text, _ in pieces[place + 1 :])
    if len(before) + len(target) > width:
        before = "..." + before[len(before) - max(width - len(target) - 3, 0) :]
    return Text.assemble(
        before,
        (f"[{target}]", "bold green"),
        _shorten(after, max(width - len(before) - len(target), 0)),
    )


def _shorten(text: str, width: int) -> str:
    return text if len(text) <= width else text[:width].rstrip() + "..."


def _count(hits: Iterable[bool]) -> str:
    hits = list(hits)
    return f"{sum(hits)} of {len(hits)}"
