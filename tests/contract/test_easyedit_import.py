"""Importing the real easyeditor changes nothing else; each test has an interpreter of its own."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.contract,
    pytest.mark.skipif(
        importlib.util.find_spec("easyeditor") is None,
        reason="easyeditor is not installed (pip install --no-deps easyeditor==0.0.1.dev0)",
    ),
]

STATE = """
import builtins, logging, os, random, sys, warnings
import numpy, torch, transformers

def finders():
    # six and the packages that carry a copy of it (botocore) add one of their own, once and for all
    return [f for f in sys.meta_path if type(f).__name__ != "_SixMetaPathImporter"]

def state():
    root = logging.getLogger()
    return (
        random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist(),
        torch.initial_seed(), root.level, list(root.handlers), dict(os.environ), os.getcwd(),
        os.listdir(), list(sys.path), finders(), builtins.__import__,
        list(warnings.filters),
    )

def import_and_compare():
    from rose_easyedit.easyedit.importing import import_easyeditor
    before = state()
    package = import_easyeditor()
    for now, then in zip(state(), before, strict=True):
        assert now == then, (now, then)
    return package
"""


def run(code: str, folder: Path) -> None:
    """Runs code in a fresh interpreter with an empty working directory."""
    done = subprocess.run(
        [sys.executable, "-W", "error::SyntaxWarning", "-c", STATE + code],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_process_is_left_as_it_was(tmp_path: Path) -> None:
    run(
        """
random.seed(1), numpy.random.seed(2), torch.manual_seed(3)
package = import_and_compare()
from easyeditor import BaseEditor
assert package.BaseEditor is BaseEditor
""",
        tmp_path,
    )


def test_missing_packages_are_missing_for_everybody_else(tmp_path: Path) -> None:
    run(
        """
import importlib.util
sys.modules["higher"] = None  # missing, whatever is installed here
before = set(sys.modules)
import_and_compare()
for name in set(sys.modules) - before:
    assert isinstance(sys.modules[name], type(sys)), name
del sys.modules["higher"]
assert "higher" not in {name.partition(".")[0] for name in sys.modules}
""",
        tmp_path,
    )


def test_a_failed_plain_import_is_recovered_from(tmp_path: Path) -> None:
    run(
        """
sys.modules["higher"] = None
try:
    from easyeditor import BaseEditor
except ImportError:
    pass
else:
    raise AssertionError("the plain import did not fail")
assert any(name.startswith("easyeditor.") for name in sys.modules), "nothing to recover from"
import_and_compare()
from easyeditor import BaseEditor
from rose_easyedit import BaseEditor as ours
assert issubclass(ours, BaseEditor)
""",
        tmp_path,
    )


def test_easyeditor_logs_without_turning_everybodys_logging_on(tmp_path: Path) -> None:
    run(
        """
import_and_compare()
assert logging.getLogger("easyeditor.editors.editor").isEnabledFor(logging.INFO)
assert not logging.getLogger("another.package").isEnabledFor(logging.INFO)
""",
        tmp_path,
    )
