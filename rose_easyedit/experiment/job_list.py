"""The jobs of a sweep, one file each, so that every process of a launcher can tell of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rose_easyedit.errors import RoSEError
from rose_easyedit.experiment.json_records import from_json
from rose_easyedit.experiment.status import JOBS, check_run, to_json
from rose_easyedit.files.reading import inside, read_json, read_text
from rose_easyedit.files.writing import write_whole

_COMMAND = "command"  # beside the jobs


@dataclass(frozen=True)
class Job:
    """A place in a sweep, and the run that stands there; several places may share one.

    Attributes:
        number: of the job, from 0.
        run: its run's id.
        overrides: what its command line set.
        options: what was said to Hydra, and must be said again to repeat it alone.
        kept: whether its run was done before.
        error: why its run could not even be begun, or be put on record.
    """

    number: int
    run: str
    overrides: list[str] = field(default_factory=list)
    options: list[str] = field(default_factory=list)
    kept: bool = False
    error: str = ""

    def write(self, sweep: Path) -> None:
        """Puts it on the sweep's list."""
        write_whole(sweep / JOBS / f"{self.number}.json", to_json(asdict(self)))


def write_list(sweep: Path, jobs: Sequence[Job], command: str = "") -> None:
    """Makes these the sweep's list of jobs; an earlier one goes once they are there.

    Args:
        sweep: the folder.
        jobs: all of them.
        command: that does them, and goes on with those that are left.
    """
    kept = sweep / JOBS / _COMMAND
    if command:
        write_whole(kept, command.encode(errors="replace"))
    else:
        kept.unlink(missing_ok=True)
    for job in jobs:
        job.write(sweep)
    names = {f"{job.number}.json" for job in jobs}
    for path in (sweep / JOBS).glob("*.json"):
        if path.name not in names:
            path.unlink()


def listed_command(sweep: Path) -> str:
    """The command that the sweep's list is of; empty if it was not kept.

    Raises:
        OSError, RoSEError: it cannot be read.
    """
    path = sweep / JOBS / _COMMAND
    return read_text(inside(sweep, path)).strip() if path.is_file() else ""


def listed_jobs(sweep: Path) -> list[Job]:
    """The jobs on the sweep's list, by number.

    Raises:
        RoSEError: one cannot be read.
    """
    jobs, faults = [], []
    for path in sorted((sweep / JOBS).glob("*.json")):
        try:
            jobs.append(from_json(Job, read_json(inside(sweep, path))))
            check_run(jobs[-1].run)
        except (OSError, ValueError, TypeError) as error:
            faults.append(f"{path}: {error}")
    if faults:
        title = "Jobs cannot be read; the sweep's own command with -m lists them anew:"
        raise RoSEError.of(title, faults)
    return sorted(jobs, key=lambda job: job.number)
