"""How far a sweep has come: what its files say, in words."""

from __future__ import annotations

import errno
import io
import json
from contextlib import ExitStack, chdir, redirect_stdout
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from experiments import QUICK, Runs

from rose_easyedit.experiment.job_list import Job
from rose_easyedit.experiment.main import main
from rose_easyedit.experiment.progress import job_line, progress_of, told_progress
from rose_easyedit.experiment.status import FAILED, FINISHED, RUNNING, RUNS, Status
from rose_easyedit.tracking.layout import DELTA_FILE

BEGUN = datetime(2026, 3, 1, 12, 0, 0, 500_000, tzinfo=UTC)


def job(sweep: Path, number: int, state: str, minutes: float, seconds: Any = 0.0) -> None:
    """A job of a sweep, its run begun so long after the command."""
    Job(number, f"r{number}").write(sweep)
    if state:
        folder = sweep / RUNS / f"r{number}"
        folder.mkdir(parents=True)
        (folder / DELTA_FILE).touch()
        started = (BEGUN + timedelta(minutes=minutes)).isoformat(timespec="seconds")
        times = {} if seconds == 0.0 else {"all": seconds}
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


@pytest.mark.parametrize("seconds", ["long", None, [], True, float("nan"), 10**400])
def test_a_time_that_is_none_is_left_out(seconds: Any, tmp_path: Path) -> None:
    job(tmp_path, 0, FINISHED, 0, seconds)
    now = progress_of(tmp_path, 2, BEGUN)
    assert now.seconds_left is None
    assert job_line(0, now) == "job 0 finished: 1 of 2 jobs done"


def test_a_sweep_goes_on_though_nothing_can_be_printed(
    runs: Runs, drawn: list[object], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sys.stdout", Full())
    assert main(["-m", *QUICK, "alignment=identity,covariance"]) == 1
    assert len(json.loads((folder / "summary.json").read_text())["jobs"]) == 2


def test_it_is_told_where_the_sweep_is_told_of_whatever_a_job_redirects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    with ExitStack() as meanwhile:
        with told_progress(Path("sweep"), 1, True):
            meanwhile.enter_context(chdir("elsewhere"))
            meanwhile.enter_context(redirect_stdout(io.StringIO()))
            job(tmp_path / "sweep", 0, FINISHED, 10**6, 2.0)
    assert capsys.readouterr().out == "job 0 finished in 2.0 s: 1 of 1 job done\n"
