"""A job's run is done once, and again only where it has to be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from experiments import quick

from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.edits.factors import Factors
from rose_easyedit.errors import RoSEError
from rose_easyedit.experiment import run as running
from rose_easyedit.experiment.identity import run_id
from rose_easyedit.experiment.job import run_once
from rose_easyedit.experiment.job_list import Job, listed_jobs
from rose_easyedit.experiment.models_once import model_of_this_process
from rose_easyedit.experiment.status import FAILED, FINISHED, RUNNING, Status
from rose_easyedit.tracking.layout import DELTA_FILE, DIAGNOSIS_FILE, RESULT_FILE

REPORT = {"metrics": {"asked": 0.5, "kl": 0.1}, "seconds": {"edit": 1.0}}


class Attempts:
    """Stands in for `run_experiment`: each attempt writes a file, and may raise."""

    def __init__(self) -> None:
        self.count = 0
        self.error: BaseException | None = None
        self.left = {DELTA_FILE: b""}

    def __call__(self, config: Any, folder: Path, tracker: Any, **kwargs: Any) -> dict[str, Any]:
        assert [path.name for path in folder.iterdir() if path.suffix != ".log"] == ["status.json"]
        self.count += 1
        (folder / "half").write_text(str(self.count))
        if self.error is not None:
            raise self.error
        for name, content in self.left.items():
            (folder / name).write_bytes(content)
        return REPORT


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> Attempts:
    stand_in = Attempts()
    monkeypatch.setattr(running, "run_experiment", stand_in)
    return stand_in


def test_a_finished_run_is_kept_unless_it_shall_be_repeated(
    attempts: Attempts, tmp_path: Path
) -> None:
    first = run_once(quick(), tmp_path, 0, ["a=1"])
    assert (first.state, first.metrics, first.overrides) == (FINISHED, REPORT["metrics"], ["a=1"])
    assert first.seconds["edit"] == 1.0 and first.seconds["all"] >= 0
    assert run_once(quick(), tmp_path, 5, ["a=1"]) == first
    assert attempts.count == 1
    run_once(quick("resume=false"), tmp_path, 6, [])
    assert attempts.count == 2
    run = run_id(quick())
    assert listed_jobs(tmp_path) == [
        Job(0, run, ["a=1"]),
        Job(5, run, ["a=1"], kept=True),
        Job(6, run),
    ]


@pytest.mark.parametrize("known", [True, False])
def test_a_failure_is_recorded_and_tried_again(
    known: bool, attempts: Attempts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgotten = []
    monkeypatch.setattr(model_of_this_process(), "forget", lambda: forgotten.append(1))
    attempts.error = RoSEError("too few") if known else MemoryError("gone")
    status = run_once(quick(), tmp_path, 0, [])
    assert status.state == FAILED
    assert status.error == ("too few" if known else "MemoryError: gone")
    log = (tmp_path / "runs" / status.id / "run.log").read_text()
    assert status.error.rpartition(": ")[2] in log
    assert ("Traceback" in log) is not known
    assert forgotten == [1]
    attempts.error = None
    assert run_once(quick(), tmp_path, 0, []).state == FINISHED


def test_an_interrupted_run_is_begun_anew(attempts: Attempts, tmp_path: Path) -> None:
    attempts.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run_once(quick(), tmp_path, 0, [])
    attempts.error = None
    status = run_once(quick(), tmp_path, 0, [])
    assert status.state == FINISHED and attempts.count == 2


@pytest.mark.parametrize("content", ["running", "garbage"])
def test_a_half_written_run_is_begun_anew(content: str, attempts: Attempts, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / run_id(quick())
    folder.mkdir(parents=True)
    Status(folder.name, RUNNING).write(folder)
    (folder / "result.json").write_text("half")
    if content == "garbage":
        (folder / "status.json").write_text("{")
    assert run_once(quick(), tmp_path, 0, []).state == FINISHED
    assert not (folder / "result.json").exists()


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        ("none", "wandb", "with tracking none (offline), and is not tracked anew with wandb"),
        ("jsonl", "jsonl", ""),
        ("jsonl", "none", ""),
        ("", "jsonl", ""),
    ],
)
def test_tracking_that_comes_too_late_is_a_warning(
    before: str,
    now: str,
    told: str,
    attempts: Attempts,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    status = run_once(quick(), tmp_path, 0, [])
    if before:
        config = f"tracking: {{kind: {before}, mode: offline}}\n"
        (tmp_path / "runs" / status.id / "config.yaml").write_text(config)
    run_once(quick(f"tracking={now}"), tmp_path, 0, [])
    assert attempts.count == 1
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(warnings) == bool(told)
    assert told in "".join(warnings)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        (DELTA_FILE, "changed"),
        (DELTA_FILE, "gone"),
        (DELTA_FILE, "linked"),
        (RESULT_FILE, "cut"),
        (DIAGNOSIS_FILE, "gone"),
    ],
)
def test_a_finished_run_whose_files_have_changed_is_done_again(
    name: str, how: str, attempts: Attempts, tmp_path: Path
) -> None:
    attempts.left = {DELTA_FILE: b"edit", RESULT_FILE: b"{}", DIAGNOSIS_FILE: b"{}"}
    config = quick()
    first = run_once(config, tmp_path, 0, [])
    path = tmp_path / "runs" / first.id / name
    content = path.read_bytes()
    path.unlink()
    if how == "linked":
        (tmp_path / "outside").write_bytes(content)
        path.symlink_to(tmp_path / "outside")
    elif how != "gone":
        path.write_bytes(b"other" if how == "changed" else content[:1])
    assert run_once(config, tmp_path, 0, []).state == FINISHED
    assert attempts.count == 2 and path.read_bytes() == content and not path.is_symlink()
    run_once(config, tmp_path, 0, [])
    assert attempts.count == 2


@pytest.mark.parametrize("whole", [True, False])
def test_an_edit_of_an_earlier_version_is_loaded_before_its_run_is_kept(
    whole: bool, attempts: Attempts, tmp_path: Path
) -> None:
    first = run_once(quick(), tmp_path, 0, [])
    folder = tmp_path / "runs" / first.id
    replace(first, files={}).write(folder)
    edit = EditDelta({"w": Factors(torch.ones(3, 1), torch.ones(1, 2))}, "base", {})
    edit.save(folder / DELTA_FILE)
    if not whole:
        content = (folder / DELTA_FILE).read_bytes()
        (folder / DELTA_FILE).write_bytes(content[:-1] + b"x")
    run_once(quick(), tmp_path, 0, [])
    assert attempts.count == (1 if whole else 2)
