"""Every family that an edit knows, on trained weights: one table of what an edit of each answers.

    python benchmarks/families.py --out families.jsonl
    python benchmarks/families.py --families gpt2 gemma3_text --methods rose --out families.jsonl

Three facts about each of twelve people are written at once, with the same settings for all
families; the other five facts of each of them are asked too. A model that is not in the cache is
trained first, in a minute or two of one core. A line per family and method is appended to the file;
what the file has already is not measured again, so that a run that was stopped goes on. Both tables
of benchmarks/FAMILIES.md are printed from it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from family_anatomy import anatomy
from family_models import FAMILIES, RECIPE, Trained, load_family
from tqdm import tqdm
from train_laboratory import native_consistency

from rose_easyedit.evaluation.evaluate import (
    Baseline,
    EvaluationResult,
    EvaluationSettings,
    evaluate_edit,
)
from rose_easyedit.evaluation.facts import FORMS, Fact
from rose_easyedit.method.edit import solve_edit
from rose_easyedit.method.locating.exchanges import exchanges
from rose_easyedit.method.locating.location import locate
from rose_easyedit.method.stage1.targets import compute_targets

METHODS = ("memit-merge", "rose")
SUBJECTS, FACTS_EACH = 12, 3
ASKING = EvaluationSettings(max_new_tokens=4, batch_size=128, teacher_forcing=False)
_PAIRS = 48  # traced to find the layers
# where tracing cannot tell: the layers before those that training let read the whole text
_FALLBACK = tuple(range(RECIPE.local_layers))


def edited_layers(trained: Trained) -> tuple[list[int], bool]:
    """The layers to edit, and whether causal tracing found them."""
    requests = [fact.to_request() for fact in trained.all_facts()]
    location = locate(trained.model, trained.tokenizer, exchanges(requests, _PAIRS))
    return list(location.layers or _FALLBACK), bool(location.layers)


def facts_and_others(
    trained: Trained, subjects: int, facts_each: int
) -> tuple[tuple[Fact, ...], tuple[Fact, ...]]:
    """The facts to write, and the other facts of their subjects."""
    facts = trained.facts(subjects, facts_each)
    edited = {fact.case_id for fact in facts}
    about = {fact.subject for fact in facts}
    others = (fact for fact in trained.all_facts() if fact.subject in about)
    return facts, tuple(fact for fact in others if fact.case_id not in edited)


def asked_before(trained: Trained, facts: Sequence[Fact], others: Sequence[Fact]) -> Baseline:
    """The unedited model, asked for everything."""
    return Baseline.of(
        trained.model,
        trained.tokenizer,
        [*facts, *others],
        locality=trained.locality(facts),
        settings=ASKING,
    )


def edited(
    trained: Trained, method: str, layers: Sequence[int], facts: Sequence[Fact], before: Baseline
) -> tuple[EvaluationResult, dict[str, Any]]:
    """What the edited model answers, and how the edit went; the model is as before afterwards."""
    model, tokenizer = trained.model, trained.tokenizer
    hparams = trained.hparams(method, layers=list(layers), z_layer=None)
    start = time.process_time()
    targets = compute_targets(model, tokenizer, [fact.to_request() for fact in facts], hparams)
    delta = solve_edit(model, tokenizer, targets, hparams)
    seconds = time.process_time() - start
    losses = delta.provenance.losses
    with delta.applied(model):
        result = evaluate_edit(model, tokenizer, facts, baseline=before)
    return result, {"cpu_seconds": seconds, "loss": sum(losses) / len(losses)}


def measure_family(family: str, methods: Sequence[str], out: Any) -> None:
    """Appends a line for the model and one for each method."""
    trained = load_family(family)
    layers, traced = edited_layers(trained)
    facts, others = facts_and_others(trained, SUBJECTS, FACTS_EACH)
    before = asked_before(trained, facts, others)
    world = native_consistency(trained.model, trained.tokenizer, trained.people)
    model = {**trained.record, "world": world, **anatomy(trained, layers[-1])}
    _write(out, {"family": family, **model})
    for method in methods:
        result, course = edited(trained, method, layers, facts, before)
        line = {"family": family, "method": method, "layers": layers, "traced": traced, **course}
        _write(out, {**line, **result.summary()})


def _write(out: Any, line: Mapping[str, Any]) -> None:
    out.write(json.dumps(line) + "\n")
    out.flush()


def read_lines(path: Path) -> tuple[dict[str, Any], dict[tuple[str, str], Any]]:
    """The last line of each model, by family, and of each edit, by family and method."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    lines = [json.loads(line) for line in text.splitlines()]
    models = {line["family"]: line for line in lines if "method" not in line}
    edits = {(line["family"], line["method"]): line for line in lines if "method" in line}
    return models, edits


def edit_table(edits: Mapping[tuple[str, str], Any]) -> str:
    """The faithful answers of each edit, in Markdown."""
    rows = [
        "| family | method | layers | statement | paraphrase | question | instruction "
        "| other facts | KL | top-1 | loss | CPU-s |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (family, method), line in edits.items():
        rates = " | ".join(f"{line['forms'][form]['faithful']:.2f}" for form in FORMS)
        others, drift = line["r_specificity"], line["locality"]["all"]
        kept = f"{others['kept']:.2f}" if others else ""  # none was known
        layers = ", ".join(map(str, line["layers"])) + ("" if line["traced"] else " (untraced)")
        rows.append(
            f"| {family} | {method} | {layers} | {rates} | {kept} | {drift['kl']:.3f} "
            f"| {drift['top1']:.2f} | {line['loss']:.2f} | {line['cpu_seconds']:.0f} |"
        )
    return "\n".join(rows)


def model_table(models: Mapping[str, Any]) -> str:
    """What each model knows and what it is made of, in Markdown."""
    rows = [
        "| family | parameters | statement | paraphrase | question | instruction | everybody "
        "| CPU-s | gains | gains behind the down projection | strongest coordinate | own part |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for family, line in models.items():
        rates = " | ".join(f"{line['consistency'][form]:.2f}" for form in FORMS)
        behind = _spread(line["post_gains"]) if line["post_gains"] else ""
        rows.append(
            f"| {family} | {line['parameters'] / 1e6:.2f}M | {rates} "
            f"| {min(line['world'].values()):.2f} | {line['cpu_seconds']:.0f} "
            f"| {_spread(line['gains'])} | {behind} "
            f"| {line['strongest']:.2f} | {line['own']:.2f} |"
        )
    return "\n".join(rows)


def _spread(gains: Mapping[str, float]) -> str:
    return f"{gains['rms']:.2f} ({gains['least']:.2f} to {gains['most']:.2f})"


def main() -> None:
    """Measures what the file does not have yet, and prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), help="rose, or presets")
    parser.add_argument("--out", type=Path, default=Path("families.jsonl"))
    options = parser.parse_args()
    _, done = read_lines(options.out)
    with options.out.open("a", encoding="utf-8") as out:
        for family in tqdm(options.families, desc="families", disable=None):
            if left := [m for m in options.methods if (family, m) not in done]:
                measure_family(family, left, out)
    models, edits = read_lines(options.out)
    print(f"{model_table(models)}\n\n{edit_table(edits)}")


if __name__ == "__main__":
    main()
