"""Success against locality for each method over a sweep of its strength, on the bundled facts.

    python benchmarks/methods.py --split validation --out methods.jsonl
    python benchmarks/methods.py --data counterfact-edit.json --at-least 3 --main --out cf.jsonl

One line per setting: faithful success per form, and answers that name the target, with intervals
over subjects, and the drift of prompts that no edit should change. The targets of a method (stage
1) are optimised once and shared by the settings that differ in stage 2 only; CPU seconds are those
of stage 1. Baselines that are no preset of ours are in baselines.py. Takes hours of one core on the
test split.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from measuring import add_options, prepare
from tqdm import tqdm

from rose_easyedit.config.hparams import RoSEHyperParams
from rose_easyedit.method.edit import solve_edit
from rose_easyedit.method.stage1.targets import compute_targets


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


# The target alone is learned in a chat, behind the statement, in place of the whole sentence.
IN_CHATS = {"chat_contexts": 1, "answered_queries": 2, "restatements": 0}
PLAIN = {"restatements": 0, "hierarchy": {"context_batches": 3}}

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
            *identity(0.5, preserved_columns=0),
            *identity(0.5, locality_budget=0.1),
            *identity(0.5, locality_budget=0.05),
        ],
        main=(1, 8, 9, 10),
    ),
    "control: rose with the covariance": Sweep(
        "rose", covariance(150, 400, 1500, 6000), main=(1, 2)
    ),
    "rose, joint": Sweep("rose", identity(0.5), changes={"hierarchy": {"integration": "joint"}}),
    "rose, no smoothing": Sweep(
        "rose", identity(0.5), changes={"hierarchy": {"smoothing_radius": 0.0}}
    ),
    "rose, merged columns": Sweep("rose", identity(0.1, 0.5), changes={"key_columns": "merged"}),
    "rose, nothing kept but the essence": Sweep(
        "rose", identity(0.5), changes={"kept_queries": 0, "kept_tokens": 1}
    ),
    "rose, statements in chats": Sweep("rose", identity(0.5), changes=IN_CHATS),
    "rose, no chat contexts": Sweep("rose", identity(0.5), changes=PLAIN),
}


def main() -> None:
    """Runs the sweeps and appends one JSON line per setting."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser, out="methods.jsonl")
    parser.add_argument("--main", action="store_true", help="one or two strengths per method")
    parser.add_argument("--methods", nargs="+", choices=list(SWEEPS), default=list(SWEEPS))
    options = parser.parse_args()

    bench = prepare(options)
    model, tokenizer = bench.model, bench.tokenizer
    with options.out.open("a", encoding="utf-8") as out:
        for name in tqdm(options.methods, desc="methods", disable=None):
            sweep = SWEEPS[name]
            hparams = RoSEHyperParams.preset(sweep.preset, options.hparams)
            hparams = hparams.with_overrides(**sweep.changes)
            start = time.process_time()
            targets = compute_targets(model, tokenizer, bench.requests, hparams)
            seconds = time.process_time() - start
            chosen = [sweep.strengths[i] for i in sweep.main] if options.main else sweep.strengths
            for strength in chosen:
                delta = solve_edit(
                    model, tokenizer, targets, hparams.with_overrides(alignment=strength)
                )
                with delta.applied(model):
                    bench.write_line(out, model, name, strength, seconds)


if __name__ == "__main__":
    main()
