"""Sweeps in this process whose runs compute nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from experiments import Runs

from rose_easyedit.experiment import run as running
from rose_easyedit.figures import pareto


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    stand_in = Runs()
    monkeypatch.setattr(running, "run_experiment", stand_in)
    return stand_in


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The series of each figure, by name."""
    seen: list[Any] = []
    monkeypatch.setattr(pareto, "write_pareto", lambda series, folder: seen.append(series))
    return seen


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The sweep's; Hydra sets logging up for its process, which is this one."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    monkeypatch.setenv("ROSE_EXPERIMENTS", str(tmp_path))
    yield tmp_path / "test"
    root.handlers, root.level = handlers, level
