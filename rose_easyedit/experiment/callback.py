"""What Hydra calls before the first job: the jobs are checked, and listed in their folder."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback

from rose_easyedit.experiment.identity import run_id
from rose_easyedit.experiment.job_list import Job, listed_jobs, write_list
from rose_easyedit.experiment.plan import PROGRAM, SweepPlan, make_plan
from rose_easyedit.experiment.progress import told_progress
from rose_easyedit.experiment.status import only_command

# Hydra makes the callback itself, and can be given no object for it.
_CURRENT: ContextVar[Command | None] = ContextVar("command", default=None)


@dataclass
class Command:
    """One call of `rose-experiment`.

    Attributes:
        words: what stands behind its name.
        held: what ends with it, as the claim of its folder.
        watched: what ends with its jobs, as the telling of their progress.
        folder: where it writes; None until its jobs are known, and if it only shows something.
        number: its job's, if it repeats one of an earlier sweep alone.
    """

    words: Sequence[str]
    held: ExitStack
    watched: ExitStack = field(default_factory=ExitStack)
    folder: Path | None = None
    number: int | None = None

    @contextmanager
    def current(self) -> Iterator[None]:
        """Inside the block it is the one that the callback works for."""
        token = _CURRENT.set(self)
        try:
            with self.watched:
                yield
        finally:
            _CURRENT.reset(token)

    def begin(self, plan: SweepPlan) -> None:
        """Claims the folder and lists the jobs in it.

        One job of a sweep, repeated alone, leaves the folder what it is: that of the sweep.

        Raises:
            RoSEError: another command is at work in the folder, or it cannot be written.
        """
        jobs = _jobs(plan)
        self.held.enter_context(only_command(plan.folder))
        listed = [] if plan.multirun else listed_jobs(plan.folder)
        self.number = next((job.number for job in listed if job.run == jobs[0].run), None)
        if self.number is None:
            write_list(plan.folder, jobs, shlex.join([PROGRAM, *self.words]))
        self.folder = plan.folder
        if plan.multirun:
            number = None if plan.jobs is None else len(jobs)
            self.watched.enter_context(
                told_progress(plan.folder, number, all(job.resume for job in plan.configs))
            )


class JobsCallback(Callback):
    """Keeps the list of a command's jobs (`hydra.callbacks` in conf/config.yaml).

    Hydra makes a warning of what a callback raises; `SystemExit` alone ends the command, and is
    raised from what it is for.
    """

    def on_run_start(self, config: Any, **kwargs: Any) -> None:
        """Of a command without `-m`."""
        _begin(config, multirun=False)

    def on_multirun_start(self, config: Any, **kwargs: Any) -> None:
        """Of a sweep."""
        _begin(config, multirun=True)


def _begin(config: Any, multirun: bool) -> None:
    from hydra.core.global_hydra import GlobalHydra

    command = _CURRENT.get()
    if command is None:
        return
    try:
        command.begin(make_plan(config, multirun, GlobalHydra.instance().config_loader()))
    except Exception as error:
        raise SystemExit(2) from error


def _jobs(plan: SweepPlan) -> list[Job]:
    """The jobs of a command, as their list has them; none of a search, which adds its own."""
    return [
        Job(number, run_id(config), _without_hydra(words), plan.options)
        for number, (words, config) in enumerate(zip(plan.jobs or (), plan.configs, strict=False))
    ]


def _without_hydra(words: Sequence[str]) -> list[str]:
    """What a job sets, without what is said to Hydra."""
    return [word for word in words if not word.lstrip("+~").startswith("hydra")]
