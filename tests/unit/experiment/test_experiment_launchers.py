"""Each launcher and the search, really run on the tiny random model."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from experiments import QUICK, run, statuses

pytestmark = pytest.mark.slow
SWEEP = ("-m", *QUICK, "alignment=identity,covariance", "hierarchy=hierarchical,joint")


def needs(module: str, extra: str) -> None:
    """Skips where an extra is missing."""
    if find_spec("hydra_plugins") is None or find_spec(f"hydra_plugins.{module}") is None:
        pytest.skip(f"{module} is not installed (pip install 'rose-easyedit[{extra}]')")


@pytest.mark.parametrize(
    ("launcher", "module", "words"),
    [
        ("joblib", "hydra_joblib_launcher", ["hydra.launcher.n_jobs=2"]),
        ("submitit_local", "hydra_submitit_launcher", ["hydra.launcher.timeout_min=10"]),
        ("ray", "hydra_ray_launcher", ["hydra.launcher.ray.init.num_cpus=2"]),
    ],
)
def test_a_sweep_runs_resumes_and_reports_failures(
    launcher: str, module: str, words: list[str], tmp_path: Path
) -> None:
    needs(module, launcher.partition("_")[0])
    chosen = (f"launcher={launcher}", *words)
    done = run(tmp_path, *SWEEP, *chosen)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 of 4 jobs finished" in done.stdout
    found = statuses(tmp_path / "test")
    assert len(found) == 4 and {status["state"] for status in found.values()} == {"finished"}

    again = run(tmp_path, *SWEEP, *chosen)
    assert again.returncode == 0 and again.stdout.count("finished before") == 4
    assert statuses(tmp_path / "test") == found

    faulty = "hparams.alignment.null_space_threshold=1e-9"
    failed = run(tmp_path, "-m", *QUICK, "alignment=null_space,identity", faulty, *chosen)
    assert failed.returncode == 1, failed.stdout + failed.stderr
    assert "1 of 2 jobs finished" in failed.stdout


def test_a_search_tries_settings_and_draws_the_front(tmp_path: Path) -> None:
    needs("hydra_optuna_sweeper", "optuna")
    words = (
        "-m",
        *QUICK,
        "sweeper=optuna",
        "hydra.sweeper.n_trials=4",
        "hparams.alignment.strength=tag(log, interval(0.05, 5))",
        "hierarchy=choice(hierarchical, joint)",
    )
    done = run(tmp_path, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 of 4 jobs finished" in done.stdout
    sweep = tmp_path / "test"
    jobs = json.loads((sweep / "summary.json").read_text())["jobs"]
    assert {key for job in jobs for key in job["swept"]} >= {"hparams.alignment.strength"}
    assert (sweep / "optimization_results.yaml").is_file()
    assert (sweep / "figures" / "pareto.png").is_file()

    again = run(tmp_path, *words)
    assert again.returncode == 0 and again.stdout.count("finished before") == 4
