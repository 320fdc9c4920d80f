"""Experiments on the tiny random model that take a second."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.types import RunMode

from rose_easyedit.experiment.plan import (
    CONFIG,
    SweepPlan,
    compose_job,
    hydra_loader,
    make_plan,
)
from rose_easyedit.experiment.schema import ExperimentConfig
from rose_easyedit.experiment.words import told_in_words
from rose_easyedit.tracking.layout import DELTA_FILE
from rose_easyedit.tracking.tracker import RunInfo

QUICK = (
    "hparams=tiny-random",
    "debug=fast",
    "resume=true",
    "name=test",
    "hparams.alignment.statistics_tokens=1024",
)
_KL = {"identity": 0.1, "covariance": 0.2, "shrinkage": 0.3}
SCRIPT = "import sys; from rose_easyedit.experiment.main import main; sys.exit(main())"


def quick(*words: str) -> ExperimentConfig:
    """A job of one subject and few steps."""
    return compose_job([*QUICK, *words])


def planned(words: Sequence[str], multirun: bool = True) -> SweepPlan:
    """The jobs of a command, as the callback is given them by Hydra."""
    mode = RunMode.MULTIRUN if multirun else RunMode.RUN
    with hydra_loader() as loader:
        with told_in_words(words, loader):
            config = loader.load_configuration(CONFIG, list(words), mode)
        return make_plan(config, multirun, loader)


def command(*words: str) -> list[str]:
    """`rose-experiment` with the words, in an interpreter of its own."""
    return [sys.executable, "-c", SCRIPT, *words]


def environment(folder: Path) -> dict[str, str]:
    """One in which sweeps and caches are in a folder."""
    own = {"ROSE_EXPERIMENTS": str(folder), "ROSE_EASYEDIT_CACHE": str(folder / "cache")}
    # else Ray leaves a token in the home folder
    quiet = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "RAY_AUTH_MODE": "disabled"}
    return {**os.environ, **own, **quiet}


def run(folder: Path, *words: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    """Runs the command in a folder, where its sweeps and caches go, to its end."""
    return subprocess.run(
        command(*words),
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def statuses(sweep: Path) -> dict[str, dict[str, Any]]:
    """Run to what its folder says of it."""
    return {
        path.parent.name: json.loads(path.read_text())
        for path in sorted(sweep.glob("runs/*/status.json"))
    }


class Notebook:
    """A tracker that remembers what it was told."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.info: RunInfo | None = None
        self.failed: bool | None = None
        self.summary: dict[str, Any] = {}

    def start(self, run: RunInfo) -> None:
        self.calls.append("start")
        self.info = run

    def log(self, values: Mapping[str, float], *, axis: str, step: int) -> None:
        self.calls.append("log")

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        self.calls.append("table")

    def log_figure(self, name: str, path: Path) -> None:
        self.calls.append("figure")

    def log_artifact(self, name: str, kind: str, path: Path, metadata: Mapping[str, Any]) -> None:
        self.calls.append("artifact")

    def summarise(self, values: Mapping[str, Any]) -> None:
        self.calls.append("summarise")
        self.summary |= values

    def finish(self, failed: bool = False) -> None:
        self.calls.append("finish")
        self.failed = failed


class Runs:
    """Stands in for `run_experiment`: some constraints raise."""

    def __init__(self) -> None:
        self.raising: dict[str, BaseException] = {}
        self.done: list[str] = []

    def __call__(self, config: Any, folder: Path, tracker: Any, **kwargs: Any) -> dict[str, Any]:
        constraint = config.hparams.alignment.constraint
        if constraint in self.raising:
            raise self.raising[constraint]
        self.done.append(constraint)
        (folder / DELTA_FILE).touch()
        return {"metrics": {"asked": _KL[constraint], "kl": _KL[constraint]}, "seconds": {}}
