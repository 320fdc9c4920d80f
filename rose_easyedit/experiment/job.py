"""A job of a sweep: its run is done, unless it is done already, and its end is put on record."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rose_easyedit.errors import RoSEError
from rose_easyedit.experiment.identity import code_version, run_id
from rose_easyedit.experiment.schema import ExperimentConfig, read_config
from rose_easyedit.experiment.status import (
    FAILED,
    FINISHED,
    RUNNING,
    RUNS,
    Status,
    claimed,
    emptied,
    read_status,
    to_json,
)
from rose_easyedit.files import write_whole

if TYPE_CHECKING:
    from omegaconf import DictConfig

logger = logging.getLogger(__name__)

LOG_FILE = "run.log"
JOBS = ".jobs"


@dataclass(frozen=True)
class Job:
    """A place in a sweep, and the run that stands there; several places may share one.

    Attributes:
        number: of the job, from 0.
        run: its run's id.
        overrides: what its command line set.
        kept: whether its run was done before.
    """

    number: int
    run: str
    overrides: list[str] = field(default_factory=list)
    kept: bool = False

    def write(self, sweep: Path) -> None:
        """Puts it on the sweep's list."""
        write_whole(sweep / JOBS / f"{self.number}.json", to_json(asdict(self)))


def new_list(sweep: Path) -> None:
    """Empties the sweep's list of jobs."""
    shutil.rmtree(sweep / JOBS, ignore_errors=True)


def put_back(sweep: Path, jobs: Sequence[Job]) -> None:
    """Makes these the sweep's list of jobs."""
    new_list(sweep)
    for job in jobs:
        job.write(sweep)


def listed_jobs(sweep: Path) -> list[Job]:
    """The jobs that have begun, by number."""
    found = [Job(**json.loads(path.read_text())) for path in (sweep / JOBS).glob("*.json")]
    return sorted(found, key=lambda job: job.number)


def hydra_job(composed: DictConfig) -> tuple[float, float] | None:
    """What Hydra calls for each job; a failure is put on record and does not stop the sweep.

    Returns:
        What a search optimises (`metrics.objective`), or None if the job has failed.
    """
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from rose_easyedit.experiment.metrics import objective

    hydra = HydraConfig.get()
    config = read_config(composed)
    number = 0 if OmegaConf.is_missing(hydra.job, "num") else int(hydra.job.num)
    overrides = list(hydra.overrides.task)
    status = run_once(config, Path(config.folder), number, overrides)
    asked = status.state == FINISHED and None not in (status.metrics["asked"], status.metrics["kl"])
    return objective(status.metrics) if asked else None


def run_once(
    config: ExperimentConfig, sweep: Path, number: int, overrides: Sequence[str]
) -> Status:
    """Does a job's run in `sweep/runs/<id>`, or takes it from there.

    A run that has failed, or was broken off, is done anew; so is a finished one without
    `config.resume`. Whoever else is at the same run is waited for.
    """
    job = Job(number, run_id(config), list(overrides))
    folder = sweep / RUNS / job.run
    job.write(sweep)
    with claimed(folder):
        earlier = read_status(folder)
        if earlier is not None and earlier.state == FINISHED and config.resume:
            logger.info("run %s is finished already; resume=false repeats it", job.run)
            replace(job, kept=True).write(sweep)
            return earlier
        if earlier is not None:
            logger.info("run %s is done again; it was %s before", job.run, earlier.state)
        return _attempt(config, emptied(folder), job)


def _attempt(config: ExperimentConfig, folder: Path, job: Job) -> Status:
    from rose_easyedit.experiment.models_once import model_of_this_process
    from rose_easyedit.experiment.run import run_experiment
    from rose_easyedit.experiment.tracking import make_tracker

    models = model_of_this_process()
    begun = Status(
        id=job.run,
        state=RUNNING,
        overrides=job.overrides,
        code=code_version(),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
    ).write(folder)
    start = time.perf_counter()
    label = " ".join(job.overrides)
    with _log_file(folder / LOG_FILE):
        try:
            report = run_experiment(
                config, folder, make_tracker(config.tracking), models=models, label=label
            )
        except Exception as error:
            models.forget()
            known = isinstance(error, RoSEError)
            logger.error("run %s failed: %s", job.run, error, exc_info=not known)
            message = str(error) if known else f"{type(error).__name__}: {error}"
            return replace(begun, state=FAILED, error=message).write(folder)
    seconds = {**report["seconds"], "all": round(time.perf_counter() - start, 3)}
    logger.info("run %s finished in %.1f s", job.run, seconds["all"])
    return replace(begun, state=FINISHED, seconds=seconds, metrics=report["metrics"]).write(folder)


@contextmanager
def _log_file(path: Path) -> Iterator[None]:
    """What is logged inside the block goes to the file as well."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()
