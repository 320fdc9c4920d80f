"""A wheel built from the tree, installed apart from it, runs its commands from another folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest
from places import ROOT
from tiny_models import LENIENT

SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]

FACT = {"prompt": "Tell me about Marie Curie", "subject": "Marie Curie", "target_new": "Polish"}
# The first two are read from the folders that the wheel carries.
SETTINGS = ["--hparams", "smollm2-135m", "--method", "rose"]
FOR_A_TINY_MODEL = [
    "layers=[1,2]",
    "alignment.protected_directions=8",
    "alignment.preserved_columns=8",
    "n_contexts=1",
    *(f"self_check.{name}={json.dumps(value)}" for name, value in LENIENT.items()),
]


def run(*command: str | Path, cwd: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def bin_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scripts of a fresh environment that has the wheel, and what else is installed here."""
    folder = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    wheel = next(folder.glob("*.whl"))
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
    scripts = folder / "venv" / Path(sysconfig.get_path("scripts")).name
    pip = [sys.executable, "-m", "pip", "--python", scripts / "python", "install", "--quiet"]
    run(*pip, "--no-deps", "--no-index", wheel, cwd=folder)
    site = run(
        scripts / "python",
        "-c",
        "import sysconfig; print(sysconfig.get_path('purelib'))",
        cwd=folder,
    ).strip()
    # behind the wheel, and without the .pth files of that folder: no editable install shows through
    (Path(site) / "zz-dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return scripts


def test_the_wheel_is_what_runs(bin_folder: Path, tmp_path: Path) -> None:
    code = "import rose_easyedit; print(rose_easyedit.__file__)"
    imported = run(bin_folder / "python", "-c", code, cwd=tmp_path)
    assert Path(imported.strip()).is_relative_to(bin_folder.parent)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_has_its_help(script: str, bin_folder: Path, tmp_path: Path) -> None:
    assert script in run(bin_folder / script, "--help", cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_an_edit_with_the_shipped_settings(
    bin_folder: Path, tmp_path: Path, tiny_folder: Path
) -> None:
    (tmp_path / "facts.jsonl").write_text(json.dumps(FACT))
    settings = [word for pair in FOR_A_TINY_MODEL for word in ("--set", pair)]
    files = ["--requests", "facts.jsonl", "--out", "edit.safetensors"]
    command = ["edit", "--model", str(tiny_folder), *SETTINGS, *settings, *files, "--json"]
    report = json.loads(run(bin_folder / "rose-edit", *command, cwd=tmp_path))
    assert report["facts"][0]["target_new"] == "Polish"
    info = json.loads(
        run(bin_folder / "rose-edit", "info", "edit.safetensors", "--json", cwd=tmp_path)
    )
    assert info["hparams"]["layers"] == [1, 2]
