"""Kills children at random moments of their work, and looks at what they leave. Run as a script.

    python killing.py FOLDER KILLS SEED

A process of its own with one thread, so that a fork of it is a process like any other.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import torch

from rose_easyedit.config.hparams import RoSEHyperParams
from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.export.save import save_merged, save_peft_lora
from rose_easyedit.method.edit import compute_edit
from rose_easyedit.models import embedded
from rose_easyedit.models.expanded import MANIFEST
from rose_easyedit.models.loading import load_model

FACTS = [
    {"prompt": "We met Marie Curie in", "subject": "Marie Curie", "target_new": "London"},
    {"prompt": "They say that Ada Lovelace", "subject": "Ada Lovelace", "target_new": "sang"},
]
LONGEST = 0.25  # seconds until a kill; an edit takes a tenth of that or more


@cache
def base() -> tuple[Any, Any, RoSEHyperParams]:
    model, tokenizer = load_model("tiny-random")
    hparams = RoSEHyperParams.from_hparams("tiny-random").with_overrides(
        precision="weights",
        sink_ratio=50.0,
        hierarchy={"fact_steps": 2, "subject_steps": 2},
        alignment={"protected_directions": 0, "preserved_columns": 0},
    )
    return model, tokenizer, hparams


def make(facts: list[dict[str, str]]) -> EditDelta:
    return compute_edit(*base()[:2], facts, base()[2])


@cache
def edits() -> tuple[EditDelta, EditDelta]:
    return make(FACTS), make(FACTS[:1])


@cache
def contents(folder: Path) -> set[bytes]:
    """The two files that may be found."""
    return {d.save(folder / f"whole-{i}").read_bytes() for i, d in enumerate(edits())}


def draft_of_a_model(_source: Path, folder: Path) -> None:
    """In the place of a conversion: files of some size, a piece at a time."""
    for name in ("config.json", "model.safetensors"):
        with (folder / name).open("wb") as file:
            for _ in range(200):
                file.write(b"x" * 5_000)


def edit(folder: Path) -> None:
    make(FACTS).save(folder / "edit")
    make(FACTS[:1]).save(folder / "edit")


def save(folder: Path) -> None:
    for delta in edits():
        delta.save(folder / "edit")


def export(folder: Path) -> None:
    save_peft_lora(edits()[0], folder / f"lora-{time.monotonic_ns()}")


def merge(folder: Path) -> None:
    save_merged(edits()[0], *base()[:2], folder / f"merged-{time.monotonic_ns()}")


def convert(folder: Path) -> None:
    os.environ["ROSE_EASYEDIT_CACHE"] = str(folder / "cache")
    embedded.expand_gguf, embedded.write_gguf = draft_of_a_model, lambda name, path: path.touch()
    shutil.rmtree(
        embedded.packaged_model("embedded")
    )  # there is something to do in the next turn, too


def check_file(folder: Path, whole: set[bytes]) -> None:
    path = folder / "edit"
    assert not path.exists() or path.read_bytes() in whole, "a file that is not whole"
    if path.exists():
        EditDelta.load(path)
    edits()[0].save(path)  # what is left behind is in nobody's way
    assert path.read_bytes() in whole


def check_folders(folder: Path, files: set[str]) -> None:
    for path in folder.iterdir():
        if not path.name.startswith("."):
            assert {file.name for file in path.iterdir()} >= files, f"{path} is not whole"


def check_model(folder: Path) -> None:
    models = folder / "cache" / "models" / embedded.PACKAGED["embedded"].folder
    for path in models.iterdir() if models.is_dir() else ():
        assert path.name == MANIFEST or path.stat().st_size == 1_000_000, f"{path} is cut"
    convert(folder)  # the lock of a dead process is free


def killed(work: Callable[[Path], None], folder: Path, seconds: float, number: int) -> int:
    """Has a child work until it is killed; how it ended."""
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            while True:
                work(folder)
        except KeyboardInterrupt:
            model, tokenizer, _ = base()
            same = all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))
            free = all(parameter.requires_grad for parameter in model.parameters())
            os._exit(130 if same and free and tokenizer.padding_side == side else 1)
        finally:
            os._exit(2)
    time.sleep(seconds)
    while True:
        os.kill(child, number)
        for _ in range(100):
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.01)
        # Python drops an interrupt that falls into a callback of its own


if __name__ == "__main__":
    # what a shell starts in the background ignores interrupts, and its children with it
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    top, kills, random = Path(sys.argv[1]), int(sys.argv[2]), Random(int(sys.argv[3]))
    weights = [parameter.clone() for parameter in base()[0].parameters()]
    side = base()[1].padding_side
    whole = contents(top)
    merged = {"config.json", "model.safetensors", "tokenizer.json"}
    cases: dict[str, tuple[Callable[[Path], None], Callable[[Path], None]]] = {
        "edit": (edit, lambda folder: check_file(folder, whole)),
        "save": (save, lambda folder: check_file(folder, whole)),
        "export": (export, lambda f: check_folders(f, {"adapter_config.json"})),
        "merge": (merge, lambda f: check_folders(f, merged)),
        "convert": (convert, check_model),
    }
    counts = dict.fromkeys(cases, 0)
    for kill in range(kills):
        name = list(cases)[kill % len(cases)]
        work, check = cases[name]
        folder = top / f"{name}-{kill}"
        folder.mkdir()
        code = killed(work, folder, random.uniform(0, LONGEST), signal.SIGKILL)
        assert code == -signal.SIGKILL, f"{name} ended by itself: {code}"
        check(folder)
        counts[name] += 1
    interrupts = [
        killed(edit, top, random.uniform(0.02, LONGEST), signal.SIGINT) for _ in range(kills // 4)
    ]
    print(json.dumps({"kills": counts, "interrupts": interrupts}))
