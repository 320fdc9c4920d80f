"""`rose-report`: a sweep as one page that needs nothing but a browser."""

from __future__ import annotations

import argparse
import sys
from base64 import b64encode
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from rose_easyedit.errors import RoSEError
from rose_easyedit.experiment.keys import short_names
from rose_easyedit.experiment.report_charts import curve_charts, front_chart, number_charts
from rose_easyedit.experiment.report_data import Sweep, read_sweep
from rose_easyedit.experiment.report_heat import heat_charts
from rose_easyedit.experiment.report_metrics import MAIN, metrics_of, success_metric
from rose_easyedit.experiment.report_paper import paper_tables
from rose_easyedit.experiment.report_parallel import parallel_chart
from rose_easyedit.experiment.report_plotly import packed_plotly
from rose_easyedit.experiment.report_queries import query_data
from rose_easyedit.experiment.report_settings import brief, label, looks_of
from rose_easyedit.experiment.status import RUNNING
from rose_easyedit.experiment.summary_table import NOT_STARTED
from rose_easyedit.files.amounts import counted, duration
from rose_easyedit.files.reading import read_bytes
from rose_easyedit.files.stdout import printable, printable_message, reader_may_stop
from rose_easyedit.files.writing import irregular, write_whole
from rose_easyedit.pages.render import render_page

DESCRIPTION = """\
Make one page of a sweep: its jobs, what they set and what came of it, every answer, and all
figures. It needs no network, and can be sent to others as it is.

Examples:
  rose-report outputs/smoke
  rose-report outputs/smoke --out smoke.html
"""
PAGE = "report.html"
DONE, FAILED, WRONG_INPUT = 0, 1, 2
_KINDS = {".png": "image/png", ".svg": "image/svg+xml"}
# What pictures of runs may weigh in all, in bytes: a page of dozens of jobs could not be sent.
_MOST_OF_PICTURES = 6_000_000


def write_sweep_report(folder: Path, out: Path | None = None) -> Path:
    """Writes the page of a sweep, whole or not at all, over an earlier one.

    A sweep may be at work still. Of a run that is damaged the page says what cannot be read, and
    shows the rest.

    Args:
        folder: of the sweep, as `rose-experiment` has written it.
        out: the page; `report.html` in the folder if None.

    Returns:
        The page.

    Raises:
        RoSEError: `folder` is no sweep, or leads elsewhere; `out` is a folder, a link, a device or
            a pipe, or a file of the sweep.
    """
    page = Path(folder) / PAGE if out is None else Path(out)
    if kind := irregular(page):
        raise RoSEError(f"{str(page)!r} is {kind}; name a file for the page.")
    if page.is_file() and _is_of(page, Path(folder)):
        raise RoSEError(f"{str(page)!r} is a file of the sweep; name another one for the page.")
    # a file may hold halves of characters, which a page cannot
    return write_whole(page, render_sweep(read_sweep(Path(folder))).encode(errors="replace"))


def _is_of(page: Path, folder: Path) -> bool:
    """Whether a file belongs to a sweep, and is no page of it."""
    within = page.resolve().is_relative_to(folder.resolve())
    return within and page.suffix.lower() not in (".html", ".htm")


def render_sweep(sweep: Sweep) -> str:
    """The page as text; everything in it that came from a file is escaped."""
    metrics, looks = metrics_of(sweep), looks_of(sweep.done)
    keys = list(dict.fromkeys(key for row in sweep.rows for key in row.swept))
    names = short_names(keys)
    success = success_metric(metrics)
    return render_page(
        "rose_easyedit.experiment",
        "report",
        scripts=("report", "report_plots"),
        title=sweep.name,
        sweep=sweep,
        facts=_facts(sweep),
        keys=names,
        waiting=(NOT_STARTED, RUNNING),
        counted=counted,
        duration=duration,
        label=label,
        brief=brief,
        metrics=metrics,
        main=MAIN,
        chosen=success and success.name,
        plotly=packed_plotly() if sweep.done else "",
        parallel=parallel_chart(sweep, metrics, looks, names) if sweep.done else None,
        heat=heat_charts(sweep, metrics, names),
        front=front_chart(sweep, metrics, looks, names),
        paper=paper_tables(sweep),
        numbers=number_charts(sweep, metrics, looks, names),
        curves=curve_charts(sweep, looks, names),
        figures=_figures(sweep),
        queries=query_data(sweep),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the page of a sweep and prints where it is.

    Args:
        argv: the words after `rose-report`; those of the process if None.

    Returns:
        0 done, 1 the page could not be written, 2 the input was wrong.
    """
    parser = argparse.ArgumentParser(
        prog="rose-report",
        description=DESCRIPTION,
        epilog="Exit codes: 0 done, 1 the page could not be written, 2 the input was wrong.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "folder", metavar="SWEEP_DIR", type=Path, help="where the sweep has written"
    )
    parser.add_argument(
        "--out", metavar="FILE", type=Path, help=f"the page (default: SWEEP_DIR/{PAGE})"
    )
    arguments = parser.parse_args(argv)
    try:
        page = write_sweep_report(arguments.folder, arguments.out)
        with reader_may_stop():
            print(printable(str(page)))
        return DONE
    except (RoSEError, OSError) as error:
        print(f"rose-report: {printable_message(error)}", file=sys.stderr)
        return FAILED if isinstance(error, OSError) else WRONG_INPUT


def _facts(sweep: Sweep) -> dict[str, Any]:
    """What the head of the page says of the sweep."""
    runs = [sweep.run(row) for row in sweep.rows]
    statuses = [run.status for run in runs if run.status is not None]
    evaluations = [run.evaluation for run in runs if run.evaluation is not None]
    seconds = {row.run: row.seconds for row in sweep.rows if row.seconds is not None}
    return {
        "states": Counter(row.state for row in sweep.rows),
        "codes": sorted({status.code for status in statuses if status.code}),
        "started": sorted({status.started for status in statuses if status.started}),
        "seconds": sum(seconds.values()),
        "settings": sorted({run.setting for run in runs if run.setting}),
        "counts": sorted({evaluation.counts for evaluation in evaluations}),
    }


def _figures(sweep: Sweep) -> list[tuple[str, int, list[tuple[str, str]]]]:
    """Name of each figure, how many jobs have it, and those shown: caption and address of each.

    The first jobs' are shown, of each figure as many as there is room for.
    """
    found: dict[str, list[tuple[str, Path]]] = {}
    for name, path in sweep.figures.items():
        found.setdefault(name, []).append(("the sweep", path))
    for row in sweep.rows:
        for name, path in sweep.run(row).figures.items():
            found.setdefault(name, []).append((label(row), path))
    each = _MOST_OF_PICTURES / max(1, len(found))
    return [
        (
            name,
            len(pictures),
            [(caption, _address(path)) for caption, path in _first(pictures, each)],
        )
        for name, pictures in found.items()
    ]


def _first(pictures: Sequence[tuple[str, Path]], most: float) -> Sequence[tuple[str, Path]]:
    """The first pictures that together weigh no more than so many bytes, one at the least."""
    weights = accumulate(path.stat().st_size for _, path in pictures)
    return pictures[: max(1, sum(weight <= most for weight in weights))]


def _address(path: Path) -> str:
    """The picture itself, as an address; a browser runs no script of one."""
    return f"data:{_KINDS[path.suffix]};base64,{b64encode(read_bytes(path)).decode()}"
