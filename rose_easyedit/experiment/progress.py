"""How far a sweep has come, told while it runs, whatever launcher its jobs have."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from threading import Event, Thread

from rose_easyedit.experiment.job_list import listed_jobs
from rose_easyedit.experiment.status import (
    FAILED,
    FINISHED,
    RUNNING,
    RUNS,
    Status,
    read_status,
    seconds_of,
)
from rose_easyedit.files.amounts import counted, duration

_EVERY = 1.0  # seconds


@dataclass(frozen=True)
class Progress:
    """How far a sweep has come.

    Attributes:
        jobs: how many there are; None in a search, which adds its own.
        before: how many were finished before.
        ended: number of each job that has finished or failed now, with what its run says.
        running: how many are at work.
    """

    jobs: int | None
    before: int
    ended: Mapping[int, Status]
    running: int

    @property
    def done(self) -> int:
        """How many have ended, now or before."""
        return self.before + len(self.ended)

    @property
    def seconds_left(self) -> float | None:
        """The mean time of the jobs so far, for those that have not ended; None if it is unknown.

        As many are at work at once as are now.
        """
        found = map(seconds_of, self.ended.values())
        times = [seconds for seconds in found if seconds is not None]
        if self.jobs is None or not times:
            return None
        return fmean(times) * (self.jobs - self.done) / max(self.running, 1)

    def __str__(self) -> str:
        """In a few words: "4 of 15 jobs done, 2 running, about 1 min left"."""
        of = f"{self.done} of {counted(self.jobs, 'job')}" if self.jobs else str(self.done)
        words = [f"{of} done"]
        if self.running:
            words.append(f"{self.running} running")
        if self.seconds_left:
            words.append(f"about {duration(round(self.seconds_left))} left")
        return ", ".join(words)


def progress_of(sweep: Path, jobs: int | None, since: datetime, resume: bool = True) -> Progress:
    """How far a sweep has come.

    Args:
        sweep: its folder.
        jobs: how many there are; None in a search.
        since: when its command began.
        resume: whether runs that were finished before are kept.

    Raises:
        OSError, RoSEError: the list of jobs cannot be read.
    """
    begun = since.astimezone(UTC).isoformat(timespec="seconds")
    ended: dict[int, Status] = {}
    before = running = 0
    for job in listed_jobs(sweep):
        status = read_status(sweep / RUNS / job.run)
        if job.error:
            ended[job.number] = Status(job.run, FAILED, error=job.error)
        elif status is None:
            continue
        elif status.started < begun:  # of an earlier command
            before += resume and status.state == FINISHED
        elif status.state in (FINISHED, FAILED):
            ended[job.number] = status
        else:
            running += status.state == RUNNING
    return Progress(jobs, before, ended, running)


@contextmanager
def told_progress(sweep: Path, jobs: int | None, resume: bool) -> Iterator[None]:
    """Tells how far a sweep has come while the block runs.

    On a terminal it is a bar; elsewhere a line for each job that ends.
    """
    from tqdm import tqdm

    since, told, ended = datetime.now(UTC), set[int](), Event()
    # a job may be elsewhere for a while, and have its output redirected, for all threads
    sweep, output = sweep.absolute(), sys.stdout
    # no time of its own: the jobs of a launcher end in any order
    looks = "{desc} {bar} {postfix}"
    bar = tqdm(total=jobs, desc="sweep", bar_format=looks, disable=None, leave=False)

    def tell() -> None:
        try:
            now = progress_of(sweep, jobs, since, resume)
            bar.n = now.done
            bar.set_postfix_str(str(now))
            for number in sorted(now.ended.keys() - told):
                told.add(number)
                if bar.disable:
                    print(job_line(number, now), file=output, flush=True)
        except (OSError, ValueError):  # a file that is just being written, or a full disk
            return

    def watch() -> None:
        while not ended.wait(_EVERY):
            tell()

    thread = Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        tell()
        bar.close()
        sys.stderr.flush()


def job_line(number: int, progress: Progress) -> str:
    """The line that tells of the end of a job."""
    status = progress.ended[number]
    seconds = seconds_of(status)
    took = "" if seconds is None else f" in {duration(seconds)}"
    return f"job {number} {status.state}{took}: {progress}"
