"""`rose-experiment` as a user calls it: refusals, failures, and a sweep that is killed."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
import zipfile
from pathlib import Path

import pytest
from experiments import QUICK, SCRIPT, command, environment, run, statuses
from places import ROOT

from rose_easyedit.experiment.main import main

SWEEP = ("-m", *QUICK, "alignment=identity,covariance", "hierarchy=hierarchical,joint")


def test_help_is_for_people_and_quick() -> None:
    script = (
        "import sys\n"
        "from rose_easyedit.experiment.main import main\n"
        "assert main(['--help']) == 0\n"
        "assert not {'torch', 'transformers', 'wandb'} & set(sys.modules)\n"
    )
    words = [command()[0], "-c", script]
    shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert "rose-experiment -m experiment=smoke" in shown
    assert "alignment: covariance, identity" in shown
    assert "Exit codes: 0 done, 1 a job failed" in shown


def test_an_installed_package_brings_its_settings_along(tmp_path: Path) -> None:
    root = ROOT
    build = ["-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run([command()[0], *build], cwd=root, check=True, capture_output=True)
    installed = tmp_path / "installed"
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        wheel.extractall(installed)
    script = f"import rose_easyedit; assert {str(installed)!r} in rose_easyedit.__file__; {SCRIPT}"
    shown = subprocess.run(
        [command()[0], "-c", script, "experiment=smoke", "hydra.mode=RUN", "--cfg", "job"],
        cwd=tmp_path,
        env={**environment(tmp_path), "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert shown.returncode == 0, shown.stderr
    assert "model_name: laboratory" in shown.stdout


def test_a_typo_is_a_line_and_not_a_trace(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["alignment=identty"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("rose-experiment: This experiment cannot be run:")
    assert "did you mean alignment=identity?" in printed.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--cfg", "job", "alignment=identty"], "did you mean alignment=identity?"),
        (["--config-name=nothing"], "Cannot find primary config 'nothing'"),
        (["--config-path=/tmp", "--cfg", "job"], "Cannot find primary config 'config'"),
        (["-m", "--cfg", "job"], "Only one of --run, --multirun, --cfg"),
    ],
)
def test_what_cannot_be_shown_is_a_line(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and told in printed.err


def test_a_job_that_fails_does_not_stop_the_others_and_can_be_repeated(tmp_path: Path) -> None:
    words = ("-m", *QUICK, "alignment=null_space,identity")
    faulty = "hparams.alignment.null_space_threshold=1e-9"
    done = run(tmp_path, *words, faulty)
    assert done.returncode == 1
    assert "1 of 2 jobs finished" in done.stdout
    assert "leaves no direction" in done.stdout and "Traceback" not in done.stderr
    states = [status["state"] for status in statuses(tmp_path / "test").values()]
    assert sorted(states) == ["failed", "finished"]
    summary = json.loads((tmp_path / "test" / "summary.json").read_text())
    assert [job["state"] for job in summary["jobs"]] == ["failed", "finished"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", "test"]

    repeated = summary["jobs"][0]["command"].split()
    assert repeated[0] == "rose-experiment" and "alignment=null_space" in repeated
    again = run(tmp_path, *repeated[1:])
    assert again.returncode == 1 and "0 of 1 job finished" in again.stdout
    # the folder is still that of the sweep
    kept = json.loads((tmp_path / "test" / "summary.json").read_text())
    assert [job["state"] for job in kept["jobs"]] == ["failed", "finished"]
    assert [job["swept"] for job in kept["jobs"]] == [job["swept"] for job in summary["jobs"]]


def test_a_sweep_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    sweep = tmp_path / "test"
    process = subprocess.Popen(
        command(*SWEEP),
        cwd=tmp_path,
        env=environment(tmp_path),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and process.poll() is None:
            states = sorted(status["state"] for status in _readable(sweep).values())
            if states == ["finished", "running"]:
                break
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = statuses(sweep)
    assert sorted(status["state"] for status in before.values()) == ["finished", "running"]
    kept = next(run for run, status in before.items() if status["state"] == "finished")
    files = _files(sweep / "runs" / kept)

    done = run(tmp_path, *SWEEP)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 of 4 jobs finished" in done.stdout
    assert "is done again: it was running before" in done.stdout
    after = statuses(sweep)
    assert len(after) == 4 and {status["state"] for status in after.values()} == {"finished"}
    assert _files(sweep / "runs" / kept) == files

    nothing = run(tmp_path, *SWEEP)
    assert nothing.returncode == 0
    assert len(re.findall("finished before", nothing.stdout)) == 4
    assert statuses(sweep) == after


def _readable(sweep: Path) -> dict[str, dict]:
    """The statuses, while another process writes them."""
    try:
        return statuses(sweep)
    except (OSError, ValueError):
        return {}


def _files(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Each file of a folder, with the time it was written."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
