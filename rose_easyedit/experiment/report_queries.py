"""Every answer of a sweep as data for the page's script; what jobs share is there once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rose_easyedit.evaluation.report_answers import Answer, TextPart
from rose_easyedit.experiment.report_data import Sweep
from rose_easyedit.experiment.report_settings import label

# A text, or its pieces, of which every second one is marked.
_Pieces = str | list[str]


def query_data(sweep: Sweep) -> dict[str, Any]:
    """All answers as plain data.

    Returns:
        `queries`: subject, relation, form, query, target and the answer before, of each;
        `verdicts`: name and tone; `runs`: id to answers, each the number of its query, the answer
        and the numbers of its verdicts; `jobs`: number, label and run of those that have answers.
    """
    queries: dict[tuple[Any, ...], int] = {}
    verdicts: dict[tuple[str, str], int] = {}
    runs: dict[str, list[Any]] = {}
    for run, files in sweep.runs.items():
        if files.evaluation and files.evaluation.answers:
            runs[run] = [
                [
                    queries.setdefault(_query(answer), len(queries)),
                    _pieces(answer.after),
                    [
                        verdicts.setdefault((verdict.name, verdict.tone), len(verdicts))
                        for verdict in answer.verdicts
                    ],
                ]
                for answer in files.evaluation.answers
            ]
    return {
        "queries": [[*query[:-1], _pieces(query[-1])] for query in queries],
        "verdicts": list(verdicts),
        "runs": runs,
        "jobs": [[row.number, label(row), row.run] for row in sweep.rows if row.run in runs],
    }


def _query(answer: Answer) -> tuple[Any, ...]:
    before = tuple(answer.before)
    return answer.subject, answer.relation, answer.form, answer.query, answer.target, before


def _pieces(parts: Sequence[TextPart]) -> _Pieces:
    pieces: list[str] = []
    for part in parts:
        if part.marked != (len(pieces) % 2 == 1):
            pieces.append("")
        pieces.append(part.text)
    return pieces if len(pieces) > 1 else "".join(pieces)
