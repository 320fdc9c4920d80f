"""Facts per second on a GPU at the size of Llama 3.1 8B, beside EasyEdit's MEMIT.

The weights are random (bfloat16) and the learning rate is next to zero, so every fact takes all its
steps; what is computed is what a trained model of that size would compute. EasyEdit's covariances
are given to it; our statistics are read by a first edit of two facts, whose time is given, and then
come from disk. Seconds are those of the clock, with the device waited for.

    EASYEDIT_HOME=/path/to/EasyEdit python benchmarks/speed_on_gpu.py
    python benchmarks/speed_on_gpu.py --size tiny --device cpu --facts 4 --batch 8

Without EASYEDIT_HOME (a clone of EasyEdit) only this package is measured.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from collections.abc import Callable
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import torch
from easyedit_clone import easyedit_at
from made_up_facts import made_up_requests
from speed_against_easyedit import (
    OWN,
    ROWS,
    STEPS,
    Seconds,
    easyedit_run,
    easyedit_settings,
    our_settings,
    seconds_of,
    steps_of,
)
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from rose_easyedit.method import edit
from rose_easyedit.models.embedded import packaged_model

BASE = "llama-3.1-8b-instruct"
_LLAMA = {"num_hidden_layers": 32, "tie_word_embeddings": False, "bos_token_id": None}
SIZES: dict[str, dict[str, Any]] = {
    "8b": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        **_LLAMA,
    },
    "tiny": {
        "hidden_size": 32,
        "intermediate_size": 512,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        **_LLAMA,
    },
}


def random_llama(size: str, device: torch.device, vocabulary: int) -> Any:
    """A Llama with random weights, made where it shall be."""
    config = AutoConfig.for_model("llama", vocab_size=vocabulary, **SIZES[size])
    config.name_or_path = f"random-{size}"
    torch.manual_seed(0)
    with device:
        return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()


def clock_of(device: torch.device) -> Callable[[], float]:
    """The clock on the wall, read when the device is done."""

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    return clock


def peak_of(device: torch.device) -> float:
    """The peak of the device's memory since it was last asked for, GiB; 0 on a CPU."""
    if device.type != "cuda":
        return 0.0
    peak = torch.cuda.max_memory_allocated(device) / 2**30
    torch.cuda.reset_peak_memory_stats(device)
    return peak


def line(name: str, n_facts: int, steps: str, seconds: Seconds, peak: float) -> str:
    return (
        f"{name:24} {n_facts:5} {steps:>6}"
        f" {seconds.target / n_facts:9.4f} {seconds.rest / n_facts:9.4f}"
        f" {n_facts / seconds.total:9.2f} {peak:8.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--facts", type=int, default=8, help="edited by EasyEdit (default 8)")
    parser.add_argument(
        "--batch", type=int, nargs="+", default=[8, 256], help="edited by ours (default 8 256)"
    )
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--size", choices=list(SIZES), default="8b")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--micro-batch", type=int, default=256, help="of ours (default 256)")
    parser.add_argument(
        "--tokenizer", help="a folder or a name on the hub (default: of the embedded model)"
    )
    args = parser.parse_args()
    device = torch.device(args.device)
    clock = clock_of(device)
    tokenizer = AutoTokenizer.from_pretrained(args.tokenizer or str(packaged_model("embedded")))
    model = random_llama(args.size, device, len(tokenizer))
    print("seconds per fact, and the peak of the device's memory")
    print(
        f"{'method':24} {'facts':>5} {'steps':>6}"
        f" {'target':>9} {'rest':>9} {'facts/s':>9} {'GiB':>8}"
    )
    home = os.environ.get("EASYEDIT_HOME")
    clone = easyedit_at(home, "memit.memit_main") if home else contextlib.nullcontext([None])
    with clone as (memit,):
        if memit is not None:
            for n_facts in (1, args.facts):  # the first is to warm up
                requests = made_up_requests(n_facts)
                hparams = easyedit_settings(memit, model, base=BASE)
                run = easyedit_run(memit, model, tokenizer, requests, hparams)
                peak_of(device)
                found = seconds_of(run, memit, "compute_z", clock)
            print(line("EasyEdit MEMIT", args.facts, str(STEPS), found, peak_of(device)))
    for row in args.rows:
        hparams = our_settings(row, "weights", None if row == OWN else STEPS, BASE)
        # random hidden states vary in norm; none is an attention sink
        hparams = hparams.with_overrides(micro_batch=args.micro_batch, sink_ratio=1e9)

        def measured(n: int, hparams: Any = hparams) -> Seconds:
            requests = made_up_requests(n)
            run = partial(edit.compute_edit, model, tokenizer, requests, hparams)
            return seconds_of(run, edit, "find_targets", clock)

        with TemporaryDirectory() as cache, mock.patch.dict(os.environ, ROSE_EASYEDIT_CACHE=cache):
            print(f"{row:24} {2:5} {'first':>6} {measured(2).total:9.2f} s", flush=True)
            for n_facts in args.batch:
                peak_of(device)
                found = measured(n_facts)
                print(line(row, n_facts, steps_of(hparams), found, peak_of(device)), flush=True)


if __name__ == "__main__":
    main()
