"""What a user's `pip install` gets: the shipped folders, and no requirement that cannot be met."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser

import pytest
from places import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
DATA = (".txt", ".json", ".jsonl", ".jinja", ".safetensors")
LAUNCHERS = ("joblib", "submitit", "ray", "optuna")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return zipfile.ZipFile(next(folder.glob("*.whl")))


@pytest.mark.parametrize("folder", ["conf", "hparams"])
def test_the_wheel_holds_the_shipped_settings(wheel: zipfile.ZipFile, folder: str) -> None:
    shipped = {
        f"rose_easyedit/{path.relative_to(ROOT)}" for path in (ROOT / folder).rglob("*.yaml")
    }
    assert shipped
    assert shipped <= set(wheel.namelist())


def test_the_wheel_holds_data_files_and_no_tests(wheel: zipfile.ZipFile) -> None:
    package = ROOT / "rose_easyedit"
    data = [path for path in package.rglob("*") if path.suffix in DATA]
    names = wheel.namelist()
    assert {str(path.relative_to(ROOT)) for path in data} <= set(names)
    assert not [name for name in names if name.startswith("tests/")]


def test_the_wheel_does_not_require_easyeditor_or_the_embedded_model(
    wheel: zipfile.ZipFile,
) -> None:
    metadata = next(name for name in wheel.namelist() if name.endswith("METADATA"))
    required = Parser().parsestr(wheel.read(metadata).decode()).get_all("Requires-Dist")
    assert any(line.startswith("torch") for line in required)
    assert not [line for line in required if re.match(r"(easyeditor|llm)", line)]


def test_every_launcher_has_its_extra() -> None:
    assert {*LAUNCHERS, "launchers", "peft", "dev"} <= set(EXTRAS)


def test_constraints_pin_every_dependency_inside_its_range() -> None:
    from packaging.requirements import Requirement

    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    pins = {_canonical(name): version for name, version in pins.items()}
    launchers = [line for name in LAUNCHERS for line in EXTRAS[name]]
    lines = [*PROJECT["dependencies"], *EXTRAS["dev"], *launchers]
    wanted = [Requirement(line) for line in lines]
    wanted = [requirement for requirement in wanted if requirement.name != PROJECT["name"]]
    outside = [
        str(requirement)
        for requirement in wanted
        if _canonical(requirement.name) not in pins
        or pins[_canonical(requirement.name)] not in requirement.specifier
    ]
    assert outside == []


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
