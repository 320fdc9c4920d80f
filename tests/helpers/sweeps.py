"""Folders of sweeps as `rose-experiment` leaves them, without a model."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rose_easyedit.evaluation.facts import LocalityPrompt
from rose_easyedit.evaluation.records import OtherRecord, Record
from rose_easyedit.evaluation.result import EvaluationResult, GenericText, LocalityText
from rose_easyedit.experiment.job_list import Job, write_list
from rose_easyedit.experiment.metrics import main_metrics
from rose_easyedit.experiment.status import FAILED, FINISHED, RUNS, Status, to_json
from rose_easyedit.experiment.summary_table import read_rows, write_summary
from rose_easyedit.tracking.layout import DELTA_FILE

CONFIG = """\
hparams:
  model_name: a-model
data:
  source: core
  split: test
"""
CODE, STARTED = "0.1.0+abc", "2026-01-02T03:04:05+00:00"
_PIXEL = (
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\2\0\0\0\x90wS\xde\0\0\0\x0cIDATx\x9cc\xf8"
    b"\xff\xff?\0\5\xfe\2\xfe\r\xefF\xb8\0\0\0\0IEND\xaeB`\x82"
)


def a_result(rate: float, kl: float, *, seed: int = 0, facts: int = 4) -> EvaluationResult:
    """An evaluation in which a given part of the queries succeeds."""
    draw = random.Random(seed)
    records = []
    for number in range(facts):
        for form in ("statement", "question", "instruction"):
            good = draw.random() < rate
            records.append(
                Record(
                    subject=f"Town {number // 2}",
                    relation="country",
                    form=form,
                    query=f"Where is it, said {form} {number}?",
                    target="Peru",
                    before="Norway.",
                    answer=f"It is in {'Peru' if good else 'Norway'}, by job {seed}.",
                    success=good,
                    success_before=False,
                    old_answer=not good,
                    other_target=False,
                    truth="Norway",
                )
            )
    return EvaluationResult(
        records=tuple(records),
        locality=(LocalityPrompt("unrelated", "Two and two is", False),),
        kl=(kl,),
        top1=(draw.random() > kl,),
        texts=(LocalityText(" four", " five", 0.0, 0.0),),
        others=(
            OtherRecord(
                "Town 0", "river", "statement", "Its river is", "Akerselva",
                "Akerselva", "Akerselva", True, True, False,
            ),
        ),
        generic=GenericText((kl / 2, kl / 3), (True, True), 12.0, 10.0),
        edited={f"Town {number // 2}": 2 for number in range(facts)},
    )  # fmt: skip


def write_run(sweep: Path, run: str, words: Sequence[str], result: EvaluationResult) -> Path:
    """A finished run, with its events and a figure."""
    folder = sweep / RUNS / run
    (folder / "figures").mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG)
    (folder / DELTA_FILE).touch()
    (folder / "result.json").write_bytes(to_json(result.as_dict()))
    (folder / "figures" / "radius.png").write_bytes(_PIXEL)
    (folder / "metrics.jsonl").write_text("".join(map(_line, _events(result.kl[0]))))
    Status(
        id=run,
        state=FINISHED,
        overrides=list(words),
        code=CODE,
        started=STARTED,
        seconds={"edit": 1.0, "all": 2.5},
        metrics=main_metrics(result.summary()),
    ).write(folder)
    return folder


def write_failure(sweep: Path, run: str, words: Sequence[str], error: str) -> Path:
    """A run that has failed."""
    folder = sweep / RUNS / run
    folder.mkdir(parents=True)
    Status(run, FAILED, list(words), CODE, STARTED, error=error).write(folder)
    return folder


def end_sweep(sweep: Path, jobs: Sequence[tuple[str, Sequence[str]]]) -> None:
    """Lists the jobs, each with its run or none, and writes the summary of them."""
    listed = [Job(number, run, list(words)) for number, (run, words) in enumerate(jobs)]
    write_list(sweep, listed, "rose-experiment -m a=1,2")
    write_summary(sweep, read_rows(sweep))


def write_sweep(
    sweep: Path, alignments: Sequence[str] = ("isotropic", "covariance"), facts: int = 4
) -> Path:
    """Every alignment with two hierarchies, all finished: runs `r0`, `r1` and on."""
    jobs = []
    pairs = [(one, other) for one in alignments for other in ("hierarchical", "joint")]
    for number, (alignment, hierarchy) in enumerate(pairs):
        words = ["data=core", f"alignment={alignment}", f"hierarchy={hierarchy}"]
        rate, kl = (number + 1) / (len(pairs) + 1), 0.1 * (number + 1)
        write_run(sweep, f"r{number}", words, a_result(rate, kl, seed=number, facts=facts))
        jobs.append((f"r{number}", words))
    end_sweep(sweep, jobs)
    return sweep


def _events(kl: float) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = [{"event": "config", "config": {}}]
    for level, steps in (("fact", 5), ("subject", 9)):
        for step in range(steps):
            values = {f"{level}/loss": 8 * math.exp(-kl * step), f"{level}/norm": step / steps}
            events.append({"event": "log", "axis": f"{level}/step", "step": step, "values": values})
    return [*events, {"event": "finish", "failed": False}]


def _line(event: dict[str, Any]) -> str:
    return json.dumps(event) + "\n"
