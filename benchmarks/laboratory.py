"""The paper's claims, one by one, in the laboratory, where every form of a native fact is answered.

    python benchmarks/laboratory.py --out laboratory.jsonl

For 1 to 8 facts about each of 48 people, edited twelve at a time: what each method's edit answers,
how far its queries land from their targets (D), what the targets tolerate (R), and how the facts
conflict. About an hour of one core.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from methods import IN_CHATS, PLAIN, Sweep, covariance, identity
from tqdm import tqdm

from rose_easyedit.evaluation.evaluate import (
    Baseline,
    EvaluationResult,
    EvaluationSettings,
    evaluate_edit,
)
from rose_easyedit.evaluation.laboratory import Laboratory, load_laboratory
from rose_easyedit.geometry.diagnosis import Diagnosis, diagnose
from rose_easyedit.geometry.settings import DiagnosisSettings
from rose_easyedit.method.edit import solve_edit
from rose_easyedit.method.stage1.targets import compute_targets

AT_ONCE = 12
ASKING = EvaluationSettings(max_new_tokens=6, batch_size=256, teacher_forcing=False)
MEASURING = DiagnosisSettings(
    directions=8, landscape_directions=1, landscape_points=1, max_new_tokens=6
)
ROSE = identity(0.5, protected_directions=128)

SWEEPS: dict[str, Sweep] = {
    "memit": Sweep("memit", covariance(1, 100, 1000)),
    "memit-merge": Sweep("memit-merge", covariance(1, 100, 1000, 4000)),
    "rose-paper": Sweep("rose-paper", identity(0.1, 1.0, 10.0)),
    "rose": Sweep(
        "rose",
        [
            *ROSE,
            *identity(5.0, 20.0, protected_directions=128),
            *identity(0.5, protected_directions=256),
            *identity(0.5, 5.0, protected_directions=0),
            *identity(0.5, 5.0, protected_directions=32),
            *covariance(1, 100, 1000, 4000),
        ],
    ),
    "rose, joint": Sweep("rose", ROSE, changes={"hierarchy": {"integration": "joint"}}),
    "rose, no smoothing": Sweep("rose", ROSE, changes={"hierarchy": {"smoothing_radius": 0.0}}),
    "rose, joint, no smoothing": Sweep(
        "rose", ROSE, changes={"hierarchy": {"integration": "joint", "smoothing_radius": 0.0}}
    ),
    "rose, nothing kept but the essence": Sweep(
        "rose", ROSE, changes={"kept_queries": 0, "kept_tokens": 1}
    ),
    "rose, statements in chats": Sweep("rose", [*ROSE, *covariance(4000)], changes=IN_CHATS),
    "rose, no chat contexts": Sweep("rose", ROSE, changes=PLAIN),
}


def run(laboratory: Laboratory, facts_per_subject: int, subjects: int, out: Any) -> None:
    """All methods on one set of facts, a line per setting."""
    model, tokenizer = laboratory.model, laboratory.tokenizer
    facts = laboratory.facts(subjects, facts_per_subject)
    size = AT_ONCE * facts_per_subject
    groups = [facts[start : start + size] for start in range(0, len(facts), size)]
    baselines = [
        Baseline.of(
            model,
            tokenizer,
            group,
            locality=laboratory.locality(group),
            settings=ASKING,
            native=laboratory.native,
        )
        for group in groups
    ]
    for name, sweep in tqdm(SWEEPS.items(), desc=f"{facts_per_subject} facts each", disable=None):
        hparams = laboratory.hparams(sweep.preset, precision="weights", **sweep.changes)
        targets = [
            compute_targets(model, tokenizer, [fact.to_request() for fact in group], hparams)
            for group in groups
        ]
        for strength in sweep.strengths:
            chosen = hparams.with_overrides(alignment=strength)
            results, diagnoses = [], []
            losses: list[float] = []
            for group, baseline, wanted in zip(groups, baselines, targets, strict=True):
                delta = solve_edit(model, tokenizer, wanted, chosen)
                with delta.applied(model):
                    results.append(evaluate_edit(model, tokenizer, group, baseline=baseline))
                diagnoses.append(diagnose(model, tokenizer, group, {name: delta}, MEASURING))
                losses += delta.provenance.losses
            line = {
                "method": name,
                "alignment": strength,
                "loss": sum(losses) / len(losses),
                "geometry": joined_geometry(diagnoses).summary(),
                **joined_result(results).summary(),
            }
            out.write(json.dumps(line) + "\n")
            out.flush()


def joined_result(results: Sequence[EvaluationResult]) -> EvaluationResult:
    """The results of several edits of the same model, as one."""
    return EvaluationResult(
        records=tuple(record for result in results for record in result.records),
        locality=tuple(prompt for result in results for prompt in result.locality),
        kl=tuple(kl for result in results for kl in result.kl),
        top1=tuple(same for result in results for same in result.top1),
        edited={subject: n for result in results for subject, n in result.edited.items()},
    )


def joined_geometry(diagnoses: Sequence[Diagnosis]) -> Diagnosis:
    """The diagnoses of several edits by one method, as one; the keys' cosines are of the first."""
    first = diagnoses[0]
    edits = [diagnosis.edits[0] for diagnosis in diagnoses]
    return replace(
        first,
        facts=tuple(fact for diagnosis in diagnoses for fact in diagnosis.facts),
        conflicts=tuple(c for diagnosis in diagnoses for c in diagnosis.conflicts),
        edits=(
            replace(
                edits[0],
                queries=tuple(query for edit in edits for query in edit.queries),
                radii=tuple(radius for edit in edits for radius in edit.radii),
            ),
        ),
    )


def main() -> None:
    """Runs every method for each number of facts and appends one JSON line per setting."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--facts-per-subject", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--subjects", type=int, default=48)
    parser.add_argument("--out", type=Path, default=Path("laboratory.jsonl"))
    options = parser.parse_args()
    laboratory = load_laboratory()
    with options.out.open("a", encoding="utf-8") as out:
        for number in options.facts_per_subject:
            run(laboratory, number, options.subjects, out)


if __name__ == "__main__":
    main()
