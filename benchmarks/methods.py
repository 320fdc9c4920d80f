"""Success against locality for each method over a sweep of its strength, on the bundled facts.

    python benchmarks/methods.py --split validation --out methods.jsonl
    python benchmarks/methods.py --data counterfact-edit.json --at-least 3 --main --out cf.jsonl

One line per setting: success per form, with intervals over subjects, and the drift of prompts that
no edit should change. The targets of a method (stage 1) are optimised once and shared by the
settings that differ in stage 2 only. Takes hours of one core on the test split.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from rose_easyedit.evaluation.datasets import (
    load_dataset,
    neighbour_prompts,
    same_subject_view,
    with_wrapped_forms,
)
from rose_easyedit.evaluation.evaluate import (
    Baseline,
    EvaluationSettings,
    bundled_locality,
    evaluate_edit,
)
from rose_easyedit.evaluation.facts import CORE, SETS, Fact, load_facts
from rose_easyedit.hparams import RoSEHyperParams
from rose_easyedit.method.edit import solve_edit
from rose_easyedit.method.targets import compute_targets


@dataclass(frozen=True)
class Sweep:
    """One curve: a preset whose targets (stage 1) are shared by several constraints (stage 2).

    Attributes:
        preset: of the method.
        strengths: values of `alignment`, one setting each.
        main: which of the strengths stand for the method where one or two must do, by index.
        changes: further settings, the same for all.
    """

    preset: str
    strengths: Sequence[dict[str, Any]]
    main: Sequence[int] = (0,)
    changes: dict[str, Any] = field(default_factory=dict)


def covariance(*weights: float, **others: Any) -> list[dict[str, Any]]:
    return [{"constraint": "covariance", "covariance_weight": w, **others} for w in weights]


def identity(*strengths: float, **others: Any) -> list[dict[str, Any]]:
    return [{"strength": s, **others} for s in strengths]


SWEEPS: dict[str, Sweep] = {
    "memit": Sweep("memit", covariance(50, 150, 500, 1500), main=(1,)),
    "memit-merge": Sweep("memit-merge", covariance(50, 150, 500, 1500, 3000), main=(0, 4)),
    "memit-merge, generic subjects": Sweep(
        "memit-merge", covariance(100, 400, 1500, 3000, subject_weight=1.0), main=(1,)
    ),
    "alphaedit": Sweep("alphaedit", identity(0.03, 0.1, 0.3, 1.0), main=(1,)),
    "rose-paper": Sweep("rose-paper", identity(0.02, 0.1, 0.5, 2.0), main=(1,)),
    "rose": Sweep(
        "rose",
        [
            *identity(0.1, 0.5, 2.0, 6.0),
            *identity(0.5, protected_directions=0),
            *identity(0.5, protected_directions=32),
            *identity(0.5, protected_directions=128),
            *identity(0.5, subject_weight=0.0),
        ],
        main=(1,),
    ),
    "control: rose with the covariance": Sweep(
        "rose", covariance(150, 400, 1500, 6000), main=(1, 2)
    ),
    "rose, joint": Sweep("rose", identity(0.5), changes={"hierarchy": {"integration": "joint"}}),
    "rose, no smoothing": Sweep(
        "rose", identity(0.5), changes={"hierarchy": {"smoothing_radius": 0.0}}
    ),
    "rose, merged columns": Sweep("rose", identity(0.1, 0.5), changes={"key_columns": "merged"}),
    "rose, no chat contexts": Sweep(
        "rose",
        identity(0.5),
        changes={"chat_contexts": 0, "hierarchy": {"context_turns": 3}},
    ),
}


def load(options: argparse.Namespace) -> Sequence[Fact]:
    """The facts of a bundled split, or of a file's subjects with several facts."""
    if options.data is None:
        return load_facts(options.split, name=options.set)
    facts = load_dataset(options.data, skip_bad=True).facts
    return with_wrapped_forms(same_subject_view(facts, at_least=options.at_least))


def main() -> None:
    """Runs the sweeps and appends one JSON line per setting."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--split", choices=("validation", "test"), default="validation")
    parser.add_argument("--set", choices=list(SETS), default=CORE, help="the bundled set")
    parser.add_argument("--data", type=Path, help="a data file in place of a bundled set")
    parser.add_argument(
        "--at-least", type=int, default=3, help="with --data: subjects with so many facts"
    )
    parser.add_argument("--main", action="store_true", help="one or two strengths per method")
    parser.add_argument("--methods", nargs="+", choices=list(SWEEPS), default=list(SWEEPS))
    parser.add_argument("--model", default="embedded", help="name, folder or hub name")
    parser.add_argument("--hparams", default="smollm2-135m", help="the model's settings")
    parser.add_argument("--autocast", action="store_true", help="ask in bfloat16, twice as fast")
    parser.add_argument("--out", type=Path, default=Path("methods.jsonl"))
    options = parser.parse_args()

    from rose_easyedit.models import load_model

    model, tokenizer = load_model(options.model)
    facts = load(options)
    settings = EvaluationSettings(autocast=torch.bfloat16 if options.autocast else None)
    locality = [*neighbour_prompts(facts), *bundled_locality(facts, options.set)]
    baseline = Baseline.of(model, tokenizer, facts, locality=locality, settings=settings)
    requests = [fact.to_request() for fact in facts]
    with options.out.open("a", encoding="utf-8") as out:
        for name in tqdm(options.methods, desc="methods", disable=None):
            sweep = SWEEPS[name]
            hparams = RoSEHyperParams.preset(sweep.preset, options.hparams)
            hparams = hparams.with_overrides(**sweep.changes)
            start = time.process_time()
            targets = compute_targets(model, tokenizer, requests, hparams)
            seconds = time.process_time() - start
            chosen = [sweep.strengths[i] for i in sweep.main] if options.main else sweep.strengths
            for strength in chosen:
                delta = solve_edit(
                    model, tokenizer, targets, hparams.with_overrides(alignment=strength)
                )
                with delta.applied(model):
                    result = evaluate_edit(model, tokenizer, facts, baseline=baseline)
                line = {
                    "method": name,
                    "alignment": strength,
                    "cpu_seconds": seconds,
                    **result.summary(),
                }
                out.write(json.dumps(line) + "\n")
                out.flush()


if __name__ == "__main__":
    main()
