"""What a sweep's folder holds, read for its report; what is damaged is named and left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from rose_easyedit.errors import RoSEError, shown
from rose_easyedit.evaluation.facts import SUBJECT
from rose_easyedit.evaluation.report_answers import Answer, answers_of
from rose_easyedit.experiment.job_list import listed_command
from rose_easyedit.experiment.json_records import from_json
from rose_easyedit.experiment.report_geometry import RunGeometry
from rose_easyedit.experiment.report_points import Curves, read_curves
from rose_easyedit.experiment.status import (
    FINISHED,
    RUNS,
    STATUS_FILE,
    Status,
    read_status,
)
from rose_easyedit.experiment.summary_table import (
    NOT_STARTED,
    SUMMARY_JSON,
    RunRow,
    as_it_stands,
    read_rows,
)
from rose_easyedit.files.amounts import counted
from rose_easyedit.files.plain import is_number
from rose_easyedit.files.reading import inside, read_json, read_yaml
from rose_easyedit.tracking.layout import CONFIG_FILE, DIAGNOSIS_FILE, FIGURES, RESULT_FILE

DAMAGED = "damaged"
_T = TypeVar("_T")
# Main metrics that are of a kind of prompts, and their intervals.
_OF_LOCALITY = {
    "top1": ("all", "interval"),
    "neighbours_top1": ("neighbour", "interval"),
    "subject_words": (SUBJECT, "words_interval"),
}
# What goes wrong when a file is cut short, or is another than it should be; a `RoSEError` and the
# errors of JSON and YAML files are among them.
_FAULTS = (OSError, ValueError, LookupError, TypeError, AttributeError)


@dataclass(frozen=True)
class Evaluation:
    """What `result.json` says.

    Attributes:
        counts: facts, subjects and queries.
        intervals: main metric to the 95% interval of it, of those that have one.
        answers: all of them.
    """

    counts: tuple[int, int, int]
    intervals: Mapping[str, tuple[float, float]]
    answers: Sequence[Answer]


@dataclass(frozen=True)
class RunFiles:
    """A run's folder; what it has not, or what cannot be read, is empty."""

    status: Status | None = None
    setting: str = ""
    evaluation: Evaluation | None = None
    curves: Curves = field(default_factory=dict)
    figures: Mapping[str, Path] = field(default_factory=dict)
    geometry: RunGeometry | None = None
    faults: Sequence[str] = ()


@dataclass(frozen=True)
class Sweep:
    """A sweep.

    Attributes:
        name: of its folder.
        rows: its jobs, their metrics finite numbers only.
        runs: by id; several jobs may share one.
        figures: its own.
        notes: what a reader should know of the folder.
        command: goes on with the jobs that are left; empty if it is not known.
    """

    name: str
    rows: Sequence[RunRow]
    runs: Mapping[str, RunFiles]
    figures: Mapping[str, Path]
    notes: Sequence[str]
    command: str = ""

    def run(self, row: RunRow) -> RunFiles:
        """The files of a job; none if it never began."""
        return self.runs.get(row.run, RunFiles())

    @property
    def done(self) -> list[RunRow]:
        """The jobs that have finished and say what came of it."""
        return [row for row in self.rows if row.done and row.metrics]


def read_sweep(folder: Path) -> Sweep:
    """Reads the folder of a sweep; it may be at work still.

    Raises:
        RoSEError: it is no sweep.
    """
    if not folder.is_dir():
        raise RoSEError(f"There is no folder {str(folder)!r}; name one that rose-experiment wrote.")
    rows, notes = _read_rows(folder)
    if not rows:
        alone = (folder / STATUS_FILE).is_file()
        raise RoSEError.of(
            f"{str(folder)!r} is {'a single run' if alone else 'no sweep'}: no job is listed in "
            f"it. Name the folder with {RUNS}/ in it, which rose-experiment tells at its end.",
            notes,
        )
    ids = dict.fromkeys(row.run for row in rows if row.run)
    begun = [run for run in ids if _has_begun(folder, run, rows)]
    runs = {run: _read_run(inside(folder, folder / RUNS / run)) for run in begun}
    others = {path.parent.name for path in folder.glob(f"{RUNS}/*/{STATUS_FILE}")} - ids.keys()
    if others:
        notes.append(
            f"{counted(len(others), 'more run')} in {RUNS}/ of earlier commands "
            f"{'is' if len(others) == 1 else 'are'} not on this page: the jobs here are those of "
            "the folder's last command."
        )
    rows = [_checked(row, runs.get(row.run)) for row in rows]
    figures = _attempt(notes, "The figures of the sweep", lambda: _figures(folder)) or {}
    command = _attempt(notes, "The sweep's own command", lambda: listed_command(folder)) or ""
    return Sweep(folder.resolve().name, rows, runs, figures, notes, command)


def _has_begun(folder: Path, run: str, rows: Sequence[RunRow]) -> bool:
    """Whether there is a run to read; the list names all of them before the first begins."""
    known = [row for row in rows if row.run == run and row.state != NOT_STARTED]
    return bool(known) or (folder / RUNS / run).exists()


def _read_rows(folder: Path) -> tuple[list[RunRow], list[str]]:
    """The jobs of the last command; of a search that is repeated, also those to come."""
    notes: list[str] = []
    listed = _attempt(notes, "The list of jobs", lambda: read_rows(folder)) or []
    if not (folder / SUMMARY_JSON).is_file():
        return listed, notes
    summary = _attempt(notes, SUMMARY_JSON, lambda: _summary(folder)) or []
    same = {(row.number, row.run) for row in listed} <= {(row.number, row.run) for row in summary}
    return (summary if same and summary else listed), notes


def _summary(folder: Path) -> list[RunRow]:
    """The rows of `summary.json`, with what their runs say by now."""
    rows = read_json(inside(folder, folder / SUMMARY_JSON))["jobs"]
    return [as_it_stands(folder, from_json(RunRow, row)) for row in rows]


def _checked(row: RunRow, run: RunFiles | None) -> RunRow:
    """The row without what is no finite number, and `damaged` if its run says nothing."""
    metrics = {name: value for name, value in row.metrics.items() if is_number(value)}
    lost = run is not None and run.status is None
    seconds = row.seconds if is_number(row.seconds) else None
    state = DAMAGED if lost else row.state
    return replace(row, state=state, metrics={} if lost else metrics, seconds=seconds)


def _read_run(folder: Path) -> RunFiles:
    status = read_status(folder)
    if status is None:
        return RunFiles(faults=[f"{STATUS_FILE} is missing or damaged"])
    if status.state != FINISHED:
        return RunFiles(status)
    faults: list[str] = []
    evaluation = _attempt(faults, RESULT_FILE, lambda: _evaluation(folder))
    curves = _attempt(faults, "its curves", lambda: read_curves(folder, status.has_edit))
    setting = _attempt(faults, CONFIG_FILE, lambda: _setting(folder))
    figures = _attempt(faults, "its figures", lambda: _figures(folder))
    geometry = _attempt(faults, DIAGNOSIS_FILE, lambda: RunGeometry.read(folder))
    return RunFiles(
        status, setting or "", evaluation, curves or {}, figures or {}, geometry, faults
    )


def _attempt(faults: list[str], what: str, read: Callable[[], _T]) -> _T | None:
    """What is read; or None, and why it cannot be."""
    try:
        return read()
    except _FAULTS as error:
        faults.append(f"{what} cannot be read ({_in_words(error)})")
        return None


def _in_words(error: Exception) -> str:
    """Why a file cannot be read, for people; what Python says of a type is of no use to them."""
    if isinstance(error, RoSEError):
        return " ".join(str(error).split())
    if isinstance(error, OSError):
        return error.strerror or "the system cannot read it"
    if isinstance(error, KeyError):
        return f"it lacks {shown(error.args[0])}"
    if isinstance(error, ValueError):
        return "it is cut short, or no such file as rose-experiment writes"
    return "it holds something else than rose-experiment writes"


def _evaluation(folder: Path) -> Evaluation:
    result = read_json(inside(folder, folder / RESULT_FILE))
    summary = result["summary"]
    others, locality = summary["r_specificity"], summary["locality"]
    found = {form: of["faithful_interval"] for form, of in summary["forms"].items()}
    found["specificity"] = others and others["interval"]
    for metric, (kind, name) in _OF_LOCALITY.items():
        found[metric] = locality[kind][name] if kind in locality else None
    # of one subject there is none
    intervals = {name: _pair(of) for name, of in found.items() if of}
    counts = (int(summary["facts"]), int(summary["subjects"]), len(result["records"]))
    return Evaluation(counts, intervals, answers_of(result))


def _pair(interval: Sequence[float]) -> tuple[float, float]:
    low, high = interval
    return float(low), float(high)


def _setting(folder: Path) -> str:
    """The model and the facts, in words."""
    config = read_yaml(inside(folder, folder / CONFIG_FILE))
    model, data = config["hparams"]["model_name"], config["data"]
    split = f" ({data['split']})" if data["split"] else ""
    return f"{model}, facts of {data['source']}{split}"


def _figures(folder: Path) -> dict[str, Path]:
    """Name to file; of a figure in several forms, the smallest.

    Raises:
        RoSEError: one lies elsewhere.
    """
    found = inside(folder, folder / FIGURES).glob("*")
    pictures = [inside(folder, path) for path in found if path.suffix in (".png", ".svg")]
    files = [path for path in pictures if path.is_file()]
    by_size = sorted(files, key=lambda path: path.stat().st_size, reverse=True)
    return dict(sorted((path.stem, path) for path in by_size))
