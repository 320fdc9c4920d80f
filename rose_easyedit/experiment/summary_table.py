"""The end of a sweep: every job with what it set, what came of it, and how to repeat it."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rose_easyedit.errors import first_line
from rose_easyedit.experiment.job_list import Job, listed_jobs
from rose_easyedit.experiment.keys import short_names
from rose_easyedit.experiment.status import (
    FAILED,
    FINISHED,
    RUNS,
    check_run,
    metrics_of,
    seconds_of,
    state_of,
    to_json,
)
from rose_easyedit.files.amounts import counted, duration
from rose_easyedit.files.reading import inside
from rose_easyedit.files.stdout import printable, printable_message
from rose_easyedit.files.writing import write_whole

SUMMARY_JSON, SUMMARY_CSV = "summary.json", "summary.csv"
NOT_STARTED = "not started"
# Of the main metrics, those that the table has room for, and their titles: the forms are faithful
# success, "named" questions and instructions whose answers name the target, "other facts" of the
# subjects that are still told, "others" the words of the answers to other queries of the subjects
# that come back. What no job has is not shown.
_SHOWN = {
    "statement": "statement",
    "paraphrase": "paraphrase",
    "question": "question",
    "instruction": "instruction",
    "named": "named",
    "specificity": "other facts",
    "subject_words": "others",
    "kl": "KL",
    "top1": "top-1",
}
# Where a terminal is too narrow these go, one after another.
_SPARED = (
    "top1",
    "subject_words",
    "named",
    "paraphrase",
    "statement",
    "specificity",
    "instruction",
    "run",
)
_NO_LIMIT = 10_000
_VALUE_WIDTH = 32  # of what a job sets, as a path


@dataclass(frozen=True)
class RunRow:
    """A job at the end of its sweep.

    Attributes:
        number: of the job, from 0.
        run: its run's id, and the name of its folder in `runs/`.
        state: as `status.Status` has it, or `not started`.
        kept: whether its run was done before.
        swept: what it sets that others set otherwise.
        metrics: the main ones.
        seconds: that its run took, when it was done.
        error: why it failed.
        command: does this job alone.
    """

    number: int
    run: str
    state: str
    kept: bool
    swept: dict[str, str]
    metrics: dict[str, float | None] = field(default_factory=dict)
    seconds: float | None = None
    error: str = ""
    command: str = ""

    @property
    def done(self) -> bool:
        """Whether it has finished, now or before."""
        return self.state == FINISHED


def read_rows(sweep: Path) -> list[RunRow]:
    """The jobs on the sweep's list, with what their runs say by now.

    Raises:
        RoSEError: the list cannot be read.
    """
    jobs = listed_jobs(sweep)
    swept = _swept([_settings(job.overrides) for job in jobs])
    return [_row(sweep, job, values) for job, values in zip(jobs, swept, strict=True)]


def as_it_stands(sweep: Path, row: RunRow) -> RunRow:
    """The row with what its run says by now, if it says anything.

    Raises:
        RoSEError: its run's id is none.
    """
    check_run(row.run)
    status = state_of(inside(sweep, sweep / RUNS / row.run)) if row.run else None
    if status is None:
        return row
    return replace(
        row,
        state=status.state,
        metrics=metrics_of(status),
        seconds=seconds_of(status),
        error=status.error,
    )


def write_summary(sweep: Path, rows: Sequence[RunRow]) -> None:
    """Writes `summary.json` and `summary.csv` into the sweep's folder."""
    write_whole(sweep / SUMMARY_JSON, to_json({"jobs": [asdict(row) for row in rows]}))
    swept = list(dict.fromkeys(key for row in rows for key in row.swept))
    metrics = list(dict.fromkeys(name for row in rows for name in row.metrics))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["number", "run", "state", *swept, *metrics, "seconds", "error"])
    for row in rows:
        cells = [row.number, row.run, row.state, *map(row.swept.get, swept)]
        writer.writerow([*cells, *map(row.metrics.get, metrics), row.seconds, row.error])
    write_whole(sweep / SUMMARY_CSV, text.getvalue().encode())


def print_summary(sweep: Path, rows: Sequence[RunRow]) -> None:
    """Prints the table, and the command that repeats each job that has not finished."""
    from rich.console import Console

    console = Console(emoji=False)
    if not console.is_terminal:
        console = Console(emoji=False, width=_NO_LIMIT)
    told = {name for row in rows for name, value in row.metrics.items() if value is not None}
    titles = {name: title for name, title in _SHOWN.items() if name in told}
    shown = {"run": "run", **titles}
    table, left_out = _table(rows, shown), list[str]()
    for name in filter(shown.__contains__, _SPARED):
        wanted = console.measure(table, options=console.options.update(width=_NO_LIMIT)).maximum
        if wanted < console.width:
            break
        left_out.append(shown.pop(name))
        table = _table(rows, shown)
    console.print(table)
    if left_out:
        print(f"{', '.join(left_out)}: in {sweep / SUMMARY_CSV}, for want of room here")
    lines = []
    for row in rows:
        if not row.done:
            why = f": {first_line(row.error)}" if row.error else ""
            lines += [f"job {row.number} {row.state}{why}", f"  {row.command}"]
    done = sum(row.done for row in rows)
    lines.append(f"{done} of {counted(len(rows), 'job')} finished -> {sweep}")
    for line in lines:
        console.print(printable_message(line), markup=False, highlight=False, soft_wrap=True)


def _table(rows: Sequence[RunRow], shown: Mapping[str, str]) -> Any:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    swept = list(dict.fromkeys(key for row in rows for key in row.swept))

    def state(row: RunRow) -> str:
        return f"{row.state} before" if row.kept else row.state

    table = Table(box=box.SIMPLE_HEAD)
    runs = [name for name in shown if name == "run"]
    metrics = [name for name in shown if name != "run"]
    for title in ("job", *runs, "state"):
        table.add_column(title, no_wrap=True)
    for title in short_names(swept).values():
        table.add_column(escape(printable(title)), overflow="fold", max_width=_VALUE_WIDTH)
    for title in (*map(shown.__getitem__, metrics), "time"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            str(row.number),
            *(escape(printable(row.run)) for _ in runs),
            escape(printable(state(row))),
            *(escape(printable(row.swept.get(key, ""))) for key in swept),
            *(_number(row.metrics.get(name), 2 if name != "kl" else 3) for name in metrics),
            "" if row.seconds is None else duration(row.seconds),
        )
    return table


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _row(sweep: Path, job: Job, swept: dict[str, str]) -> RunRow:
    row = RunRow(job.number, job.run, NOT_STARTED, job.kept, swept, command=_command(job))
    if job.error:
        return replace(row, state=FAILED, error=job.error)
    return as_it_stands(sweep, row)


def _settings(words: Sequence[str]) -> dict[str, str]:
    """Key to value of the words of a job."""
    return {key: value for key, _, value in (word.partition("=") for word in words)}


def _swept(settings: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    keys = dict.fromkeys(key for of in settings for key in of)
    differing = [key for key in keys if len({of.get(key) for of in settings}) > 1]
    return [{key: of[key] for key in differing if key in of} for of in settings]


def _command(job: Job) -> str:
    """One job by itself, in this process, whatever launcher and sweeper the sweep had."""
    keys = ("launcher", "sweeper")
    chosen = [word for word in job.overrides if word.partition("=")[0] not in keys]
    # an experiment may say of itself that it is a sweep
    mode = ["hydra.mode=RUN"] if any(word.startswith("experiment=") for word in chosen) else []
    return shlex.join(["rose-experiment", *job.options, *chosen, *mode])
