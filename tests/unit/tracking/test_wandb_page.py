"""What is documented, what is plotted, and what the files of real offline runs hold agree."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from experiments import QUICK, run
from places import HELPERS, ROOT
from wandb_file import items, of_kind, records_of, run_files

from rose_easyedit.tracking import dashboard_sections
from rose_easyedit.tracking.dashboard import specification

PAGE = ROOT / "docs" / "wandb.md"
QUICK_GEOMETRY = [
    "evaluation=geometry",
    *(
        f"evaluation.diagnosis.{name}=1"
        for name in ("directions", "halvings", "landscape_directions", "landscape_points")
    ),
]
# Of W&B's own.
OWN = {"_runtime", "_step", "_timestamp", "_wandb"}
CAPITALS = re.compile(r"\b[A-Z]+\b")


def logged(path: Path) -> set[str]:
    """Every name in a run's file: curves with their axes, totals, tables, figures, artifacts."""
    records = records_of(path)
    names = {artifact.name for artifact in of_kind(records, "artifact")}
    for point in of_kind(records, "history"):
        names |= items(point.item).keys()
    for update in of_kind(records, "summary"):
        names |= items(update.update).keys()
    # of a table there is an artifact as well
    return {name for name in names - OWN if not name.startswith("run-")}


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names of two offline runs: of the command, and one with everything that can be logged."""
    folder = tmp_path_factory.mktemp("runs")
    data = ("hparams=laboratory", "data=laboratory", "data.facts_per_subject=2")
    done = run(folder, *QUICK, *data, *QUICK_GEOMETRY, "tracking=wandb")
    assert done.returncode == 0, done.stdout + done.stderr
    script = [sys.executable, str(HELPERS / "tracked_runs.py"), str(folder / "everything")]
    (folder / "everything").mkdir()
    subprocess.run(script, check=True, capture_output=True, timeout=300)
    own = [path for path in (folder / "test" / "runs").iterdir() if path.is_dir()]
    paths = [path for each in (*own, folder / "everything") for path in run_files(each)]
    assert len(paths) == 2
    return set().union(*map(logged, paths))


def expanded(pattern: str) -> list[str]:
    """`a/{b,c}` as `a/b` and `a/c`."""
    parts = [part.split(",") for part in re.split(r"[{}]", pattern)]
    # outside of braces a comma stands for itself
    chosen = [part if place % 2 else [",".join(part)] for place, part in enumerate(parts)]
    return ["".join(words) for words in itertools.product(*chosen)]


def documented() -> dict[str, str]:
    """Each name on the page to the text of its row."""
    found = {}
    for line in PAGE.read_text().splitlines():
        cells = line.split("|")
        if len(cells) > 3 and "`" in cells[1]:
            for span in re.findall("`([^`]+)`", cells[1]):
                found |= dict.fromkeys(expanded(span), line)
            axis = re.fullmatch(" `([^`]+)` ", cells[2])
            if axis and len(cells) > 4:
                found[axis[1]] = line
    return found


def matching(pattern: str, names: set[str]) -> set[str]:
    # whole words in capitals stand for another name; R is one itself
    parts = [
        "[^/]+" if CAPITALS.fullmatch(part) and part != "R" else re.escape(part)
        for part in pattern.split("/")
    ]
    return {name for name in names if re.fullmatch("/".join(parts), name)}


def test_the_page_has_every_name_that_is_logged(names: set[str]) -> None:
    told = set().union(*(matching(pattern, names) for pattern in documented()))
    assert names - told == set()


def test_every_name_on_the_page_is_logged(names: set[str]) -> None:
    # a version is that of what is installed; neither run has a GPU or is EasyEdit's
    rows = {name: row for name, row in documented().items() if " only" not in row}
    missing = {pattern for pattern in rows if not matching(pattern, names)}
    # depends on the answers of a run: none was broken, or all alike
    assert {name for name in missing if not name.startswith(("evaluation/", "geometry/"))} == set()
    assert len(missing) < 20, sorted(missing)


def test_only_what_runs_have_is_plotted(names: set[str]) -> None:
    plotted = _plotted(specification("someone", "some-project"))
    assert {"fact/loss", "evaluation/headline/faithful", "geometry/deviation"} <= plotted
    assert plotted - names == set()
    assert set(dashboard_sections.TABLES) <= names
    assert {f"figures/{name}" for name in dashboard_sections.FIGURES} <= names


def test_what_runs_are_judged_by_is_plotted(names: set[str]) -> None:
    plotted = _plotted(specification("someone", "some-project"))
    curves = {name for name in names if re.match("(fact|subject)/(loss|kl|norm)$", name)}
    assert curves and curves <= plotted


def _plotted(value: Any) -> set[str]:
    """The names that panels ask for."""
    if isinstance(value, dict):
        return set().union(*map(_plotted, value.values())) if value else set()
    if isinstance(value, list):
        return set().union(*map(_plotted, value)) if value else set()
    name = re.sub(r"^(summary_metrics\.|summary:)", "", str(value))
    return {name} if re.fullmatch(r"[a-z_]+(/\w+)+|layer|facts_per_subject", name) else set()
