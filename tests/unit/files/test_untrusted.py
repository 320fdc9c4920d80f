"""Files from elsewhere: no reference in them is resolved, and nothing outside their folder read."""

from __future__ import annotations

import base64
import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sweeps import CONFIG, a_result, end_sweep, write_run, write_sweep

from rose_easyedit.cli import main
from rose_easyedit.config.hparams import RoSEHyperParams
from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.errors import RoSEError
from rose_easyedit.experiment.job import _warn_of_tracking
from rose_easyedit.experiment.job_list import Job, listed_jobs, write_list
from rose_easyedit.experiment.report import main as report_main
from rose_easyedit.experiment.report import write_sweep_report
from rose_easyedit.experiment.report_data import read_sweep
from rose_easyedit.experiment.schema import ExperimentConfig
from rose_easyedit.experiment.status import (
    FINISHED,
    RUNNING,
    Status,
    claimed,
    emptied,
    only_command,
    state_of,
    to_json,
)
from rose_easyedit.memory.store import FactStore
from rose_easyedit.requests import EditRequest, load_requests
from rose_easyedit.tracking.tracker import TrackingSettings

SECRET = "TheSecretOfThisMachine"
REFERENCE = "${oc.env:ROSE_TEST_SECRET}"


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROSE_TEST_SECRET", SECRET)


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file under a folder, links as what they lead to."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


# --- references


@pytest.mark.parametrize("name", ["model_name", "device", "contexts", "template_arguments"])
def test_no_reference_in_settings_is_resolved(name: str, tmp_path: Path) -> None:
    value = {"contexts": [REFERENCE], "template_arguments": {"a": REFERENCE}}.get(name, REFERENCE)
    values = RoSEHyperParams(layers=[1]).as_dict() | {name: value}
    path = tmp_path / "settings.yaml"
    path.write_text(json.dumps(values))
    for read in (
        lambda: RoSEHyperParams.from_dict(values),
        lambda: RoSEHyperParams.from_hparams(path),
        lambda: RoSEHyperParams(layers=[1]).with_overrides(**{name: value}),
    ):
        with pytest.raises(RoSEError, match=r"\$\{oc.env.*refers") as caught:
            read()
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize("command", ["list", "history", "ask", "export", "add"])
def test_no_reference_in_a_memory_is_resolved(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "facts.db"
    FactStore(path, RoSEHyperParams(layers=[1]).as_dict()).put([EditRequest("a b", "a", "c")])
    settings = RoSEHyperParams(layers=[1]).as_dict() | {"model_name": f"x/{REFERENCE}"}
    del settings["self_check"]  # as an earlier version has begun it
    with sqlite3.connect(path) as file:
        file.execute("UPDATE settings SET value = ? WHERE name = 'hparams'", [json.dumps(settings)])
    file.close()
    before = path.read_bytes()
    more = {
        "ask": ["--prompt", "a"],
        "export": ["--out", str(tmp_path / "out")],
        "add": ["--prompt", "d e", "--subject", "d", "--target", "f"],
    }
    assert main(["memory", command, "--memory", str(path), *more.get(command, [])]) == 2
    shown = capsys.readouterr()
    assert SECRET not in shown.out + shown.err and "damaged" in shown.err
    assert path.read_bytes() == before and sorted(tmp_path.iterdir()) == [path]


def test_references_in_texts_are_texts(tmp_path: Path) -> None:
    fact = {"prompt": f"{REFERENCE} is", "subject": REFERENCE, "target_new": f"x {REFERENCE}"}
    path = tmp_path / "facts.json"
    path.write_text(json.dumps([fact]))
    (request,) = load_requests(path)
    assert (request.subject, request.target_new) == (REFERENCE, f"x {REFERENCE}")
    store = FactStore(tmp_path / "facts.db", RoSEHyperParams(layers=[1]).as_dict())
    store.put([request])
    assert [entry.request for entry in store.entries()] == [request]


def with_references(content: Any) -> Any:
    """Plain data with a reference in place of every text but those that hold it together."""
    kept = ("state", "run", "id", "form", "kind", "event", "axis")
    if isinstance(content, dict):
        return {n: v if n in kept else with_references(v) for n, v in content.items()}
    if isinstance(content, list):
        return [with_references(item) for item in content]
    return REFERENCE if isinstance(content, str) else content


def test_no_reference_in_a_sweep_is_resolved(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "sweep")
    for path in sweep.rglob("*.json"):
        path.write_text(json.dumps(with_references(json.loads(path.read_text()))))
    for path in sweep.rglob("config.yaml"):
        path.write_text(path.read_text().replace("a-model", REFERENCE).replace("core", REFERENCE))
    page = write_sweep_report(sweep).read_text()
    assert SECRET not in page and REFERENCE in page
    folder = sweep / "runs" / "r0"
    (folder / "config.yaml").write_text(f"tracking: {{kind: '{REFERENCE}', mode: x}}\n")
    config = ExperimentConfig(tracking=TrackingSettings(kind="jsonl"))
    with pytest.MonkeyPatch.context() as patch:
        told: list[Any] = []
        patch.setattr("rose_easyedit.experiment.job.logger.warning", lambda *a: told.append(a))
        _warn_of_tracking(config, folder)
    assert SECRET not in str(told)


# --- links and names that lead outside

OUTSIDE_FIGURE = SECRET.encode() * 20
FILES: dict[str, Callable[[Path], bytes]] = {
    "summary.json": lambda path: path.read_bytes().replace(b"covariance", SECRET.encode()),
    ".jobs/0.json": lambda path: path.read_bytes().replace(b"data=core", SECRET.encode()),
    ".jobs/command": lambda path: SECRET.encode(),
    "runs/r0/status.json": lambda path: path.read_bytes().replace(b"0.1.0+abc", SECRET.encode()),
    "runs/r0/config.yaml": lambda path: CONFIG.replace("a-model", SECRET).encode(),
    "runs/r0/result.json": lambda path: path.read_bytes().replace(b"Town 0", SECRET.encode()),
    "runs/r0/metrics.jsonl": lambda path: path.read_bytes().replace(b"fact/loss", SECRET.encode()),
    "runs/r0/figures/radius.png": lambda path: OUTSIDE_FIGURE,
}


def shows_secret(page: str) -> bool:
    pictures = [part.split('"')[0] for part in page.split("base64,")[1:]]
    return SECRET in page or any(SECRET.encode() in base64.b64decode(p) for p in pictures)


@pytest.mark.parametrize("name", FILES)
def test_a_linked_file_of_a_sweep_is_not_read(name: str, tmp_path: Path) -> None:
    sweep, outside = write_sweep(tmp_path / "sweep"), tmp_path / "outside"
    file = sweep / name
    outside.write_bytes(FILES[name](file))
    file.unlink()
    file.symlink_to(outside)
    try:
        assert not shows_secret(write_sweep_report(sweep).read_text())
    except RoSEError as error:
        assert SECRET not in str(error)


@pytest.mark.parametrize("name", ["runs/r0/figures", "runs/r0", "runs", ".jobs", "figures"])
def test_a_linked_folder_of_a_sweep_is_not_read(name: str, tmp_path: Path) -> None:
    sweep, outside = write_sweep(tmp_path / "sweep"), tmp_path / "outside"
    (sweep / "figures").mkdir()
    (sweep / "figures" / "all.png").write_bytes(b"x")
    (sweep / name).rename(outside)
    for path in outside.rglob("*.png"):
        path.write_bytes(OUTSIDE_FIGURE)
    for path in outside.rglob("status.json"):
        status = json.loads(path.read_text()) | {"state": RUNNING, "code": SECRET}
        path.write_text(json.dumps(status))
    (sweep / name).symlink_to(outside)
    before = snapshot(outside)
    try:
        assert not shows_secret(write_sweep_report(sweep).read_text())
    except RoSEError as error:
        assert SECRET not in str(error)
    assert snapshot(outside) == before


@pytest.mark.parametrize("run", ["../../x", "..", ".", "/x", "a/b", "../r0", "x\0", "\n"])
@pytest.mark.parametrize("by", ["job", "summary"])
def test_a_run_whose_name_leads_outside_is_not_read(run: str, by: str, tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "sweep")
    made = write_run(tmp_path / "other", "x", ["data=core"], a_result(0.5, 0.1))
    for path in made.rglob("*.png"):
        path.write_bytes(OUTSIDE_FIGURE)
    Status("x", FINISHED, code=SECRET).write(made)
    made.rename(tmp_path / "x")
    if by == "job":
        (sweep / "summary.json").unlink()
        (sweep / ".jobs" / "0.json").write_bytes(to_json(vars(Job(0, run, ["data=core"]))))
    else:
        summary = json.loads((sweep / "summary.json").read_text())
        summary["jobs"][0]["run"] = run
        (sweep / "summary.json").write_text(json.dumps(summary))
    before = snapshot(tmp_path)
    try:
        page = write_sweep_report(sweep)
        assert not shows_secret(page.read_text())
        page.unlink()
    except RoSEError as error:
        assert SECRET not in str(error)
    assert snapshot(tmp_path) == before
    if by == "job":
        with pytest.raises(RoSEError, match="names no run"):
            listed_jobs(sweep)


@pytest.mark.parametrize("name", [".jobs", "runs", "figures", ".lock"])
def test_a_command_removes_and_writes_nothing_through_a_link(name: str, tmp_path: Path) -> None:
    sweep, outside = write_sweep(tmp_path / "sweep"), tmp_path / "outside"
    if name == ".lock":
        outside.write_text("mine")
    else:
        outside.mkdir()
        (outside / "7.json").write_text("mine")
        shutil.rmtree(sweep / name, ignore_errors=True)
    (sweep / name).symlink_to(outside)
    before = snapshot(tmp_path)
    with pytest.raises(RoSEError, match="leads out of the folder"), only_command(sweep):
        write_list(sweep, [Job(0, "r0")])
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("name", ["r0", ".r0.lock"])
def test_no_run_is_begun_through_a_link(name: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "status.json").write_text("mine")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / name).symlink_to(outside)
    with pytest.raises(RoSEError, match="leads out of the folder"):
        with claimed(tmp_path / "runs" / "r0"):
            emptied(tmp_path / "runs" / "r0")
    assert (outside / "status.json").read_text() == "mine"


def test_no_lock_is_made_through_a_link(tmp_path: Path) -> None:
    sweep, outside = write_sweep(tmp_path / "sweep"), tmp_path / "outside"
    folder = sweep / "runs" / "r0"
    status = Status("r0", RUNNING).write(folder)
    (sweep / "runs" / ".r0.lock").symlink_to(outside)
    assert state_of(folder) == status
    write_sweep_report(sweep)
    assert not outside.exists()


def test_the_page_is_not_written_through_a_link(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep, outside = write_sweep(tmp_path / "sweep"), tmp_path / "outside"
    outside.write_text("mine")
    (sweep / "report.html").symlink_to(outside)
    assert report_main([str(sweep)]) == 2
    assert "link" in capsys.readouterr().err
    assert outside.read_text() == "mine" and (sweep / "report.html").is_symlink()


def test_a_linked_edit_of_a_run_is_not_read(tmp_path: Path, tiny_tokenizer: Any) -> None:
    from tiny_models import FACTS, build_model, settings

    from rose_easyedit.method.edit import compute_edit

    sweep, outside = tmp_path / "sweep", tmp_path / "outside"
    folder = write_run(sweep, "r0", ["data=core"], a_result(0.5, 0.1))
    (folder / "metrics.jsonl").unlink()
    quick = settings(hierarchy={"fact_steps": 1, "subject_steps": 1})
    delta = compute_edit(build_model("llama-untied"), tiny_tokenizer, FACTS, quick)
    delta.save(outside)
    end_sweep(sweep, [("r0", ["data=core"])])
    (folder / "delta.safetensors").unlink()
    (folder / "delta.safetensors").symlink_to(outside)
    assert "damaged" in write_sweep_report(sweep).read_text()
    assert read_sweep(sweep).runs["r0"].curves == {}
    (folder / "delta.safetensors").unlink()
    EditDelta.load(outside).save(folder / "delta.safetensors")
    assert read_sweep(sweep).runs["r0"].curves
