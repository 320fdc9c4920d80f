"""Success against locality for each method over a sweep of its strength, on the bundled facts.

    python benchmarks/methods.py --split validation --out methods.jsonl

One line per setting: success per form, with intervals over subjects, and the drift of prompts that
no edit should change. The targets of a method (stage 1) are optimised once and shared by the
settings that differ in stage 2 only. Takes hours of one core on the test split.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from rose_easyedit.evaluation.evaluate import Baseline, EvaluationSettings, evaluate_edit
from rose_easyedit.evaluation.facts import load_facts
from rose_easyedit.hparams import RoSEHyperParams
from rose_easyedit.method.edit import solve_edit
from rose_easyedit.method.targets import Targets, compute_targets

COVARIANCE = [{"alignment": {"covariance_weight": w}} for w in (150, 1000, 5000)]
WITH_SUBJECTS = [
    {"alignment": {"covariance_weight": w, "subject_weight": 1.0}} for w in (100, 400, 3000)
]
IDENTITY = [{"alignment": {"strength": s}} for s in (0.1, 0.5, 3.0)]
CONTROL = [{"alignment": {"constraint": "covariance", "covariance_weight": w}} for w in (400, 3000)]
SWEEPS: dict[str, list[dict[str, Any]]] = {
    "memit": COVARIANCE[:2],
    "memit-merge": [*COVARIANCE, *WITH_SUBJECTS],
    "alphaedit": IDENTITY[:2],
    "rose-paper": IDENTITY,
    "rose": [*IDENTITY, *CONTROL, {"alignment": {"subject_weight": 0.0}}],
}


def main() -> None:
    """Runs the sweeps and appends one JSON line per setting."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--split", choices=("validation", "test"), default="validation")
    parser.add_argument("--methods", nargs="+", choices=list(SWEEPS), default=list(SWEEPS))
    parser.add_argument("--model", default="embedded", help="name, folder or hub name")
    parser.add_argument("--hparams", default="smollm2-135m", help="the model's settings")
    parser.add_argument("--autocast", action="store_true", help="ask in bfloat16, as on the README")
    parser.add_argument("--out", type=Path, default=Path("methods.jsonl"))
    options = parser.parse_args()

    from rose_easyedit.models import load_model

    model, tokenizer = load_model(options.model)
    facts = load_facts(options.split)
    settings = EvaluationSettings(autocast=torch.bfloat16 if options.autocast else None)
    baseline = Baseline.of(model, tokenizer, facts, settings=settings)
    requests = [fact.to_request() for fact in facts]
    targets: dict[str, Targets] = {}
    seconds: dict[str, float] = {}
    jobs = [(method, over) for method in options.methods for over in SWEEPS[method]]
    with options.out.open("a", encoding="utf-8") as out:
        for method, over in tqdm(jobs, desc="settings", disable=None):
            hparams = RoSEHyperParams.preset(method, options.hparams).with_overrides(**over)
            if method not in targets:
                start = time.process_time()
                targets[method] = compute_targets(model, tokenizer, requests, hparams)
                seconds[method] = time.process_time() - start
            delta = solve_edit(model, tokenizer, targets[method], hparams)
            with delta.applied(model):
                result = evaluate_edit(model, tokenizer, facts, baseline=baseline)
            line = {"method": method, **over, "cpu_seconds": seconds[method], **result.summary()}
            out.write(json.dumps(line) + "\n")
            out.flush()


if __name__ == "__main__":
    main()
