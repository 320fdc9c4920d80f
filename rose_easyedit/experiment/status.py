"""How far a run has come, kept in its folder so that the next process knows."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rose_easyedit.errors import RoSEError, shown
from rose_easyedit.experiment.json_records import from_json
from rose_easyedit.files.plain import is_number, plain
from rose_easyedit.files.reading import inside, read_json
from rose_easyedit.files.writing import write_whole
from rose_easyedit.tracking.layout import DELTA_FILE, DIAGNOSIS_FILE, FIGURES, RESULT_FILE

logger = logging.getLogger(__name__)

STATUS_FILE = "status.json"
RUNS = "runs"
JOBS = ".jobs"
FINISHED, FAILED, RUNNING, BROKEN_OFF = "finished", "failed", "running", "broken off"


@dataclass(frozen=True)
class Status:
    """What is known of a run.

    Attributes:
        id: of the run (`identity.run_id`).
        state: `running`, `finished`, `failed`, or `broken off` (its process is gone).
        overrides: what its command line set.
        code: `identity.results_version`.
        started: when, in ISO format.
        seconds: what each part of it took.
        metrics: the main ones (`metrics.main_metrics`); none unless it has finished.
        error: why it failed.
        has_edit: whether it leaves an edit; a method of EasyEdit's own does not.
        files: SHA-256 of what it has left (`digests`); none unless it has finished.
    """

    id: str
    state: str
    overrides: list[str] = field(default_factory=list)
    code: str = ""
    started: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    error: str = ""
    has_edit: bool = True
    files: Mapping[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> Status:
        """Puts it in place of the one that the folder has."""
        write_whole(folder / STATUS_FILE, to_json(asdict(self)))
        return self


def seconds_of(status: Status) -> float | None:
    """What a run took; None if its status does not say so in numbers."""
    seconds = status.seconds.get("all")
    return seconds if is_number(seconds) else None


def metrics_of(status: Status) -> dict[str, float | None]:
    """The metrics of a run, those that are no numbers left out."""
    return {name: of for name, of in status.metrics.items() if of is None or is_number(of)}


def to_json(content: Any) -> bytes:
    """Plain data as a file of JSON; numbers that are not finite become null."""
    return json.dumps(plain(content), ensure_ascii=False, indent=1).encode()


def check_run(run: str) -> None:
    """Refuses an id that could be none of a run's: its folder has that name.

    Raises:
        RoSEError: it is the name of no file, or of one elsewhere.
    """
    if run in (".", "..") or not run.isprintable() or {"/", "\\"} & set(run):
        raise RoSEError(f"{shown(run)} names no run; an id is a word that can name a folder.")


def read_status(folder: Path) -> Status | None:
    """What a run's folder says of it; None if it says nothing that can be read.

    A run that says it has finished, and whose edit, or whose result if it has none, is not there,
    is `broken off`.
    """
    try:
        status = from_json(Status, read_json(inside(folder, folder / STATUS_FILE)))
        file = DELTA_FILE if status.has_edit else RESULT_FILE
        if status.state == FINISHED and not inside(folder, folder / file).is_file():
            return replace(status, state=BROKEN_OFF, error=f"there is no {file}")
        return status
    except (OSError, ValueError, TypeError):
        return None


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of the files that a run's results are in, of those that are there.

    Raises:
        RoSEError: one lies elsewhere.
        OSError: one cannot be read.
    """
    found = {}
    for name in (DELTA_FILE, RESULT_FILE, DIAGNOSIS_FILE):
        path = inside(folder, folder / name)
        if path.is_file():
            with path.open("rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def damage(folder: Path, status: Status) -> str:
    """What has become of the files of a finished run since; empty if they are as it left them.

    Of an edit that an earlier version has left without a digest, its own checksum is looked at.
    """
    try:
        if status.files:
            found = digests(folder)
            names = sorted({*found, *status.files})
            changed = [name for name in names if found.get(name) != status.files.get(name)]
            return f"changed since it finished: {', '.join(changed)}" if changed else ""
        if status.has_edit:
            from rose_easyedit.edits.delta import EditDelta

            EditDelta.load(folder / DELTA_FILE)
    except (OSError, RoSEError) as error:
        return str(error)
    return ""


def state_of(folder: Path) -> Status | None:
    """As `read_status`, but a run whose process is gone is `broken off`, and not `running`.

    Where that cannot be found out, as in a folder that is only read, or whose lock lies elsewhere,
    the run is taken at its word.
    """
    from filelock import FileLock

    status = read_status(folder)
    if status is None or status.state != RUNNING:
        return status
    try:
        with FileLock(inside(folder.parent, _lock_path(folder)), timeout=0):
            return replace(status, state=BROKEN_OFF)
    except (OSError, RoSEError):  # a time-out is one, too
        return status


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """The run is this process's own inside the block; another that has it is waited for.

    The system gives the claim of a process that dies away.

    Raises:
        RoSEError: the run or its lock leads elsewhere.
    """
    from filelock import FileLock, Timeout

    folder.parent.mkdir(parents=True, exist_ok=True)
    inside(folder.parent, folder)  # what is there is removed
    lock = FileLock(inside(folder.parent, _lock_path(folder)))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.info("%s is being done by another process; waiting for it", folder.name)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def emptied(folder: Path) -> Path:
    """The folder, without what an earlier attempt has left in it."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder


@contextmanager
def only_command(sweep: Path) -> Iterator[None]:
    """The sweep's folder, which is made, is this command's own inside the block.

    The list of jobs and the summary are those of one command.

    Raises:
        RoSEError: another command is at work in it, it cannot be written, or what is in it is a
            link that leads out of it.
    """
    from filelock import FileLock, Timeout

    elsewhere = "name another folder (name=... or folder=...)"
    for name in (".lock", JOBS, RUNS, FIGURES):  # where files are written, and removed
        inside(sweep, sweep / name)
    lock = FileLock(sweep / ".lock")
    try:
        sweep.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RoSEError(
            f"Another rose-experiment is at work in '{sweep}'; wait for its end, or {elsewhere}."
        ) from error
    except OSError as error:
        raise RoSEError(f"'{sweep}' cannot be written ({error}); {elsewhere}.") from error
    try:
        yield
    finally:
        lock.release()


def _lock_path(folder: Path) -> Path:
    """Beside the folder, which is emptied while it is claimed."""
    return folder.parent / f".{folder.name}.lock"
