"""A job of a sweep: its run is done, unless it is done already, and its end is put on record."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rose_easyedit.errors import RoSEError
from rose_easyedit.experiment.identity import results_version, run_id
from rose_easyedit.experiment.job_list import Job, listed_jobs
from rose_easyedit.experiment.schema import ExperimentConfig, read_config
from rose_easyedit.experiment.status import (
    FAILED,
    FINISHED,
    RUNNING,
    RUNS,
    Status,
    claimed,
    damage,
    digests,
    emptied,
    metrics_of,
    read_status,
)
from rose_easyedit.files.amounts import duration
from rose_easyedit.files.reading import inside, read_yaml
from rose_easyedit.tracking.layout import CONFIG_FILE

if TYPE_CHECKING:
    from omegaconf import DictConfig

logger = logging.getLogger(__name__)

LOG_FILE = "run.log"


def hydra_job(composed: DictConfig) -> tuple[float, float] | None:
    """What Hydra calls for each job; a failure is put on record and does not stop the sweep.

    Returns:
        What a search optimises (`metrics.objective`), or None if the job has failed.
    """
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from rose_easyedit.experiment.metrics import objective
    from rose_easyedit.experiment.plan import options_of, sweep_folder, words_said

    hydra = HydraConfig.get()
    config = read_config(composed)
    number = None if OmegaConf.is_missing(hydra.job, "num") else int(hydra.job.num)
    folder = sweep_folder(hydra, multirun=number is not None)
    options = options_of(hydra, folder, config.folder)
    status = run_once(config, folder, number, words_said(hydra.overrides.task), options)
    metrics = metrics_of(status)
    known = metrics.get("asked") is not None and metrics.get("kl") is not None
    return objective(metrics) if status.state == FINISHED and known else None


def run_once(
    config: ExperimentConfig,
    sweep: Path,
    number: int | None,
    overrides: Sequence[str],
    options: Sequence[str] = (),
) -> Status:
    """Does a job's run in `sweep/runs/<id>`, or takes it from there.

    A run that has failed, or was broken off, is done anew; so is a finished one whose files have
    changed since, or without `config.resume`. Whoever else is at the same run is waited for. A
    file that cannot be written, or leads elsewhere, is a failure of the job.

    Args:
        config: of the job.
        sweep: the folder.
        number: of the job; None if it is done by itself, and stands where its run is listed.
        overrides: what its command line sets.
        options: what is said to Hydra besides (`plan.options_of`).
    """
    job = Job(number or 0, run_id(config), list(overrides), list(options))
    if number is None:
        job = _listed_place(sweep, job)
    job.write(sweep)
    try:
        return _claim(config, sweep / RUNS / job.run, sweep, job)
    except (OSError, RoSEError) as error:
        known = isinstance(error, RoSEError)
        message = str(error) if known else f"{type(error).__name__}: {error}"
        logger.error("run %s failed: %s", job.run, message)
        replace(job, error=message).write(sweep)
        return Status(job.run, FAILED, job.overrides, error=message)


def _listed_place(sweep: Path, job: Job) -> Job:
    """The place where the job's run is listed, as if nothing were known of it; else the job."""
    listed = next((other for other in listed_jobs(sweep) if other.run == job.run), job)
    return replace(listed, kept=False, error="")


def _claim(config: ExperimentConfig, folder: Path, sweep: Path, job: Job) -> Status:
    with claimed(folder):
        earlier = read_status(folder)
        if earlier is not None:
            finished = earlier.state == FINISHED and config.resume
            fault = damage(folder, earlier) if finished else f"it was {earlier.state} before"
            if not fault:
                logger.info("run %s is finished already; resume=false repeats it", job.run)
                _warn_of_tracking(config, folder)
                replace(job, kept=True).write(sweep)
                return earlier
            logger.info("run %s is done again: %s", job.run, fault)
        return _attempt(config, emptied(folder), job)


def _warn_of_tracking(config: ExperimentConfig, folder: Path) -> None:
    """Says that a finished run stays tracked as it was, or untracked."""
    from rose_easyedit.tracking.choice import make_tracker
    from rose_easyedit.tracking.tracker import NoTracker

    if isinstance(make_tracker(config.tracking), NoTracker):
        return
    asked = (config.tracking.kind, config.tracking.mode)
    try:
        tracking = read_yaml(inside(folder, folder / CONFIG_FILE))["tracking"]
        was = (tracking["kind"], tracking["mode"])
    except (OSError, ValueError, LookupError, TypeError):
        return  # nobody can tell
    if asked != was:
        logger.warning(
            "run %s was finished with tracking %s (%s), and is not tracked anew with %s (%s); "
            "resume=false repeats it",
            folder.name,
            *was,
            *asked,
        )


def _attempt(config: ExperimentConfig, folder: Path, job: Job) -> Status:
    from rose_easyedit.experiment.models_once import model_of_this_process
    from rose_easyedit.experiment.run import run_experiment
    from rose_easyedit.tracking.choice import make_tracker

    models = model_of_this_process()
    begun = Status(
        id=job.run,
        state=RUNNING,
        overrides=job.overrides,
        code=results_version(),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        has_edit=config.easyedit.algorithm is None,
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
    logger.info("run %s finished in %s", job.run, duration(seconds["all"]))
    ended = replace(begun, state=FINISHED, seconds=seconds, metrics=report["metrics"])
    return replace(ended, files=digests(folder)).write(folder)


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
