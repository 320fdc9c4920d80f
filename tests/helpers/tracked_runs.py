"""A run with everything in it that can be logged; as a script, it is tracked with W&B, offline."""

from __future__ import annotations

import atexit
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from diagnoses import some_diagnosis
from results import RECORD
from tiny_models import FACTS, LENIENT, build_model, settings
from tiny_tokenizers import build_tokenizer

from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.evaluation.facts import LocalityPrompt
from rose_easyedit.evaluation.records import OtherRecord
from rose_easyedit.evaluation.result import EvaluationResult, LocalityText
from rose_easyedit.method.edit import compute_edit
from rose_easyedit.tracking.choice import make_tracker
from rose_easyedit.tracking.logged import log_run
from rose_easyedit.tracking.tracker import RunInfo, Tracker, TrackingSettings

_RECORD = replace(RECORD, answer=" Peru.")
RESULT = EvaluationResult(
    records=(
        _RECORD,
        replace(_RECORD, form="question", query="Where?", answer="Norway", success=False),
        replace(
            _RECORD,
            subject="Rome",
            query="Rome is in",
            reading=None,
            reading_before=None,
            kept=False,
        ),
    ),
    locality=(
        LocalityPrompt("unrelated", "Two and two is", False),
        LocalityPrompt("subject", "Tell me about Oslo.", True, "Oslo"),
    ),
    kl=(0.25, 0.5),
    top1=(True, False),
    texts=(None, LocalityText("Oslo is old", "Oslo is in Peru", 0.5, 2 / 3)),
    others=(
        OtherRecord("Oslo", "river", "statement", "?", "Akerselva", "a", "b", True, False, False),
    ),
    edited={"Oslo": 2, "Rome": 1},
)
CONFIG = {"hparams": {"seed": 3, "alignment": {"constraint": "protected"}}, "data": "tiny"}
SETTINGS = TrackingSettings(kind="wandb", tags=["paper"], notes="of the settings")


def some_edit() -> EditDelta:
    """A hierarchical edit of a tiny model."""
    return compute_edit(
        build_model("llama-untied"),
        build_tokenizer("byte-level"),
        FACTS,
        settings(self_check=LENIENT),
    )


def run_info(folder: Path) -> RunInfo:
    return RunInfo("abc123", "a run", "sweep", "rose", ("tiny",), "of the run", folder, CONFIG)


def log_everything(tracker: Tracker, folder: Path, delta: EditDelta) -> None:
    """A run from its start to its end, with figures and the edit in its folder."""
    from PIL import Image

    (folder / "figures").mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), "red").save(folder / "figures" / "radius.png")
    delta.save(folder / "delta.safetensors")
    tracker.start(run_info(folder))
    try:
        log_run(tracker, delta, RESULT, some_diagnosis(), folder, {"edit": 1.5})
    finally:
        tracker.finish()


def main(folder: Path) -> None:
    """Tracks the run and prints every attempt of this process to leave the machine."""
    attempts: list[str] = []

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        # W&B talks to its own service over a Unix socket, whose address is a path
        if event == "socket.getaddrinfo" or (
            event == "socket.connect" and isinstance(arguments[1], tuple)
        ):
            attempts.append(f"{event} {arguments[:2]}")
            raise OSError("the network is denied")

    # registered first, it runs last: what W&B has left to say, it says when the process ends
    atexit.register(lambda: print(json.dumps(attempts)))
    sys.addaudithook(watch)
    log_everything(make_tracker(SETTINGS), folder, some_edit())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
