"""Batches of facts one after another: extended, accumulated in place, and all in one batch.

    python benchmarks/sequential.py --size 12 --every 4 --out build/sequential
    python benchmarks/sequential.py --data counterfact-edit.json --out build/sequential
    python benchmarks/sequential.py --model tiny-random --hparams tiny-random --batches 2 --size 4 \
        --out build/sequential

Extending solves every batch together with the earlier ones, against the original weights.
Accumulating computes each batch on the model that holds the earlier edits, and writes it on top of
them, as is usual. sequential.jsonl has a line for each way and batch: faithful success on all
facts so far, per form; the drift of prompts that no edit should change; the seconds of the batch.
The figure is drawn of it. Takes hours of one core at full size.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from measuring import prepare
from tqdm import tqdm

from rose_easyedit.config.hparams import RoSEHyperParams
from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.errors import RoSEError
from rose_easyedit.evaluation.datasets import load_dataset, with_wrapped_forms
from rose_easyedit.evaluation.evaluate import evaluate_edit
from rose_easyedit.evaluation.facts import SETS, Fact, load_facts
from rose_easyedit.figures.canvas import require_matplotlib
from rose_easyedit.figures.sequential import Point, write_sequential
from rose_easyedit.method.edit import compute_edit
from rose_easyedit.method.extend import extend
from rose_easyedit.requests import EditRequest

EXTEND, IN_PLACE, AT_ONCE = "extended", "accumulated in place", "one batch of all"
Batches = Sequence[Sequence[Fact]]
# The number of the batch and the seconds that it took, while the model holds all so far.
Steps = Iterator[tuple[int, float]]


def extended(model: Any, tokenizer: Any, batches: Batches, hparams: RoSEHyperParams) -> Steps:
    delta: EditDelta | None = None
    for number, batch in enumerate(batches, start=1):
        start = time.perf_counter()
        if delta is None:
            delta = compute_edit(model, tokenizer, requests_of(batch), hparams)
        else:
            delta = extend(model, tokenizer, delta, requests_of(batch))
        seconds = time.perf_counter() - start
        with delta.applied(model):
            yield number, seconds


def in_place(model: Any, tokenizer: Any, batches: Batches, hparams: RoSEHyperParams) -> Steps:
    with ExitStack() as edits:
        for number, batch in enumerate(batches, start=1):
            start = time.perf_counter()
            delta = compute_edit(model, tokenizer, requests_of(batch), hparams)
            edits.enter_context(delta.applied(model))
            yield number, time.perf_counter() - start


def at_once(model: Any, tokenizer: Any, batches: Batches, hparams: RoSEHyperParams) -> Steps:
    start = time.perf_counter()
    requests = [request for batch in batches for request in requests_of(batch)]
    delta = compute_edit(model, tokenizer, requests, hparams)
    seconds = time.perf_counter() - start
    with delta.applied(model):
        yield len(batches), seconds


WAYS: dict[str, Callable[..., Steps]] = {EXTEND: extended, IN_PLACE: in_place, AT_ONCE: at_once}


def requests_of(batch: Sequence[Fact]) -> list[EditRequest]:
    return [fact.to_request() for fact in batch]


def load(options: argparse.Namespace) -> Batches:
    """As many full batches as are asked for, or as the facts give."""
    facts: Sequence[Fact] = load_facts(name=options.set)
    if options.data is not None:
        facts = with_wrapped_forms(load_dataset(options.data, skip_bad=True).facts)
    # the first of those that contradict each other
    facts = list({(fact.subject, fact.prompt): fact for fact in reversed(facts)}.values())[::-1]
    if options.spread:
        random.Random(options.seed).shuffle(facts)
    number = min(options.batches, len(facts) // options.size)
    if number < 2:
        raise RoSEError(f"{len(facts)} facts give no two batches of {options.size}; lower --size.")
    return [facts[i * options.size : (i + 1) * options.size] for i in range(number)]


def main() -> None:
    """Writes the lines, one way after another, and draws them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--size", type=int, default=25, help="facts of a batch")
    parser.add_argument("--every", type=int, default=1, help="measure after so many batches")
    parser.add_argument(
        "--spread",
        action="store_true",
        help="shuffle the facts, so that later batches say more of earlier subjects",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the shuffling")
    parser.add_argument("--set", choices=list(SETS), default="wide", help="the bundled set")
    parser.add_argument("--data", type=Path, help="a data file in place of a bundled set")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--model", default="embedded", help="name, folder or hub name")
    parser.add_argument("--hparams", default="smollm2-135m", help="the model's settings")
    parser.add_argument("--autocast", action="store_true", help="ask in bfloat16, twice as fast")
    parser.add_argument("--out", type=Path, default=Path("sequential"), help="a folder")
    options = parser.parse_args()
    require_matplotlib()

    batches = load(options)
    facts = [fact for batch in batches for fact in batch]
    bench = prepare(options, facts)
    model, tokenizer = bench.model, bench.tokenizer
    hparams = RoSEHyperParams.from_hparams(options.hparams)
    options.out.mkdir(parents=True, exist_ok=True)
    ways: dict[str, list[Point]] = {}
    with (options.out / "sequential.jsonl").open("w", encoding="utf-8") as out:
        for way in options.ways:
            steps = WAYS[way](model, tokenizer, batches, hparams)
            for number, seconds in tqdm(steps, desc=way, total=len(batches), disable=None):
                line: dict[str, Any] = {"way": way, "batch": number, "seconds": round(seconds, 2)}
                if number % options.every == 0 or number == len(batches):
                    written = facts[: number * options.size]
                    result = evaluate_edit(model, tokenizer, written, baseline=bench.before)
                    totals = result.summary()
                    others = totals["locality"]["all"]
                    line |= {
                        "facts": len(written),
                        "faithful": result.faithful(),
                        "success": result.success(),
                        "forms": {n: form["faithful"] for n, form in totals["forms"].items()},
                        "kl": others["kl"],
                        "top1": others["top1"],
                        "generic_kl": totals["locality"]["generic"]["kl"],
                    }
                    point = Point(len(written), line["faithful"], line["kl"])
                    ways.setdefault(way, []).append(point)
                out.write(json.dumps(line) + "\n")
                out.flush()
    write_sequential(ways, options.out)


if __name__ == "__main__":
    main()
