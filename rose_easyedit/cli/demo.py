"""The demonstration: one set of facts, written by MEMIT-Merge and by RoSE, side by side."""

from __future__ import annotations

import argparse
import json
import re
import resource
import sys
import time
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rose_easyedit.cli.words import EXIT_CODES
from rose_easyedit.config.hparams import RoSEHyperParams
from rose_easyedit.evaluation.evaluate import (
    Baseline,
    EvaluationResult,
    EvaluationSettings,
    Record,
    evaluate_edit,
)
from rose_easyedit.evaluation.facts import FORMS, SUBJECT, Fact, load_facts
from rose_easyedit.evaluation.report_words import number, percent
from rose_easyedit.method.edit import compute_edit
from rose_easyedit.models.loading import EMBEDDED, load_model

METHODS = {"memit-merge": "MEMIT-Merge", "rose": "RoSE"}
DESCRIPTION = """\
Write counterfactual facts into SmolLM2-135M-Instruct with MEMIT-Merge and with RoSE, and show what
it answers before and after.

Examples:
  rose-edit demo
  rose-edit demo --all-queries --json > demo.json
"""
INTRODUCTION = """\
{facts} counterfactual facts about {subjects} subjects, several about each, are written into \
{model}, all at once,
first with the settings of MEMIT-Merge and then with those of RoSE. Only the statements are edited;
paraphrases, questions and instructions are never shown to the edit. Answers are greedy, at most
{tokens} tokens long; [brackets] mark the target.
A faithful answer names the target and is still about the subject.
"""
_PLAIN_WIDTH = 150
_ANSWER_WIDTH = 46
_NEW_TOKENS = 16  # about what a cell of the table shows
_WORDS_OF_ANSWERS = {
    "name the target": "success",
    "another subject in its place": "replaced",
    "broken": "broken",
}
_WORDS_OF_KINDS = {
    SUBJECT: "other queries of the subjects",
    "neighbour": "neighbours",
    "all": "other prompts",
}


@dataclass(frozen=True)
class Outcome:
    """What one method made of the facts, and the seconds that its edit took."""

    name: str
    result: EvaluationResult
    seconds: float


def run_demo(
    model: Any,
    tokenizer: Any,
    facts: Sequence[Fact],
    methods: Sequence[tuple[str, RoSEHyperParams]],
    settings: EvaluationSettings | None = None,
) -> list[Outcome]:
    """Edit the facts once per method, and ask before and after.

    Args:
        model: The unedited model; it is unedited again when this returns.
        tokenizer: Its tokenizer.
        facts: The facts to write.
        methods: A name and the settings of each method.
        settings: How the models are asked.
    """
    baseline = Baseline.of(model, tokenizer, facts, settings=settings)
    requests = [fact.to_request() for fact in facts]
    outcomes = []
    for name, hparams in methods:
        start = time.perf_counter()
        delta = compute_edit(model, tokenizer, requests, hparams)
        seconds = time.perf_counter() - start
        with delta.applied(model):
            result = evaluate_edit(model, tokenizer, facts, baseline=baseline)
        outcomes.append(Outcome(name, result, seconds))
    return outcomes


def main(argv: Sequence[str] | None = None) -> int:
    """`rose-edit demo`: prints the tables, or with --json everything as data."""
    parser = argparse.ArgumentParser(
        prog="rose-edit demo",
        description=DESCRIPTION,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--model", default=EMBEDDED, metavar="NAME", help="name, folder or hub name"
    )
    parser.add_argument(
        "--hparams", default="smollm2-135m", metavar="NAME", help="the model's settings"
    )
    parser.add_argument("--all-queries", action="store_true", help="every wording of each form")
    parser.add_argument("--json", action="store_true", help="print all records as JSON")
    options = parser.parse_args(argv)
    started = time.perf_counter()
    console = Console(emoji=False)
    if not console.is_terminal:
        console = Console(emoji=False, width=_PLAIN_WIDTH)
    facts = load_facts(demo=True)
    if not options.all_queries:
        facts = [one_query_per_form(fact) for fact in facts]
    methods = [
        (name, RoSEHyperParams.preset(preset, options.hparams)) for preset, name in METHODS.items()
    ]
    if not options.json:
        shown = "SmolLM2-135M-Instruct" if options.model == EMBEDDED else options.model
        subjects = len({fact.subject for fact in facts})
        text = INTRODUCTION.format(
            facts=len(facts), subjects=subjects, model=shown, tokens=_NEW_TOKENS
        )
        console.print(text, markup=False, highlight=False)
    asked = EvaluationSettings(max_new_tokens=_NEW_TOKENS, teacher_forcing=False)
    outcomes = run_demo(*load_model(options.model), facts, methods, asked)
    seconds = time.perf_counter() - started
    if options.json:
        print(json.dumps(_as_data(outcomes, seconds), ensure_ascii=False, indent=2))
        return 0
    for table in answer_tables(facts, outcomes):
        console.print(table)
        console.print()
    console.print(totals_table(outcomes))
    console.print(f"{seconds:.0f} seconds, {peak_gigabytes():.1f} GB of memory at most.")
    return 0


def one_query_per_form(fact: Fact) -> Fact:
    """The fact with only the first wording of each form."""
    return replace(
        fact,
        paraphrases=fact.paraphrases[:1],
        questions=fact.questions[:1],
        instructions=fact.instructions[:1],
    )


def answer_tables(facts: Sequence[Fact], outcomes: Sequence[Outcome]) -> Iterable[Table]:
    """One table per subject: a block of rows per fact, a column per model."""
    by_case = {fact.case_id: fact for fact in facts}
    rows = zip(*(outcome.result.records for outcome in outcomes), strict=True)
    for subject, of_subject in groupby(rows, key=lambda row: row[0].subject):
        table = Table(title=subject, title_style="bold", box=box.SIMPLE_HEAD, expand=True)
        for name, ratio in (("form", 5), ("query", 14), ("before", 12)):
            table.add_column(name, ratio=ratio)
        for outcome in outcomes:
            table.add_column(outcome.name, ratio=12)
        for _, of_fact in groupby(of_subject, key=lambda row: row[0].relation):
            for row in of_fact:
                table.add_row(*_cells(by_case[f"{subject}/{row[0].relation}"], row))
            table.add_section()
        yield table


def totals_table(outcomes: Sequence[Outcome]) -> Table:
    """Faithful answers per form, those that name the target, and what else moved."""
    table = Table(title="In total", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column("faithful answers")
    for outcome in outcomes:
        table.add_column(outcome.name, justify="right")
    answers = [outcome.result.records for outcome in outcomes]
    for form in FORMS:
        counts = [_count(r.faithful for r in of if r.form == form) for of in answers]
        table.add_row(form, *counts)
    table.add_section()
    for name, hits in _WORDS_OF_ANSWERS.items():
        table.add_row(name, *(_count(getattr(r, hits) for r in of) for of in answers))
    table.add_section()
    locality = [outcome.result.summary()["locality"] for outcome in outcomes]
    for kind, name in _WORDS_OF_KINDS.items():
        of_kind = [of[kind] for of in locality if of.get(kind, {"prompts": 0})["prompts"]]
        if of_kind:
            table.add_row(f"{name}: same next token", *(percent(of["top1"]) for of in of_kind))
            table.add_row(f"{name}: KL divergence", *(number(of["kl"]) for of in of_kind))
    table.add_section()
    table.add_row("seconds for the edit", *(f"{o.seconds:.0f}" for o in outcomes))
    return table


def mark_target(answer: str, names: Iterable[str], width: int = _ANSWER_WIDTH) -> Text:
    """One line of the answer, cut to about `width`, with the first name found in [brackets].

    An answer that names the target late is cut at its front, so that the mark is seen.
    """
    line = " ".join(unicodedata.normalize("NFKC", answer).split())
    alternatives = "|".join(re.escape(unicodedata.normalize("NFKC", name)) for name in names)
    found = re.search(rf"(?<!\w)(?:{alternatives})(?!\w)", line, re.IGNORECASE)
    if found is None:
        return Text(_shorten(line, width))
    start, end = found.span()
    before, target, after = line[:start], line[start:end], line[end:]
    if end > width:
        before = "..." + before[len(before) - max(width - len(target) - 3, 0) :]
    return Text.assemble(
        before,
        (f"[{target}]", "bold green"),
        _shorten(after, max(width - len(before) - len(target), 0)),
    )


def peak_gigabytes() -> float:
    """The most memory that this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e9 if sys.platform == "darwin" else 1e6)  # bytes there, kilobytes elsewhere


def _cells(fact: Fact, row: Sequence[Record]) -> list[Text]:
    names = (fact.target_new, *fact.target_aliases)
    answers = [row[0].before, *(record.answer for record in row)]
    return [
        Text(row[0].form, "dim"),
        Text(row[0].query),
        *(mark_target(answer, names) for answer in answers),
    ]


def _shorten(text: str, width: int) -> str:
    return text if len(text) <= width else text[:width].rstrip() + "..."


def _count(hits: Iterable[bool]) -> str:
    hits = list(hits)
    return f"{sum(hits)} of {len(hits)}"


def _as_data(outcomes: Sequence[Outcome], seconds: float) -> dict[str, Any]:
    methods = {
        outcome.name: {"edit_seconds": outcome.seconds, **outcome.result.as_dict()}
        for outcome in outcomes
    }
    return {"seconds": seconds, "peak_gigabytes": peak_gigabytes(), "methods": methods}
