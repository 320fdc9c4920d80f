"""The demonstration: one set of facts, written by MEMIT-Merge and by RoSE, side by side."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from rose_easyedit.cli.demo_page import render_demo
from rose_easyedit.cli.demo_tables import (
    PLAIN_WIDTH,
    Outcome,
    answers_text,
    kept_text,
    shares,
    totals_table,
)
from rose_easyedit.cli.hints import Parser
from rose_easyedit.cli.places import new_file, new_folder
from rose_easyedit.cli.settings import settings_of
from rose_easyedit.cli.words import EXIT_CODES
from rose_easyedit.config.hparams import RoSEHyperParams
from rose_easyedit.config.paths import cache_dir
from rose_easyedit.evaluation.evaluate import (
    Baseline,
    EvaluationSettings,
    evaluate_edit,
)
from rose_easyedit.evaluation.facts import Fact, load_facts
from rose_easyedit.evaluation.locality import default_locality
from rose_easyedit.figures.before_after import write_before_after
from rose_easyedit.figures.canvas import require_matplotlib
from rose_easyedit.files.writing import write_whole
from rose_easyedit.method.edit import compute_edit
from rose_easyedit.models.loading import EMBEDDED, load_model

METHODS = {"memit-merge": "MEMIT-Merge", "rose": "RoSE"}
DESCRIPTION = """\
Write counterfactual facts into SmolLM2-135M-Instruct with MEMIT-Merge and with RoSE, and show what
it answers before and after.

Examples:
  rose-edit demo
  rose-edit demo --all-facts --out demo.html
  rose-edit demo --json > demo.json
"""
INTRODUCTION = """\
{facts} counterfactual facts about {subjects} subjects are written into {model},
once with the settings of MEMIT-Merge and once with those of RoSE. Only the statements are edited;
paraphrases, questions and instructions are never shown to the edit. An answer is faithful if it
names the target and is still about the subject. The totals are over all facts.
"""
# These facts about these subjects are written, and their other facts asked beside them.
_SUBJECTS = ("Germany", "Japan", "Canada", "Moscow")
_RELATIONS = ("capital", "currency", "city country", "city currency")
_NEW_TOKENS = 16
_EVERY_SO_MANY = 3  # of the prompts that no edit should change

Stage = Callable[[str], Any]


def run_demo(
    model: Any,
    tokenizer: Any,
    facts: Sequence[Fact],
    others: Sequence[Fact],
    methods: Sequence[tuple[str, RoSEHyperParams]],
    settings: EvaluationSettings | None = None,
    stage: Stage | None = None,
) -> list[Outcome]:
    """Edit the facts once per method, and ask before and after.

    Args:
        model: The unedited model; it is unedited again when this returns.
        tokenizer: Its tokenizer.
        facts: The facts to write.
        others: Facts about the same subjects that are not written, and should stay.
        methods: A name and the settings of each method.
        settings: How the models are asked.
        stage: A context around each part of the work, which is given its name.
    """
    stage = stage or nullcontext
    with stage("asking the unedited model"):
        locality = default_locality(facts)[::_EVERY_SO_MANY]
        asked = [*facts, *others]
        baseline = Baseline.of(model, tokenizer, asked, locality=locality, settings=settings)
    requests = [fact.to_request() for fact in facts]
    outcomes = []
    for name, hparams in methods:
        start = time.perf_counter()
        with stage(f"editing with {name}"):
            delta = compute_edit(model, tokenizer, requests, hparams)
        seconds = time.perf_counter() - start
        with stage("asking the edited model"), delta.applied(model):
            result = evaluate_edit(model, tokenizer, facts, baseline=baseline)
        outcomes.append(Outcome(name, result, seconds))
    return outcomes


def main(argv: Sequence[str] | None = None) -> int:
    """`rose-edit demo`: prints totals and a few answers, or with --json everything as data."""
    options = _parser().parse_args(argv)
    page = cache_dir() / "demo.html"
    if options.out is not None:
        page = new_file(options.out, options.force)
    figures = None if options.figures is None else new_folder(options.figures, "--figures")
    if figures is not None:
        require_matplotlib()
    started = time.perf_counter()
    console = Console(emoji=False, highlight=False)
    if not console.is_terminal:
        console = Console(emoji=False, highlight=False, width=PLAIN_WIDTH)
    facts, others = demo_facts(every=options.all_facts)
    hparams = settings_of(options.hparams, options.model)
    methods = [(name, hparams.with_preset(preset)) for preset, name in METHODS.items()]
    shown = options.model
    if options.model == EMBEDDED:
        shown = "SmolLM2-135M-Instruct (out of a 4-bit file)"
    subjects = len({fact.subject for fact in facts})
    introduction = INTRODUCTION.format(facts=len(facts), subjects=subjects, model=shown)
    if not options.json:
        console.print(introduction, markup=False)
    stage = nullcontext if options.json else _told(console)
    asked = EvaluationSettings(max_new_tokens=_NEW_TOKENS, teacher_forcing=False)
    with stage("loading the model"):
        model, tokenizer = load_model(options.model)
    outcomes = run_demo(model, tokenizer, facts, others, methods, asked, stage)
    if figures is not None:
        figures.mkdir(parents=True, exist_ok=True)
        write_before_after(*shares(outcomes), figures)
    seconds = time.perf_counter() - started
    if options.json:
        print(json.dumps(_as_data(outcomes, seconds), ensure_ascii=False, indent=2))
        return 0
    write_whole(page, render_demo(introduction, outcomes).encode())
    _show(console, outcomes, seconds, page)
    return 0


def demo_facts(*, every: bool = False) -> tuple[list[Fact], list[Fact]]:
    """The facts to write, each asked once in each form, and others about the same subjects.

    Args:
        every: Write all facts of all subjects of the demonstration.
    """
    asked = [_asked_once(fact) for fact in load_facts(demo=True)]
    if every:
        return asked, []
    written, others = [], []
    for subject in _SUBJECTS:
        of_subject = [fact for fact in asked if fact.subject == subject]
        written += [fact for fact in of_subject if fact.relation in _RELATIONS]
        others += [
            replace(fact, paraphrases=(), instructions=())
            for fact in of_subject
            if fact.relation not in _RELATIONS
        ]
    return written, others


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="rose-edit demo",
        description=DESCRIPTION,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--model", default=EMBEDDED, metavar="NAME", help="name, folder or hub name"
    )
    parser.add_argument(
        "--hparams", metavar="NAME", help="settings, in place of those that the model has"
    )
    parser.add_argument(
        "--all-facts", action="store_true", help="all 24 facts about 6 subjects (minutes)"
    )
    parser.add_argument("--out", metavar="FILE", help="the page; in the cache if not given")
    parser.add_argument("--force", action="store_true", help="replace that file")
    parser.add_argument(
        "--figures", metavar="FOLDER", help="draw the totals in before_after.png and .svg as well"
    )
    parser.add_argument("--json", action="store_true", help="print all records as JSON")
    return parser


def _asked_once(fact: Fact) -> Fact:
    """The fact with only the first wording of each form."""
    return replace(
        fact,
        paraphrases=fact.paraphrases[:1],
        questions=fact.questions[:1],
        instructions=fact.instructions[:1],
    )


def _show(console: Console, outcomes: Sequence[Outcome], seconds: float, page: Path) -> None:
    console.print(totals_table(outcomes))
    console.print(answers_text(outcomes))
    console.print(kept_text(outcomes))
    console.print(f"{seconds:.0f} seconds. Every answer is on this page:", markup=False)
    console.print(str(page), markup=False, soft_wrap=True)


def _told(console: Console) -> Stage:
    """On a terminal what is being done; elsewhere a line for each part, with its seconds."""

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        start = time.perf_counter()
        if console.is_terminal:
            with console.status(f"{name} ..."):
                yield
            return
        yield
        console.print(f"{name}: {time.perf_counter() - start:.0f} s", markup=False)

    return stage


def _as_data(outcomes: Sequence[Outcome], seconds: float) -> dict[str, Any]:
    methods = {
        outcome.name: {"edit_seconds": outcome.seconds, **outcome.result.as_dict()}
        for outcome in outcomes
    }
    return {"seconds": seconds, "methods": methods}
