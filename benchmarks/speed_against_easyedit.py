"""CPU seconds per fact on one thread: this package's methods against EasyEdit's MEMIT.

Both sides edit the same facts into the same layers of the embedded model. "memit" and "memit-merge"
take the same context prefixes and the same number of optimisation steps as EasyEdit, all contexts
at every step; "in turns" is the presets' own way, one context a step. "rose" takes its own contexts
and steps, and "rose, equal" EasyEdit's, as many steps on each of its two levels. A learning rate
next to zero keeps every fact from converging, so none stops early, but in two rows: "as shipped" is
the default as a user meets it, and "EasyEdit shipped" its MEMIT with the rate of its settings.
EasyEdit's covariances are given to it, and our statistics come from the disk cache, so neither side
pays for a corpus. CPU time is counted, not the clock on the wall, and the sides take turns, so a
busy machine does not favour one.

    EASYEDIT_HOME=/path/to/EasyEdit python benchmarks/speed_against_easyedit.py

Without EASYEDIT_HOME (a clone of EasyEdit) only this package is measured.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any
from unittest import mock

import torch
from easyedit_clone import easyedit_at
from tqdm import tqdm

from rose_easyedit.config.hparams import RoSEHyperParams
from rose_easyedit.evaluation.facts import load_facts
from rose_easyedit.method import edit
from rose_easyedit.method.contexts import PREFIXES
from rose_easyedit.models.loading import load_model
from rose_easyedit.requests import EditRequest

STEPS = 25
CONTEXTS = list(PREFIXES[:4])
LEARNING_RATE = 1e-6
SHIPPED_RATE = 0.5  # that of EasyEdit for its Llamas
OWN = "rose"  # the row with contexts and steps of its own
SHIPPED = "as shipped"  # the same, where facts converge
# name of a row to preset, and whether a step takes one context or, as EasyEdit does, all of them
ROWS = {
    "memit": ("memit", False),
    "memit in turns": ("memit", True),
    "memit-merge": ("memit-merge", False),
    "merge in turns": ("memit-merge", True),
    OWN: ("rose", True),
    SHIPPED: ("rose", True),
    "rose, equal": ("rose", True),
}


@dataclass(frozen=True)
class Seconds:
    """Seconds of one edit."""

    target: float
    rest: float

    @property
    def total(self) -> float:
        return self.target + self.rest


@dataclass(frozen=True)
class Contender:
    """What is measured: its row of the table, and one edit of its facts."""

    name: str
    precision: str
    steps: str
    n_facts: int
    measure: Callable[[], Seconds]


def seconds_of(
    run: Callable[[], Any],
    module: Any,
    target_stage: str,
    clock: Callable[[], float] = time.process_time,
) -> Seconds:
    """Runs an edit and tells the time within `module.target_stage` from that of the rest.

    Args:
        run: the edit.
        module: that has the stage as a function.
        target_stage: the name of the function.
        clock: seconds from any moment on; CPU time, unless told otherwise.
    """
    inside = 0.0
    stage = getattr(module, target_stage)

    def timed(*args: Any, **kwargs: Any) -> Any:
        nonlocal inside
        began = clock()
        result = stage(*args, **kwargs)
        inside += clock() - began
        return result

    with mock.patch.object(module, target_stage, timed):
        began = clock()
        run()
        return Seconds(inside, clock() - began - inside)


def steps_of(hparams: RoSEHyperParams) -> str:
    """The optimisation steps of an edit, as a table shows them."""
    hierarchy = hparams.hierarchy
    if hierarchy.integration == "hierarchical":
        return f"{hierarchy.fact_steps}+{hierarchy.subject_steps}"
    joint = hierarchy.integration == "joint"
    return str(hierarchy.subject_steps if joint else hierarchy.fact_steps)


def our_settings(
    row: str, precision: str, steps: int | None = STEPS, base: str = "smollm2-135m"
) -> RoSEHyperParams:
    """A preset on a model's settings that takes all its steps: those given, or its own (None).

    `SHIPPED` is left as it is.
    """
    preset, in_turns = ROWS[row]
    if row == SHIPPED:
        return RoSEHyperParams.preset(preset, base).with_overrides(precision=precision)
    hierarchy: dict[str, float] = {
        "fact_learning_rate": LEARNING_RATE,
        "subject_learning_rate": LEARNING_RATE,
        "loss_threshold": 0.0,
    }
    hparams = RoSEHyperParams.preset(preset, base).with_overrides(
        precision=precision, hierarchy=hierarchy
    )
    if steps is None:
        return hparams
    if not in_turns:
        hparams = hparams.with_overrides(hierarchy={"context_batches": 1})
    return hparams.with_overrides(
        contexts=CONTEXTS,
        chat_contexts=0,
        answered_queries=0,
        restatements=0,
        hierarchy={"fact_steps": steps, "subject_steps": steps},
    )


def ours(
    model: Any, tokenizer: Any, row: str, precision: str, requests: Sequence[EditRequest]
) -> Contender:
    hparams = our_settings(row, precision, None if row == OWN else STEPS)

    def run() -> Any:
        return edit.compute_edit(model, tokenizer, requests, hparams)

    return Contender(
        row,
        precision,
        steps_of(hparams),
        len(requests),
        lambda: seconds_of(run, edit, "find_targets"),
    )


def easyedit_settings(
    memit: Any,
    model: Any,
    steps: int = STEPS,
    base: str = "smollm2-135m",
    rate: float = LEARNING_RATE,
) -> Any:
    """EasyEdit's MEMIT settings for a Llama that correspond to our preset "memit"."""
    reference = our_settings("memit", "weights", base=base)
    tied = model.config.tie_word_embeddings
    return memit.MEMITHyperParams(
        layers=list(reference.layers),
        layer_selection="all",
        fact_token="subject_last",
        v_num_grad_steps=steps,
        v_lr=rate,
        v_loss_layer=model.config.num_hidden_layers - 1,
        v_weight_decay=reference.hierarchy.weight_decay,
        clamp_norm_factor=4.0,  # of |h|; ours is in another unit, and neither is reached
        kl_factor=reference.hierarchy.kl_factor,
        mom2_adjustment=True,
        mom2_update_weight=reference.alignment.covariance_weight,
        rewrite_module_tmp="model.layers.{}.mlp.down_proj",
        layer_module_tmp="model.layers.{}",
        mlp_module_tmp="model.layers.{}.mlp",
        attn_module_tmp="model.layers.{}.self_attn",
        ln_f_module="model.norm",
        lm_head_module="model.embed_tokens" if tied else "lm_head",
        mom2_dataset="wikipedia",
        mom2_n_samples=1,
        mom2_dtype="float32",
        alg_name="MEMIT",
        device=str(model.device),
        model_name=model.config.name_or_path,
        stats_dir="",
    )


def easyedit_run(
    memit: Any, model: Any, tokenizer: Any, requests: Sequence[EditRequest], hparams: Any
) -> Callable[[], None]:
    """One edit by EasyEdit's MEMIT, which is given its contexts and its covariances."""
    records = [request.as_dict() for request in requests]
    name = model.config.name_or_path.replace("/", "_")
    identity = torch.eye(model.config.intermediate_size)
    for layer in hparams.layers:
        memit.COV_CACHE[name, hparams.rewrite_module_tmp.format(layer)] = identity
    memit.CONTEXT_TEMPLATES_CACHE = [["{}"], [f"{prefix}{{}}" for prefix in CONTEXTS[1:]]]

    def run() -> None:
        # it asks the tokenizer for right padding, as its own editor sets it for MEMIT
        with (
            contextlib.redirect_stdout(io.StringIO()),
            mock.patch.object(tokenizer, "padding_side", "right"),
        ):
            memit.execute_memit(model, tokenizer, records, hparams)

    return run


def easyedits(
    memit: Any,
    model: Any,
    tokenizer: Any,
    requests: Sequence[EditRequest],
    steps: int = STEPS,
    shipped: bool = False,
) -> Contender:
    rate = SHIPPED_RATE if shipped else LEARNING_RATE
    hparams = easyedit_settings(memit, model, steps, rate=rate)
    run = easyedit_run(memit, model, tokenizer, requests, hparams)
    return Contender(
        "EasyEdit shipped" if shipped else "EasyEdit MEMIT",
        "weights",
        str(steps),
        len(requests),
        lambda: seconds_of(run, memit, "compute_z"),
    )


def contenders(
    model: Any,
    tokenizer: Any,
    memit: Any,
    rows: Sequence[str],
    precisions: Sequence[str],
    n_facts: int,
    n_batch: int,
) -> list[Contender]:
    """Everything to measure, EasyEdit first if it is there; each has run a little before."""
    requests = [fact.to_request() for fact in load_facts()]
    if max(n_facts, n_batch) > len(requests):
        sys.exit(f"The bundled set has {len(requests)} facts; ask for no more.")
    few, many = requests[:n_facts], requests[:n_batch]
    found = []
    if memit is not None:
        easyedits(memit, model, tokenizer, few[:1], steps=2).measure()
        found.append(easyedits(memit, model, tokenizer, few))
        if SHIPPED in rows:
            found.append(easyedits(memit, model, tokenizer, few, shipped=True))
    for precision in precisions:
        for row in rows:
            edit.compute_edit(model, tokenizer, few[:1], our_settings(row, precision, steps=1))
            for batch in (few, many):
                found.append(ours(model, tokenizer, row, precision, batch))
    return found


def table(rows: Sequence[tuple[Contender, list[Seconds]]]) -> str:
    """CPU seconds per fact, medians over the repetitions, and how many times less than EasyEdit."""
    lines = [
        f"{'method':16} {'precision':9} {'facts':>5} {'steps':>6}"
        f" {'target':>8} {'rest':>8} {'total':>8} {'ratio':>7}"
    ]
    first, reference = rows[0]
    compared = first.name.startswith("EasyEdit")
    for contender, seconds in rows:
        target, rest, total = (
            median(getattr(s, name) / contender.n_facts for s in seconds)
            for name in ("target", "rest", "total")
        )
        # repetition by repetition, since these ran side by side
        ratio = median(
            (theirs.total / first.n_facts) / (mine.total / contender.n_facts)
            for theirs, mine in zip(reference, seconds, strict=True)
        )
        lines.append(
            f"{contender.name:16} {contender.precision:9} {contender.n_facts:5}"
            f" {contender.steps:>6} {target:8.3f} {rest:8.3f} {total:8.3f}"
            + (f" {ratio:6.1f}x" if compared else f" {'-':>7}")
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--facts", type=int, default=8, help="edited by both sides (default 8)")
    parser.add_argument("--batch", type=int, default=40, help="edited by ours too (default 40)")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument(
        "--precisions",
        nargs="+",
        choices=("auto", "weights"),
        default=("auto", "weights"),
        help="of ours; EasyEdit has that of the weights",
    )
    parser.add_argument("--repetitions", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = load_model()
    home = os.environ.get("EASYEDIT_HOME")
    clone = easyedit_at(home, "memit.memit_main") if home else contextlib.nullcontext([None])
    with clone as (memit,):
        if memit is None:
            print("EASYEDIT_HOME is not set: only this package is measured.")
        measured = contenders(
            model, tokenizer, memit, args.rows, args.precisions, args.facts, args.batch
        )
        rows: list[tuple[Contender, list[Seconds]]] = [(contender, []) for contender in measured]
        turns = [row for _ in range(args.repetitions) for row in rows]
        for contender, seconds in tqdm(turns, unit="edit", disable=None):
            seconds.append(contender.measure())
    print("CPU seconds per fact, one thread")
    print(table(rows))


if __name__ == "__main__":
    main()
