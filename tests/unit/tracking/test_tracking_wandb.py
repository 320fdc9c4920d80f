"""An offline run of W&B, read back from its file; nothing has left the machine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from places import HELPERS
from tracked_runs import CONFIG, RESULT, run_info
from wandb_file import items, of_kind, records_of, run_files

from rose_easyedit.tracking.choice import make_tracker
from rose_easyedit.tracking.tracker import NoTracker, TrackingSettings
from rose_easyedit.tracking.wandb_run import WandbTracker, wandb_id

SCRIPT = HELPERS / "tracked_runs.py"


class Tracked(NamedTuple):
    """An offline run as it is on disk.

    Attributes:
        folder: of the run.
        records: of its file.
        attempts: of the process to leave the machine.
        requests: that its service has sent to the server or through a proxy.
    """

    folder: Path
    records: list[Any]
    attempts: list[str]
    requests: int


def track(folder: Path) -> Tracked:
    """Tracks a run in a process of its own, whose every way out ends at a server here."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        here = f"http://127.0.0.1:{server.getsockname()[1]}"
        proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), here)
        out = run_python(
            [str(SCRIPT), str(folder)], WANDB_BASE_URL=here, NO_PROXY="", no_proxy="", **proxies
        )
        requests = 0
        with suppress(BlockingIOError):
            while True:
                server.accept()[0].close()
                requests += 1
    (path,) = run_files(folder)
    return Tracked(folder, records_of(path), json.loads(out), requests)


def run_python(arguments: list[str], **variables: str) -> str:
    """What a process prints that finds no settings of W&B but these."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**kept, **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Tracked:
    return track(tmp_path_factory.mktemp("run"))


def history(tracked: Tracked) -> list[dict[str, Any]]:
    return [items(point.item) for point in of_kind(tracked.records, "history")]


def summary(tracked: Tracked) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for update in of_kind(tracked.records, "summary"):
        values |= items(update.update)
    return values


def test_no_network_is_touched(tracked: Tracked) -> None:
    assert tracked.attempts == []
    assert tracked.requests == 0


def test_the_run_is_named_and_configured_from_the_start(tracked: Tracked) -> None:
    (run,) = of_kind(tracked.records, "run")
    assert run.run_id == wandb_id(run_info(tracked.folder)) and run.run_id.startswith("abc123-")
    assert (run.display_name, run.run_group) == ("a run", "sweep")
    assert (run.project, run.job_type) == ("rose-easyedit", "rose")
    assert list(run.tags) == ["tiny", "paper"]
    assert run.notes == "of the run\nof the settings"
    assert run.resume
    config = items(run.config.update)
    assert {key: config[key] for key in CONFIG} == CONFIG


def test_sweeps_that_share_a_run_have_one_each_at_wandb(tmp_path: Path) -> None:
    run = run_info(tmp_path)
    assert wandb_id(run) == wandb_id(run) != wandb_id(replace(run, group="\u00e9 / other"))
    assert wandb_id(replace(run, group="\u00e9 / other")).isascii()


def test_curves_are_logged_against_their_axes(tracked: Tracked) -> None:
    metrics = {metric.name: metric for metric in of_kind(tracked.records, "metric")}
    axes = {name: metric.step_metric for name, metric in metrics.items() if metric.step_metric}
    assert axes["fact/loss"] == "fact/step" and axes["subject/kl"] == "subject/step"
    assert axes["layer/update_norm"] == "layer"
    assert axes["facts_per_subject/success"] == "facts_per_subject"
    assert metrics["fact/loss"].summary.min and metrics["subject/norm"].summary.max
    for level in ("fact", "subject"):
        points = [point for point in history(tracked) if f"{level}/loss" in point]
        assert [point[f"{level}/step"] for point in points] == list(range(15))
        assert points[-1][f"{level}/loss"] < points[0][f"{level}/loss"]
        assert all(f"{level}/active_groups" in point for point in points)
    assert [p["layer"] for p in history(tracked) if "layer/residual" in p] == [0, 1]


def test_the_summary_has_every_total(tracked: Tracked) -> None:
    values = summary(tracked)
    assert values["evaluation/forms/statement/success"] == 1.0
    assert values["evaluation/locality/all/kl"] == 0.25
    assert values["geometry/deviation"] > 0 and values["geometry/R/mean"] == 8.0
    assert values["time/edit"] == 1.5 and values["memory/peak_mib"] > 1
    losses = [p["fact/loss"] for p in history(tracked) if "fact/loss" in p]
    assert values["fact/loss"] == {"min": min(losses), "last": losses[-1]}
    assert values["version/rose-easyedit"]


def test_tables_hold_each_query_with_its_answers(tracked: Tracked) -> None:
    logged = {name: value for point in history(tracked) for name, value in point.items()}
    table = logged["answers"]
    assert table["_type"] == "table-file" and table["nrows"] == len(RESULT.records)
    (files,) = tracked.folder.glob("wandb/offline-run-*/files")
    content = json.loads((files / table["path"]).read_text())
    row = dict(zip(content["columns"], content["data"][0], strict=True))
    assert (row["query"], row["before"], row["answer"]) == ("Oslo is in", " Norway.", " Peru.")
    assert row["success"] is True and row["probability"] == pytest.approx(0.3679, abs=1e-4)
    assert {"facts", "other_facts", "locality"} <= logged.keys()


def test_figures_are_media(tracked: Tracked) -> None:
    (image,) = [p["figures/radius"] for p in history(tracked) if "figures/radius" in p]
    assert image["_type"] == "image-file" and (image["width"], image["height"]) == (4, 4)
    (files,) = tracked.folder.glob("wandb/offline-run-*/files")
    assert (files / image["path"]).is_file()


def test_the_edit_comes_of_the_requests(tracked: Tracked) -> None:
    artifacts = {artifact.name: artifact for artifact in of_kind(tracked.records, "artifact")}
    requests, edit = artifacts["requests"], artifacts["edit"]
    assert requests.use_after_commit and not edit.use_after_commit
    assert (requests.type, edit.type) == ("requests", "edit")
    assert json.loads(edit.metadata)["hparams"]["alg_name"] == "RoSE"
    for artifact, name in ((requests, "requests.json"), (edit, "delta.safetensors")):
        (entry,) = artifact.manifest.contents
        assert Path(entry.local_path) == (tracked.folder / name).resolve()
    facts = json.loads((tracked.folder / "requests.json").read_text())
    assert [fact["subject"] for fact in facts] == ["Marie Curie", "Marie Curie", "Ada Lovelace"]


def test_nothing_else_is_taken_along(tracked: Tracked) -> None:
    kinds = {record.WhichOneof("record_type") for record in tracked.records}
    assert not kinds & {"output", "output_raw"}
    assert not any(run.HasField("git") for run in of_kind(tracked.records, "run"))
    for environment in of_kind(tracked.records, "environment"):
        assert not environment.HasField("git")
    names = [file.path for files in of_kind(tracked.records, "files") for file in files.files]
    versions = "requirements.txt"  # of the packages that are installed
    assert names and all(n == versions or n.startswith("media/") for n in names), names


RUN_AND_FAIL = """
import sys
from contextlib import suppress
from pathlib import Path
from rose_easyedit.tracking.choice import make_tracker
from rose_easyedit.tracking.tracker import RunInfo, TrackingSettings
folder = Path(sys.argv[1])
for attempt in range(2):
    tracker = make_tracker(TrackingSettings(kind="wandb"))
    tracker.start(RunInfo("abc123", "a run", "sweep", "rose", (), "", folder, {}))
    tracker.finish(failed=True)
import wandb
assert wandb.run is None
"""


def test_the_exit_code_tells_a_failed_run(tracked: Tracked, tmp_path: Path) -> None:
    run_python(["-c", RUN_AND_FAIL, str(tmp_path)])
    attempts = [of_kind(records_of(path), "exit") for path in run_files(tmp_path)]
    assert [len(exits) for exits in attempts] == [1, 1]
    assert all(exits[0].exit_code != 0 for exits in attempts)
    assert [exited.exit_code for exited in of_kind(tracked.records, "exit")] == [0]


def test_disabled_is_nothing_at_all(tmp_path: Path) -> None:
    tracker = make_tracker(TrackingSettings(kind="wandb", mode="disabled"))
    assert isinstance(tracker, NoTracker)


def test_a_run_that_could_not_start_can_be_finished() -> None:
    WandbTracker(TrackingSettings(kind="wandb")).finish(failed=True)


class OpenRun:
    """What a caller has open, as far as a tracker sees it."""

    def __init__(self) -> None:
        self.summary: dict[str, Any] = {}
        self.points: list[dict[str, Any]] = []

    def define_metric(self, name: str, step_metric: str | None, summary: str | None) -> None:
        pass

    def log(self, point: dict[str, Any]) -> None:
        self.points.append(point)
        self.summary |= point


def test_the_edits_of_a_callers_run_follow_each_other(tmp_path: Path) -> None:
    run = OpenRun()
    for _edit in range(2):
        tracker = WandbTracker(TrackingSettings(kind="wandb"), run)
        tracker.start(run_info(tmp_path))
        for step in range(2):
            tracker.log({"fact/loss": 1.0}, axis="fact/step", step=step)
            tracker.log({"layer/residual": 1.0}, axis="layer", step=step)
        tracker.finish()
    assert [p["fact/step"] for p in run.points if "fact/step" in p] == [0, 1, 2, 3]
    assert [p["layer"] for p in run.points if "layer" in p] == [0, 1, 0, 1]
