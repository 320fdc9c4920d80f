"""An evaluation as one page that needs nothing but a browser, with every answer on it."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from rose_easyedit.errors import RoSEError
from rose_easyedit.evaluation.report_tables import (
    harness_table,
    number,
    percent,
    summary_tables,
)
from rose_easyedit.files import write_whole

PAGE, RESULTS = "index.html", "results.json"


@dataclass(frozen=True)
class Part:
    """A piece of an answer; `marked` where it is the target."""

    text: str
    marked: bool


@dataclass(frozen=True)
class Verdict:
    """What a query showed; `tone` is "good", "bad" or neither."""

    name: str
    tone: str = ""


SUCCESS = Verdict("target named", "good")
FAILURE = Verdict("target missed", "bad")
OLD_ANSWER = Verdict("old answer", "bad")
INTERFERENCE = Verdict("another fact's target", "bad")
KEPT, LOST = Verdict("true answer kept", "good"), Verdict("true answer lost", "bad")
UNKNOWN_BEFORE = Verdict("not known before")
SAME, CHANGED = Verdict("same answer", "good"), Verdict("answer changed", "bad")


@dataclass(frozen=True)
class Answer:
    """One row of the page's list."""

    subject: str
    relation: str
    form: str
    query: str
    target: str
    before: Sequence[Part]
    after: Sequence[Part]
    verdicts: Sequence[Verdict]


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
    from jinja2 import Environment, StrictUndefined

    source = (resources.files("rose_easyedit.evaluation") / "report.html").read_text("utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    tables = summary_tables(report["summary"])
    if report.get("lm_eval"):
        tables.append(harness_table(report["lm_eval"]))
    answers = _answers(report)
    return environment.from_string(source).render(
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


def parts_of(answer: str, names: Sequence[str]) -> list[Part]:
    """The answer in pieces, those marked that are one of the names as a whole word."""
    text = unicodedata.normalize("NFKC", answer).strip()
    wanted = [unicodedata.normalize("NFKC", name).strip() for name in names]
    # the longest first, so that "North Korea" is not marked as "Korea"
    words = "|".join(re.escape(name) for name in sorted(wanted, key=len, reverse=True) if name)
    if not words:
        return [Part(text, False)] if text else []
    pieces = re.split(rf"((?<!\w)(?:{words})(?!\w))", text, flags=re.IGNORECASE)
    return [Part(piece, number % 2 == 1) for number, piece in enumerate(pieces) if piece]


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


def _answers(report: Mapping[str, Any]) -> list[Answer]:
    return [
        *(_of_record(record) for record in report["records"]),
        *(_of_other(record) for record in report["others"]),
        *(_of_prompt(prompt) for prompt in report["locality"] if "answer" in prompt),
    ]


def _of_record(record: Mapping[str, Any]) -> Answer:
    names = [record["target"], *record["aliases"]]
    verdicts = [SUCCESS if record["success"] else FAILURE]
    if record["old_answer"]:
        verdicts.append(OLD_ANSWER)
    if record["other_target"]:
        verdicts.append(INTERFERENCE)
    return Answer(
        subject=record["subject"],
        relation=record["relation"],
        form=record["form"],
        query=record["query"],
        target=record["target"],
        before=parts_of(record["before"], names),
        after=parts_of(record["answer"], names),
        verdicts=verdicts,
    )


def _of_other(record: Mapping[str, Any]) -> Answer:
    verdicts = [KEPT if record["kept"] else LOST] if record["known"] else [UNKNOWN_BEFORE]
    if record["edited_target"]:
        verdicts.append(INTERFERENCE)
    return Answer(
        subject=record["subject"],
        relation=record["relation"],
        form="other fact",
        query=record["query"],
        target=f"not edited: {record['truth']}",
        before=parts_of(record["before"], [record["truth"]]),
        after=parts_of(record["answer"], [record["truth"]]),
        verdicts=verdicts,
    )


def _of_prompt(prompt: Mapping[str, Any]) -> Answer:
    return Answer(
        subject="",
        relation="",
        form=prompt["kind"],
        query=prompt["text"],
        target="not edited",
        before=parts_of(prompt["before"], []),
        after=parts_of(prompt["answer"], []),
        verdicts=[SAME if prompt["before"] == prompt["answer"] else CHANGED],
    )
