"""The package's names come in when they are used, and easyeditor as it is found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import rose_easyedit


def run(code: str, folder: Path) -> str:
    """What code prints in a fresh interpreter that finds modules in the folder first."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def write(folder: Path, **modules: str) -> None:
    """An `easyeditor` package; `util__device` is the module `util.device`."""
    for name, code in {"__init__": "from .editor import BaseEditor\n", **modules}.items():
        path = (
            folder / "easyeditor" / f"{name if name == '__init__' else name.replace('__', '/')}.py"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)


def test_importing_the_package_imports_nothing_heavy(tmp_path: Path) -> None:
    loaded = run("import sys, rose_easyedit; print(*sys.modules, sep='\\n')", tmp_path).split()
    heavy = {"torch", "transformers", "easyeditor", "wandb", "numpy", "omegaconf", "hydra"}
    assert not heavy & set(loaded)


@pytest.mark.parametrize("name", [n for n in rose_easyedit.__all__ if n != "BaseEditor"])
def test_every_public_name_exists(name: str) -> None:
    assert getattr(rose_easyedit, name) is not None
    assert name in dir(rose_easyedit)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'editt'"):
        _ = rose_easyedit.editt  # type: ignore[attr-defined]


def test_without_easyeditor_the_error_says_how_to_install_it(tmp_path: Path) -> None:
    out = run(
        """
import importlib.util, rose_easyedit
from rose_easyedit.errors import RoSEError
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name == "easyeditor" else find_spec(name, *a)
try:
    rose_easyedit.BaseEditor
except RoSEError as error:
    print(error)
""",
        tmp_path,
    )
    assert "pip install --no-deps easyeditor==0.0.1.dev0" in out and "PYTHONPATH" in out


def test_stand_ins_do_at_import_and_speak_up_when_used(tmp_path: Path) -> None:
    write(
        tmp_path,
        editor="""
import absent.deep as deep
import absent.other
from absent import Model, register
from absent.names import *
from typing import Optional

class Child(Model):
    pass

@register("x")
def function():
    return "kept"

@register
def plain():
    return "kept"

for _ in Model.registry:
    pass

annotation = Optional[Model] | None
union = Model | None
item = Model["key"]
is_one = isinstance(1, Model)

class BaseEditor:
    pass
""",
    )
    out = run(
        """
from rose_easyedit.easyedit.importing import import_easyeditor
editor = import_easyeditor().editor
print(editor.plain(), editor.function(), editor.is_one)
uses = editor.Child, editor.deep.run, editor.absent.other.run, lambda: [*editor.item]
for use in uses:
    try:
        use()
    except ImportError as error:
        print(error)
import sys
print([name for name in sys.modules if name.startswith("absent")])
try:
    import absent
except ModuleNotFoundError:
    print("absent for others")
""",
        tmp_path,
    ).splitlines()
    assert out[0] == "kept kept False"
    assert out[1].startswith("easyeditor needs absent.Model for this: ModuleNotFoundError")
    assert out[2].startswith("easyeditor needs absent.deep.run for this")
    assert out[3].startswith("easyeditor needs absent.other.run for this")
    assert out[4].startswith("easyeditor needs absent.Model for this")
    assert out[5:] == ["[]", "absent for others"]


def test_faults_of_easyeditor_itself_and_of_torch_are_not_hidden(tmp_path: Path) -> None:
    out = ""
    for line in ("from .nothing_here import x", "import torch.nothing_here"):
        write(tmp_path, editor=line)
        out += run(
            """
import sys
from rose_easyedit.easyedit.importing import import_easyeditor
try:
    import_easyeditor()
except ModuleNotFoundError as error:
    print(error)
assert not [name for name in sys.modules if name.startswith("easyeditor")]
""",
            tmp_path,
        )
    assert out.splitlines() == [
        "No module named 'easyeditor.nothing_here'",
        "No module named 'torch.nothing_here'",
    ]


@pytest.mark.parametrize("has_device_module", [False, True])
def test_the_device_is_honoured_without_touching_bytecode(
    tmp_path: Path, has_device_module: bool
) -> None:
    write(
        tmp_path,
        editor="""
class BaseEditor:
    def place(self, device):
        return f"cuda:{device}", f'cuda:{device}', f"{device}", f"cuda:{device}!"
""",
        **({"util__device": ""} if has_device_module else {}),
    )
    code = "print([e().place(d)[0] for d in (0, '1', 'cpu', 'cuda:2')], e().place('x')[1:])"
    ours = run(
        "from rose_easyedit.easyedit.importing import import_easyeditor as i; "
        f"e = i().BaseEditor; {code}",
        tmp_path,
    ).strip()
    compiled = list((tmp_path / "easyeditor").rglob("*.pyc"))
    plain = run(f"from easyeditor import BaseEditor as e; {code}", tmp_path).strip()
    unchanged = "['cuda:0', 'cuda:1', 'cuda:cpu', 'cuda:cuda:2'] ('cuda:x', 'x', 'cuda:x!')"
    assert plain == unchanged
    if has_device_module:
        assert ours == unchanged
    else:
        assert ours == "['cuda:0', 'cuda:1', 'cpu', 'cuda:2'] ('x', 'x', 'cuda:x!')"
        assert not compiled


def test_what_a_failed_plain_import_left_behind_is_imported_again(tmp_path: Path) -> None:
    write(
        tmp_path,
        place='def place(device):\n    return f"cuda:{device}"\n',
        editor="from .place import place\nimport absent\n\nclass BaseEditor:\n    pass\n",
    )
    out = run(
        """
try:
    import easyeditor
except ModuleNotFoundError as error:
    print(error)
from rose_easyedit.easyedit.importing import import_easyeditor
print(import_easyeditor().editor.place("cpu"))
""",
        tmp_path,
    )
    assert out.splitlines() == ["No module named 'absent'", "cpu"]


def test_an_intrusive_import_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    write(
        tmp_path,
        editor="""
import logging, os, random, sys, warnings
import numpy, torch
os.environ.update(KEPT="changed", NEW="set")
del os.environ["REMOVED"]
os.chdir("easyeditor")
sys.path.append("elsewhere")
warnings.simplefilter("error")
logging.basicConfig(level=logging.DEBUG)
random.seed(42), numpy.random.seed(42), torch.manual_seed(42)

class BaseEditor:
    pass
""",
    )
    run(
        """
import builtins, logging, os, random, sys, warnings
import numpy, torch
os.environ.update(KEPT="as it was", REMOVED="not really")

def state():
    root = logging.getLogger()
    return {
        "random": random.getstate(), "numpy": numpy.random.get_state()[1].tolist(),
        "torch": torch.get_rng_state().tolist(), "seed": torch.initial_seed(),
        "level": root.level, "handlers": list(root.handlers), "environment": dict(os.environ),
        "directory": os.getcwd(), "path": list(sys.path), "finders": list(sys.meta_path),
        "import": builtins.__import__, "filters": list(warnings.filters),
    }

from rose_easyedit.easyedit.importing import import_easyeditor
before = state()
import_easyeditor()
now = state()
assert now == before, [name for name in now if now[name] != before[name]]
""",
        tmp_path,
    )
