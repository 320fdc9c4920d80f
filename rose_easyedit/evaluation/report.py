"""An evaluation as one page that needs nothing but a browser, with every answer on it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rose_easyedit.errors import RoSEError
from rose_easyedit.evaluation.report_answers import answers_of
from rose_easyedit.evaluation.report_tables import (
    harness_table,
    number,
    percent,
    summary_tables,
)
from rose_easyedit.files import write_whole
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
    tables = summary_tables(report["summary"])
    if report.get("lm_eval"):
        tables.append(harness_table(report["lm_eval"]))
    answers = answers_of(report)
    return render_page(
        "rose_easyedit.evaluation",
        "report",
        title=report["title"],
        model=report["model"],
        notes=report["notes"],
        summary=report["summary"],
        records=report["records"],
        cards=_cards(report["summary"]),
        tables=tables,
        answers=answers,
        forms=list(dict.fromkeys(answer.form for answer in answers)),
        verdicts=list(dict.fromkeys(v.name for answer in answers for v in answer.verdicts)),
        settings=json.dumps(report["settings"], ensure_ascii=False, indent=2),
    )


def _cards(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    headline, locality = summary["headline"], summary["locality"]["all"]
    fluency, kept = summary["fluency"], summary["r_specificity"]
    interval = headline["interval"]
    cards = [
        {
            "name": "success, all forms",
            "value": percent(headline["success"]),
            "more": f"{percent(interval[0])} to {percent(interval[1])}" if interval else "",
        }
    ]
    if headline["normalised"] is not None:
        cards.append(
            {
                "name": "normalised",
                "value": percent(headline["normalised"]),
                "more": "of what the model can be asked",
            }
        )
    if locality["prompts"]:
        cards.append(
            {
                "name": "other prompts: same next token",
                "value": percent(locality["top1"]),
                "more": f"KL {number(locality['kl'])}",
            }
        )
    if kept is not None:
        cards.append(
            {
                "name": "other facts of the subjects kept",
                "value": percent(kept["kept"]),
                "more": f"of {kept['known']} true answers",
            }
        )
    cards.append(
        {
            "name": "perplexity of generic text",
            "value": number(fluency["perplexity"], 1),
            "more": f"{number(fluency['perplexity_before'], 1)} before",
        }
    )
    return cards
