"""The dashboard is made offline, shows what it promises, and plots only what is logged."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tracked_runs import log_everything, some_edit

from rose_easyedit.config.hparams import RoSEHyperParams
from rose_easyedit.figures.diagnosis import write_figures
from rose_easyedit.tracking import dashboard, dashboard_sections
from rose_easyedit.tracking.choice import make_tracker
from rose_easyedit.tracking.tracker import TrackingSettings
from rose_easyedit.tracking.wandb_run import wandb_error

SECTIONS = [
    "Overview",
    "Hierarchy x alignment",
    "Facts per subject",
    "Geometry",
    "Optimisation",
    "Tables",
]
DRY_RUN = """
import sys
def deny(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        raise SystemExit(f"tried the network: {event} {arguments}")
sys.addaudithook(deny)
from rose_easyedit.tracking.dashboard import main
sys.exit(main(["--entity", "someone", "--project", "some-project", "--dry-run"]))
"""


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    """What the command prints in a process that may not use the network."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", DRY_RUN], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def texts(value: Any) -> Iterator[str]:
    """Every string in a specification."""
    if isinstance(value, dict):
        for inner in value.values():
            yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)
    elif isinstance(value, str):
        yield value


def plotted(made: dict[str, Any]) -> set[str]:
    """The names of the metrics that panels ask for."""
    found = set()
    for text in texts(made):
        name = re.sub(r"^(summary_metrics\.|summary:)", "", text)
        if re.fullmatch(r"[a-z_]+(/\w+)+|layer|facts_per_subject", name):
            found.add(name)
    return found


def test_the_workspace_has_every_section_with_its_panels(made: dict[str, Any]) -> None:
    workspace = made["workspace"]
    assert (workspace["entity"], workspace["project"]) == ("someone", "some-project")
    bank = workspace["spec"]["section"]["panelBankConfig"]["sections"]
    assert [section["name"] for section in bank][: len(SECTIONS)] == SECTIONS
    assert [len(section["panels"]) for section in bank][: len(SECTIONS)] == [3, 6, 2, 4, 8, 4]


def test_the_report_has_a_row_of_the_grid_for_each_hierarchy(made: dict[str, Any]) -> None:
    blocks = made["report"]["spec"]["blocks"]
    headings = [block["children"][0]["text"] for block in blocks if block["type"] == "heading"]
    assert [heading for heading in headings if heading in SECTIONS] == SECTIONS
    grids = {}
    for block in blocks:
        if block["type"] == "heading":
            heading = block["children"][0]["text"]
        elif block["type"] == "panel-grid":
            grids[heading] = block["metadata"]
    for integration in ("hierarchical", "joint", "independent"):
        (runs,) = grids[integration]["runSets"]
        chosen = {f["key"]["name"]: f["value"] for f in runs["filters"]["filters"]}
        assert chosen["state"] == "finished"
        assert integration in chosen.values()


def test_only_what_is_logged_is_plotted(made: dict[str, Any], tmp_path: Path) -> None:
    log_everything(make_tracker(TrackingSettings(kind="jsonl")), tmp_path, some_edit())
    logged: set[str] = set()
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        event = json.loads(line)
        logged |= {event.get("axis", ""), event.get("name", ""), *event.get("values", {})}
    names = plotted(made)
    assert {"fact/loss", "evaluation/headline/faithful", "evaluation/headline/success"} <= names
    assert {name for name in names if not name.startswith("figures/")} <= logged
    assert set(dashboard_sections.TABLES) <= logged


def test_figures_are_those_of_a_diagnosis(tmp_path: Path) -> None:
    from diagnoses import some_diagnosis

    drawn = {path.stem for path in write_figures(some_diagnosis(), tmp_path)}
    assert set(dashboard_sections.FIGURES) == drawn


def test_the_settings_that_group_runs_exist() -> None:
    settings = RoSEHyperParams(layers=[1]).as_dict()
    for setting in (dashboard_sections.HIERARCHY, dashboard_sections.ALIGNMENT):
        _, group, name = setting.split(".")
        assert name in settings[group]


def test_without_the_library_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dashboard_sections, "find_spec", lambda name: None)
    assert dashboard.main(["--entity", "someone", "--dry-run"]) == 1
    assert "pip install 'rose-easyedit[dashboard]'" in capsys.readouterr().err


def test_what_the_service_refuses_is_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: str) -> None:
        raise wandb_error()("No API key configured")

    monkeypatch.setattr(dashboard, "make_workspace", refuse)
    assert dashboard.main(["--entity", "someone"]) == 1
    told = capsys.readouterr().err
    assert "(No API key configured); log in with `wandb login`" in told and "--dry-run" in told


def test_its_help_has_examples_and_names_are_not_empty(capsys: pytest.CaptureFixture[str]) -> None:
    for words, code in ((["--help"], 0), (["--entity", ""], 2)):
        with pytest.raises(SystemExit) as end:
            dashboard.main(words)
        assert end.value.code == code
    shown, fault = capsys.readouterr()
    assert "  rose-dashboard --entity" in shown and "Exit codes: 0 done" in shown
    assert "--entity: it is empty; give a name" in fault


def test_a_reader_that_stops_early_is_no_failure() -> None:
    script = (
        "import sys\n"
        "from rose_easyedit.tracking import dashboard\n"
        "dashboard.specification = lambda *_: {'a': 'b' * 100_000}\n"
        "sys.exit(dashboard.main(['--entity', 'me', '--dry-run']))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 0


def test_a_dry_run_blames_nobody_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: str) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(dashboard, "specification", fail)
    assert dashboard.main(["--entity", "someone", "--dry-run"]) == 1
    assert capsys.readouterr().err == "rose-dashboard: No space left on device\n"
