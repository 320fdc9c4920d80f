"""The same contract on a clone of EasyEdit; a process can import only one easyeditor."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
HOME = os.environ.get("EASYEDIT_HOME")


@pytest.mark.contract
@pytest.mark.skipif(not HOME, reason="EASYEDIT_HOME does not name a clone of EasyEdit")
def test_the_contract_holds_on_a_clone() -> None:
    assert (Path(str(HOME)) / "easyeditor" / "__init__.py").is_file(), (
        f"EASYEDIT_HOME is {HOME!r}, which holds no easyeditor package"
    )
    search = os.pathsep.join(filter(None, [HOME, os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": search, "PYTHONDONTWRITEBYTECODE": "1"}
    tests = map(str, sorted(set(HERE.glob("test_*.py")) - {Path(__file__)}))
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        env=environment,
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert run.returncode == 0, run.stdout + run.stderr
