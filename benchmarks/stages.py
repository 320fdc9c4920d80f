"""What each stage of an edit costs as facts grow, and how near that is to the least there could be.

    python benchmarks/stages.py --facts 10 30 100 --out build/stages.jsonl
    python benchmarks/stages.py --facts 1000 3000 --fact-steps 3 --subject-steps 5
    python benchmarks/stages.py --facts 3 6 --flops 3 --extend 6 \
        --model tiny-random --hparams tiny-random

Each size is edited in a fresh process, which has loaded the model and edited one fact before, and
gives one JSON line: CPU and wall seconds of each stage, and its peak of resident memory over that
of the loaded model. Stages do not count what is within another: "prefix" is what the replay keeps,
"keys" what the columns read layer by layer, "report" what an edit says of its rounding. The table
ends with the slope of log CPU seconds against log facts. Facts are made up, four a subject, and
none stops early. Time in the optimisation is linear in its steps, so large sizes may take few. The
built-in subjects come first among the facts, and an edited one is not preserved: from 800 facts on,
no column is.

--flops N counts operations of an edit of N facts against the least that they need
(`stage_flops.least_flops`), and GFLOP per CPU second against the machine's best matrix product.
--extend N compares stage 1 of N facts, of the same again from a `ShiftStore`, and of ten more.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from stage_watch import STAGES
from staged_edit import Job, measure_extending, measure_flops, measure_stages
from tqdm import tqdm

SIZES = (10, 30, 100, 300, 1000, 3000)
_MORE = 10
# Shorter times are the clock's own.
_MEASURABLE = 1e-3


def slope(sizes: Sequence[float], seconds: Sequence[float]) -> float | None:
    """Of log seconds against log sizes by least squares; None with fewer than two measured."""
    points = [
        (math.log(n), math.log(s)) for n, s in zip(sizes, seconds, strict=True) if s >= _MEASURABLE
    ]
    if not points:
        return None
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    if not spread:
        return None
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread


def stage_table(records: Sequence[dict[str, Any]]) -> str:
    """CPU seconds / MiB of each stage, a column a size, and the slope of the seconds."""
    sizes = [record["facts"] for record in records]
    lines = [
        "CPU seconds / MiB over the loaded model",
        f"{'facts':18}" + "".join(f"{n:>17}" for n in sizes) + f"{'slope':>8}",
    ]
    for name in STAGES:
        found = [record["stages"].get(name) for record in records]
        if not any(found):
            continue
        cells = [f"{c['cpu']:9.3f} /{c['mib']:6.0f}" if c else f"{'-':>17}" for c in found]
        measured = [(n, c["cpu"]) for n, c in zip(sizes, found, strict=True) if c]
        steepness = slope(*zip(*measured, strict=True))
        last = f"{'-':>8}" if steepness is None else f"{steepness:8.2f}"
        lines.append(f"{name:18}" + "".join(cells) + last)
    for title, key in (
        ("subjects", "subjects"),
        ("columns", "columns"),
        ("of them preserved", "preserved"),
        ("solved by", "solver"),
        ("fact steps", "fact_steps"),
        ("subject steps", "subject_steps"),
    ):
        values = (record[key] for record in records)
        lines.append(f"{title:18}" + "".join(f"{_plain(value):>17}" for value in values))
    return "\n".join(lines)


def flops_table(record: dict[str, Any]) -> str:
    """Operations of each stage, the least, and the speed that was reached."""
    peaks = ", ".join(f"{name} {value:.0f}" for name, value in record["peak_gflops"].items())
    lines = [
        f"{record['facts']} facts; best matrix product, GFLOP per CPU second: {peaks}",
        f"{'stage':18}{'GFLOP':>12}{'least':>12}{'least/done':>12}{'GFLOP/s':>10}{'of peak':>9}",
    ]
    for name, found in record["stages"].items():
        least = found["least_gflop"]
        against = f"{'-':>12}" * 2
        if least is not None:
            against = f"{least:12.3f}{least / found['gflop']:12.2f}"
        lines.append(
            f"{name:18}{found['gflop']:12.3f}{against}{found['gflops']:10.2f}{found['of_peak']:9.3f}"
        )
    return "\n".join(lines)


def extend_table(record: dict[str, Any]) -> str:
    """CPU seconds of stage 1, in words."""
    said = {
        name: f"{found['cpu']:.2f} ({found['optimised']} facts optimised)"
        for name, found in record["stage1"].items()
    }
    return (
        f"stage 1 in CPU seconds: {record['facts']} facts {said['first']}; the same again from the "
        f"store {said['again']}; {record['more']} more added to them {said['extended']}; these "
        f"{record['more']} alone {said['alone']}"
    )


def _plain(value: Any) -> str:
    return "+".join(value) if isinstance(value, list) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--facts", type=int, nargs="*", default=list(SIZES))
    parser.add_argument("--flops", type=int, help="facts to count operations of")
    parser.add_argument("--extend", type=int, help="facts to add ten more to")
    parser.add_argument("--fact-steps", type=int)
    parser.add_argument("--subject-steps", type=int)
    parser.add_argument("--preset", help="a method in place of what the settings say")
    parser.add_argument("--model", default=Job.model)
    parser.add_argument("--hparams", default=Job.hparams)
    parser.add_argument("--threads", type=int, default=Job.threads)
    parser.add_argument("--out", type=Path, default=Path("build/stages.jsonl"))
    args = parser.parse_args()
    shared = ("fact_steps", "subject_steps", "preset", "model", "hparams", "threads")
    job = Job(0, **{name: getattr(args, name) for name in shared})
    work: list[Callable[[], dict[str, Any]]] = [
        partial(measure_stages, replace(job, n_facts=n)) for n in args.facts
    ]
    if args.flops:
        work.append(partial(measure_flops, replace(job, n_facts=args.flops)))
    if args.extend:
        work.append(partial(measure_extending, replace(job, n_facts=args.extend), _MORE))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    records = []
    # A process a size, so that what one has grown to does not hide the next.
    fresh = ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1)
    with fresh, args.out.open("a", encoding="utf-8") as out:
        for measure in tqdm(work, unit="edit", disable=None):
            records.append(fresh.submit(measure).result())
            out.write(json.dumps(records[-1]) + "\n")
            out.flush()
    if sizes := [record for record in records if record["kind"] == "stages"]:
        print(stage_table(sizes))
    for record in records:
        if record["kind"] == "flops":
            print(flops_table(record))
        elif record["kind"] == "extend":
            print(extend_table(record))


if __name__ == "__main__":
    main()
