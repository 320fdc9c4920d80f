"""`rose-edit memory`: an agent's memory in the shell."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rose_easyedit.cli import output
from rose_easyedit.cli.commands import answer, check_question, damage_of
from rose_easyedit.cli.places import check_place, named, new_file
from rose_easyedit.cli.settings import edit_settings
from rose_easyedit.cli.words import DONE, WARNED
from rose_easyedit.errors import RoSEError, no_file
from rose_easyedit.files.amounts import counted
from rose_easyedit.files.records import shorten
from rose_easyedit.requests import EditRequest

if TYPE_CHECKING:
    from rose_easyedit.memory import Change, FactMemory
    from rose_easyedit.requests import EditRequest

_FACT = ("prompt", "subject", "target")


def add(arguments: Namespace) -> None:
    """Adds facts, and computes their targets."""
    facts = _facts(arguments)
    memory = _opened(arguments, begin=True)
    start = time.perf_counter()
    changes = memory.add(facts, compute=not arguments.later)
    _show_changes(arguments, memory, changes, start)


def update(arguments: Namespace) -> None:
    """Changes facts that are there."""
    facts = _facts(arguments)
    memory = _opened(arguments)
    start = time.perf_counter()
    changes = memory.update(facts, compute=not arguments.later)
    _show_changes(arguments, memory, changes, start)


def forget(arguments: Namespace) -> None:
    """Forgets a subject or a fact."""
    memory = _opened(arguments)
    start = time.perf_counter()
    changes = memory.forget(arguments.subject, arguments.prompt)
    _show_changes(arguments, memory, changes, start)


def list_facts(arguments: Namespace) -> None:
    """Shows the facts."""
    entries = _opened(arguments).list(arguments.subject)
    facts = [
        {
            **entry.request.as_dict(),
            "since": entry.since,
            "state": entry.state,
            "fault": entry.fault,
        }
        for entry in entries
    ]
    report = {"memory": arguments.memory, "facts": facts}
    output.show(report, arguments.json, list_report)


def history(arguments: Namespace) -> None:
    """Shows what has happened."""
    changes = [asdict(change) for change in _opened(arguments).history(arguments.subject)]
    output.show({"memory": arguments.memory, "changes": changes}, arguments.json, history_report)


def ask(arguments: Namespace) -> None:
    """Asks the model as it is, and as it knows the facts."""
    check_question(arguments)
    memory = _opened(arguments)
    memory.delta()  # computed before anything is asked
    told = memory.hparams.template_arguments
    answer(arguments, *memory.base(), memory.edited, {"memory": arguments.memory}, told)


def export(arguments: Namespace) -> int:
    """Writes the edit."""
    out = new_file(arguments.out, arguments.force, [arguments.memory])
    memory = _opened(arguments)
    with output.told_in_report():
        size = memory.save(out, replace=arguments.force).stat().st_size
    delta = memory.delta()
    log = list(delta.provenance.log) if delta else []
    report = {"out": str(out), "bytes": size, "log": log, "warnings": damage_of(delta)}
    output.show(report, arguments.json, export_report)
    return WARNED if report["warnings"] else DONE


def _opened(arguments: Namespace, *, begin: bool = False) -> FactMemory:
    from rose_easyedit.memory import FactMemory
    from rose_easyedit.memory.file import MemoryFile

    path = named(arguments.memory, "--memory", "a file, such as facts.db")
    is_there = MemoryFile(path).is_begun
    if not is_there and (not begin or path.is_dir()):
        raise no_file(path, "memory", "`memory add` begins one in a file")
    if not is_there:
        check_place(path)
    words = ("hparams", "method", "seed", "set")
    given = any(getattr(arguments, word, None) not in (None, []) for word in words)
    base = FactMemory.open(arguments.memory).hparams if given and is_there else None
    return FactMemory.open(
        arguments.memory,
        getattr(arguments, "model", None),
        hparams=edit_settings(arguments, base) if given or not is_there else None,
        device=getattr(arguments, "device", None),
        dtype=getattr(arguments, "dtype", None) or "auto",
        load_now=begin and not arguments.later,
    )


def _facts(arguments: Namespace) -> Sequence[EditRequest]:
    """Those of a file, or the one that the words give."""
    from rose_easyedit.cli.facts import named_requests
    from rose_easyedit.requests import as_requests

    values = {name: getattr(arguments, name) for name in _FACT}
    given = [f"--{name}" for name, value in values.items() if value is not None]
    missing = [f"--{name}" for name, value in values.items() if value is None]
    if arguments.requests is not None:
        if given:
            raise RoSEError(f"--requests brings the facts: leave out {', '.join(given)}.")
        return named_requests(arguments.requests)
    if missing:
        raise RoSEError(f"A fact lacks {', '.join(missing)}; or name a file with --requests.")
    prompt, subject, target = (values[name] for name in _FACT)
    return as_requests([{"prompt": prompt, "subject": subject, "target_new": target}])


def _show_changes(
    arguments: Namespace, memory: FactMemory, changes: Sequence[Change], start: float
) -> None:
    report = {
        "memory": arguments.memory,
        "changes": [asdict(change) for change in changes],
        "facts": len(memory.list()),
        "seconds": round(time.perf_counter() - start, 2),
    }
    output.show(report, arguments.json, changes_report)


def changes_report(report: output.Report, console: Any) -> None:
    """What has changed, and how much there is now."""
    if report["changes"]:
        history_report(report, console)
    else:
        output.line(console, "nothing new")
    facts = counted(report["facts"], "fact")
    output.line(console, f"{facts} in {report['memory']}, {report['seconds']:.1f} s")


def history_report(report: output.Report, console: Any) -> None:
    """One row a change."""
    columns = ("time", "action", "subject", "prompt", "old", "new")
    rows = [{**change, "time": _short(change["time"])} for change in report["changes"]]
    _table(console, columns, [[row[name] for name in columns] for row in rows], "nothing yet")


def list_report(report: output.Report, console: Any) -> None:
    """One row a fact, and why some are refused."""
    facts = report["facts"]
    columns = ("subject", "prompt", "target_new", "since", "state")
    rows = [{**fact, "since": _short(fact["since"])} for fact in facts]
    _table(console, columns, [[row[name] for name in columns] for row in rows], "no facts")
    for fact in facts:
        if fact["fault"]:
            request = EditRequest(fact["prompt"], fact["subject"], fact["target_new"])
            output.line(console, f"refused: {request.label}: {fact['fault']}")


def export_report(report: output.Report, console: Any) -> None:
    """Where the edit is, and what is wrong with it."""
    for note in report["log"]:
        output.line(console, f"note: {note}")
    for warning in report["warnings"]:
        output.line(console, f"warning: {warning}")
    output.line(console, f"edit ({output.size(report['bytes'])}) -> {report['out']}")


def _short(time: str) -> str:
    """A time in UTC to the second."""
    return time[:19].replace("T", " ")


def _table(
    console: Any, columns: Sequence[str], rows: Sequence[Sequence[str | None]], none: str
) -> None:
    """The rows, or what is said where there is none."""
    from rich.markup import escape
    from rich.table import Table

    if not rows:
        output.line(console, none)
        return
    table = Table()
    for column in columns:
        whole = column in ("time", "since")  # which is of no use in two lines
        table.add_column("target" if column == "target_new" else column, no_wrap=whole)
    for row in rows:
        table.add_row(*("" if cell is None else escape(shorten(cell)) for cell in row))
    console.print(table)
