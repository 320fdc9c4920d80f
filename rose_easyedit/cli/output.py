"""What `rose-edit` prints: tables for people, one JSON object for programs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from rose_easyedit.config.compare import flat
from rose_easyedit.files.amounts import counted
from rose_easyedit.files.records import shorten
from rose_easyedit.files.stdout import json_text, printable

if TYPE_CHECKING:
    from rose_easyedit.evaluation.report_tables import TextTable

Report = dict[str, Any]

# What logs an edit's notes and warnings.
_IN_REPORT = (
    "rose_easyedit.method.stage1.targets",
    "rose_easyedit.method.verification",
    "rose_easyedit.memory.solved",
)
# Of a table in parts, beside the first column.
_LEAST_COLUMNS = 3


def show(report: Report, as_json: bool, table: Callable[[Report, Any], None]) -> None:
    """Prints a report on standard output."""
    if as_json:
        print(json_text(report))
        return
    from rich.console import Console

    console = Console(emoji=False)
    with console.capture() as capture:
        table(printable(report), console)
    print(capture.get(), end="")  # rich would end the process where a pipe is closed early


@contextmanager
def told_in_report() -> Iterator[None]:
    """What an edit warns of in the block, and its report has as well, is not logged.

    A terminal shows both.
    """
    loggers = [logging.getLogger(name) for name in _IN_REPORT]

    def withheld(_: logging.LogRecord) -> bool:
        return False

    for logger in loggers:
        logger.addFilter(withheld)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(withheld)


def edit_report(report: Report, console: Any) -> None:
    """The facts written, each with its loss."""
    _print_facts(report, console)
    facts, subjects = counted(len(report["facts"]), "fact"), _n_subjects(report)
    line(
        console,
        f"{facts} about {counted(subjects, 'subject')} in "
        f"{report['seconds']:.1f} s -> {report['out']} ({size(report['bytes'])})",
    )


def ask_report(report: Report, console: Any) -> None:
    """Answers before and after the edit, side by side."""
    from rich.markup import escape
    from rich.table import Table

    for answer in report["answers"]:
        table = Table(title=escape(shorten(answer["prompt"])), title_justify="left", expand=True)
        table.add_column("before", ratio=1)
        table.add_column("after", ratio=1)
        table.add_row(escape(answer["before"]), escape(answer["after"]))
        console.print(table)


def evaluate_report(report: Report, console: Any) -> None:
    """Totals of an evaluation, and where its page is."""
    from rose_easyedit.evaluation.report_tables import harness_table, summary_tables

    totals = report["summary"]
    facts, subjects = counted(totals["facts"], "fact"), counted(totals["subjects"], "subject")
    line(console, f"{report['title']}: {facts} about {subjects}, {report['model']}")
    tables = summary_tables(totals)
    if report["lm_eval"]:
        tables.append(harness_table(report["lm_eval"]))
    for table in tables:
        _print_text_table(table, console)
    for note in report["notes"]:
        line(console, f"note: {note}")
    if "report" in report:
        line(console, f"every answer -> {report['report']}")


def written_report(report: Report, console: Any) -> None:
    """Where a folder was written."""
    line(console, f"{report['kind']} ({len(report['weights'])} weights) -> {report['out']}")


def info_report(report: Report, console: Any) -> None:
    """All about an edit file."""
    hparams = report["hparams"] or {}
    versions = report["versions"] or {}
    line(console, f"{report['file']} ({size(report['bytes'])})")
    line(console, f"model    {hparams.get('model_name', 'unknown')} ({report['architecture']})")
    line(console, f"weights  {report['dtype']}, fingerprint {report['base'][:16]}")
    line(console, f"versions {', '.join(f'{name} {v}' for name, v in versions.items())}")
    for name, rank in report["ranks"].items():
        line(console, f"edits    {name}, rank {rank}")
    _print_facts(report, console)
    for key, value in flat(hparams).items():
        line(console, f"setting  {key} = {value}")


def _print_facts(report: Report, console: Any) -> None:
    from rich.markup import escape
    from rich.table import Table

    checked = report["self_check"]
    table = Table()
    for column in ("subject", "prompt", "target"):
        table.add_column(column)
    numbers = {"loss": "loss"}
    if checked:
        numbers = {"loss": "learned", "reached": "reached", "written": "written"}
    for column in numbers.values():
        table.add_column(column, justify="right")
    for fact in report["facts"]:
        texts = (fact["subject"], fact["prompt"], fact["target_new"])
        cells = [f"{fact[name]:.3f}" if fact[name] is not None else "?" for name in numbers]
        table.add_row(*(escape(shorten(text)) for text in texts), *cells)
    console.print(table)
    if checked:
        _print_check(checked, console)
    else:
        line(console, "loss: -log P of a target token in nats; this edit has not checked itself")
    for note in report["log"]:
        line(console, f"note: {note}")


def _print_check(checked: Report, console: Any) -> None:
    """What the table's numbers should be, how far other texts move, and what is wrong."""
    limits = checked["limits"]
    line(
        console,
        f"learned, written: loss, -log P of a target token in nats; good is near 0, damaged above "
        f"{limits['most_loss']:g}. reached: share of the way to the target; good is near 1, "
        f"damaged below {limits['least_reached']:g}",
    )
    most = {"generic": limits["most_drift"], "neighbours": limits["most_neighbour_drift"]}
    for name, drift in checked["drift"].items():
        far = "numbers that are not finite" if drift["kl"] is None else f"{drift['kl']:.3f} nats"
        line(
            console,
            f"drift: {name} {far}, {drift['top1']:.0%} of {drift['prompts']} next tokens kept; "
            f"good is near 0, damaged above {most[name]:g}",
        )
    for warning in checked["warnings"]:
        line(console, f"warning: {warning}")


def _print_text_table(content: TextTable, console: Any) -> None:
    """One table, or more that repeat the first column where the columns do not fit the width."""
    unbounded, count = console.options.update(width=10_000), len(content.columns) - 1
    for n_parts in range(1, max(1, count // _LEAST_COLUMNS) + 1):
        ends = [1 + part * count // n_parts for part in range(n_parts + 1)]
        parts = [range(*pair) for pair in pairwise(ends)]
        further = replace(content, title=f"{content.title}, further")
        tables = [_text_table(further if part.start > 1 else content, part) for part in parts]
        if all(console.measure(t, options=unbounded).maximum <= console.width for t in tables):
            break
    for table in tables:
        console.print(table)


def _text_table(content: TextTable, columns: range) -> Any:
    """The first column and these."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(content.title), title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column(content.columns[0])
    for number in columns:
        table.add_column(content.columns[number], justify="right")
    for row in content.rows:
        table.add_row(*(escape(row.cells[number]) for number in (0, *columns)))
    return table


def line(console: Any, text: str) -> None:
    """A line as it is: brackets are no markup, and nothing is coloured or broken."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _n_subjects(report: Report) -> int:
    return len({fact["subject"] for fact in report["facts"]})


def size(n_bytes: float) -> str:
    """Bytes in a unit that people read."""
    if n_bytes >= 1e9:
        return f"{n_bytes / 1e9:.1f} GB"
    return f"{n_bytes / 1e6:.1f} MB" if n_bytes >= 1e5 else f"{n_bytes / 1e3:.1f} kB"
