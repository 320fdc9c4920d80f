"""How far a sweep has come: what its files say, in words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from experiments import QUICK, Runs

from rose_easyedit.experiment.job_list import Job
from rose_easyedit.experiment.main import main
from rose_easyedit.experiment.progress import job_line, progress_of
from rose_easyedit.experiment.status import FAILED, FINISHED, RUNNING, RUNS, Status
from rose_easyedit.tracking.layout import DELTA_FILE

BEGUN = datetime(2026, 3, 1, 12, 0, 0, 500_000, tzinfo=UTC)


def job(sweep: Path, number: int, state: str, minutes: float, seconds: float = 0.0) -> None:
    """A job of a sweep, its run begun so long after the command."""
    Job(number, f"r{number}").write(sweep)
    if state:
        folder = sweep / RUNS / f"r{number}"
        folder.mkdir(parents=True)
        (folder / DELTA_FILE).touch()
        started = (BEGUN + timedelta(minutes=minutes)).isoformat(timespec="seconds")
        times = {"all": seconds} if seconds else {}
        Status(f"r{number}", state, started=started, seconds=times).write(folder)


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Eight jobs: one was done before, one had failed; of now two are done and two at work."""
    job(tmp_path, 0, FINISHED, -5, 100.0)
    job(tmp_path, 1, FAILED, -5)
    job(tmp_path, 2, FINISHED, 0, 30.0)
    job(tmp_path, 3, FINISHED, 1, 50.0)
    job(tmp_path, 4, RUNNING, 1)
    job(tmp_path, 5, RUNNING, 1)
    job(tmp_path, 6, RUNNING, -5)
    job(tmp_path, 7, "", 0)
    return tmp_path


def test_jobs_of_an_earlier_command_are_done_only_if_they_are_kept(sweep: Path) -> None:
    now = progress_of(sweep, 8, BEGUN)
    assert (now.before, sorted(now.ended), now.running) == (1, [2, 3], 2)
    assert progress_of(sweep, 8, BEGUN, resume=False).before == 0


def test_the_time_left_is_that_of_the_jobs_that_are_left(sweep: Path) -> None:
    now = progress_of(sweep, 8, BEGUN)
    assert now.seconds_left == 40.0 * 5 / 2
    assert str(now) == "3 of 8 jobs done, 2 running, about 1 min 40 s left"
    assert job_line(3, now) == f"job 3 finished in 50.0 s: {now}"


def test_a_search_and_a_failed_job_have_no_time_left(tmp_path: Path) -> None:
    Job(0, "r0", error="no room").write(tmp_path)
    assert job_line(0, progress_of(tmp_path, None, BEGUN)) == "job 0 failed: 1 done"
    assert progress_of(tmp_path, 2, BEGUN).seconds_left is None


def test_a_sweep_without_a_terminal_tells_of_each_job(
    runs: Runs, drawn: list[object], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs.raising = {"covariance": MemoryError("gone")}
    assert main(["-m", *QUICK, "alignment=identity,covariance"]) == 1
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("job ")]
    assert told[0].startswith("job 0 finished in ")
    assert [line for line in told if "2 of 2 jobs done" in line and line.startswith("job 1 failed")]
