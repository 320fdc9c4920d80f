"""An evaluation as one page that needs nothing but a browser, with every answer on it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rose_easyedit.errors import RoSEError
from rose_easyedit.evaluation.report_answers import answers_of
from rose_easyedit.evaluation.report_front import front_of
from rose_easyedit.evaluation.report_tables import harness_table, summary_tables
from rose_easyedit.files.amounts import counted
from rose_easyedit.files.writing import write_whole
from rose_easyedit.pages.render import render_page

PAGE, RESULTS = "index.html", "results.json"


def write_report(folder: Path, report: Mapping[str, Any]) -> Path:
    """Writes `index.html` and `results.json`, each whole or not at all, over earlier ones.

    Args:
        folder: Where they go; it is made.
        report: `EvaluationResult.as_dict()`, with "title", "model" and "notes" (texts), and
            "lm_eval" if the harness ran.

    Returns:
        The page.

    Raises:
        RoSEError: If `folder` is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise RoSEError(f"{str(folder)!r} is a file; name a folder for the report.")
    results = json.dumps(report, ensure_ascii=False, indent=1, allow_nan=False)
    write_whole(folder / RESULTS, results.encode())
    return write_whole(folder / PAGE, render_report(report).encode())


def render_report(report: Mapping[str, Any]) -> str:
    """The page as text; everything in it that came from a model or a user is escaped."""
    _, *tables = summary_tables(report["summary"])  # the first is shown as cards
    if report.get("lm_eval"):
        tables.append(harness_table(report["lm_eval"]))
    answers = answers_of(report)
    return render_page(
        "rose_easyedit.evaluation",
        "report",
        counted=counted,
        title=report["title"],
        model=report["model"],
        notes=report["notes"],
        summary=report["summary"],
        records=report["records"],
        cards=front_of(report["summary"]),
        tables=tables,
        answers=answers,
        forms=list(dict.fromkeys(answer.form for answer in answers)),
        verdicts=list(dict.fromkeys(v.name for answer in answers for v in answer.verdicts)),
        settings=json.dumps(report["settings"], ensure_ascii=False, indent=2),
    )
