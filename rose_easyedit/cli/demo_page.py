"""The page of the demonstration: every answer, before the edits and after each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rose_easyedit.cli.demo_tables import Outcome
from rose_easyedit.evaluation.report_answers import answers_of
from rose_easyedit.evaluation.report_front import front_of
from rose_easyedit.pages.render import render_page


def render_demo(introduction: str, outcomes: Sequence[Outcome]) -> str:
    """The page as text; everything in it that came from a model is escaped.

    Args:
        introduction: What was done.
        outcomes: Of each method, about the same queries in the same order.
    """
    answers = [answers_of(outcome.result.as_dict()) for outcome in outcomes]
    return render_page(
        "rose_easyedit.cli",
        "demo",
        title="The same facts, written twice",
        introduction=introduction,
        names=[outcome.name for outcome in outcomes],
        fronts=_fronts(outcomes),
        rows=list(zip(*answers, strict=True)),
    )


def _fronts(outcomes: Sequence[Outcome]) -> list[tuple[str, list[Any]]]:
    """The first numbers of each method, side by side; what only some have is left out."""
    fronts = [{f.name: f for f in front_of(outcome.result.summary())} for outcome in outcomes]
    names = [name for name in fronts[0] if all(name in front for front in fronts)]
    return [(name, [front[name] for front in fronts]) for name in names]
