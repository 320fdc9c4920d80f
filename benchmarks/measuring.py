"""What the scripts that compare methods share: the facts, the unedited model's answers, the lines.

All of them ask the same facts in the same way, and append one JSON line per setting to a file.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import torch

from rose_easyedit.evaluation.datasets import (
    load_dataset,
    neighbour_prompts,
    same_subject_view,
    with_wrapped_forms,
)
from rose_easyedit.evaluation.evaluate import (
    Baseline,
    EvaluationSettings,
    evaluate_edit,
)
from rose_easyedit.evaluation.facts import CORE, SETS, Fact, load_facts
from rose_easyedit.evaluation.locality import default_locality
from rose_easyedit.evaluation.native import bundled_native_rates
from rose_easyedit.requests import EditRequest


@dataclass(frozen=True)
class Bench:
    """What every method is given: an unedited model, facts to write, and how it answered before."""

    model: Any
    tokenizer: Any
    facts: Sequence[Fact]
    before: Baseline

    @property
    def requests(self) -> list[EditRequest]:
        return [fact.to_request() for fact in self.facts]

    def write_line(
        self, out: TextIO, model: Any, method: str, setting: dict[str, Any], seconds: float
    ) -> None:
        """Asks an edited model, and appends what it answers to a file.

        Args:
            out: the file.
            model: edited.
            method: its name in the table.
            setting: what tells this line from others of the method.
            seconds: CPU seconds that the edit took.
        """
        result = evaluate_edit(model, self.tokenizer, self.facts, baseline=self.before)
        line = {
            "method": method,
            "setting": setting,
            "cpu_seconds": seconds,
            "cpu_seconds_per_fact": seconds / len(self.facts),
            "threads": torch.get_num_threads(),
            **result.summary(),
        }
        out.write(json.dumps(line) + "\n")
        out.flush()


def add_options(parser: argparse.ArgumentParser, out: str) -> None:
    """The options that all the scripts have; `out` is where lines go by default."""
    parser.add_argument("--split", choices=("validation", "test"), default="validation")
    parser.add_argument("--set", choices=list(SETS), default=CORE, help="the bundled set")
    parser.add_argument("--data", type=Path, help="a data file in place of a bundled set")
    parser.add_argument(
        "--at-least", type=int, default=3, help="with --data: subjects with so many facts"
    )
    parser.add_argument("--model", default="embedded", help="name, folder or hub name")
    parser.add_argument("--hparams", default="smollm2-135m", help="the model's settings")
    parser.add_argument("--autocast", action="store_true", help="ask in bfloat16, twice as fast")
    parser.add_argument("--out", type=Path, default=Path(out))


def prepare(options: argparse.Namespace, facts: Sequence[Fact] | None = None) -> Bench:
    """Loads the model and, unless they are given, the facts; and asks the unedited model."""
    from rose_easyedit.models.loading import load_model

    model, tokenizer = load_model(options.model)
    facts = _facts(options) if facts is None else facts
    settings = EvaluationSettings(autocast="bfloat16" if options.autocast else None)
    locality = [*neighbour_prompts(facts), *default_locality(facts, options.set)]
    native = bundled_native_rates(model, options.set) if options.data is None else None
    before = Baseline.of(
        model, tokenizer, facts, locality=locality, settings=settings, native=native
    )
    return Bench(model, tokenizer, facts, before)


def _facts(options: argparse.Namespace) -> Sequence[Fact]:
    """The facts of a bundled split, or of a file's subjects with several facts."""
    if options.data is None:
        return load_facts(options.split, name=options.set)
    facts = load_dataset(options.data, skip_bad=True).facts
    return with_wrapped_forms(same_subject_view(facts, at_least=options.at_least))
