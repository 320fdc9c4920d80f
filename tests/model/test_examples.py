"""What the examples and the pages of the documentation tell a reader to run, does run."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from doc_blocks import DOCS, ROOT, RUN, blocks_of, read_page

from rose_easyedit.models.architectures import ARCHITECTURES

pytestmark = [
    pytest.mark.model,
    # the examples run beside the real EasyEdit and Jupyter, whose warnings are not ours to mend
    pytest.mark.filterwarnings("ignore"),
]

NAMES = sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))
EDIT = "edit.safetensors"  # what the quick start leaves behind
# About a minute each, of commands that faster tests cover; the others take seconds.
SLOW = {
    "artefacts.md",
    "easyedit.md",
    "evaluating.md",
    "geometry.md",
    "memory.md",
    "sweeps.md",
    "tutorial.md",
}
PAGES = [
    pytest.param(name, marks=pytest.mark.slow if name in SLOW else ())
    for name in NAMES
    if any(block.language in RUN and block.reason is None for block in blocks_of(name))
]


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder where examples/quickstart.py was run, and what it printed."""
    folder = tmp_path_factory.mktemp("quickstart")
    command = [sys.executable, str(ROOT / "examples" / "quickstart.py")]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder like a reader's clone; what a page registers or opens there is undone."""
    shutil.copytree(ROOT / "hparams", tmp_path / "hparams")
    monkeypatch.chdir(tmp_path)
    known = dict(ARCHITECTURES)
    yield tmp_path
    ARCHITECTURES.clear()
    ARCHITECTURES.update(known)
    logger = logging.getLogger("easyeditor.editors.editor")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()


def test_the_script(quickstart: tuple[Path, str]) -> None:
    folder, printed = quickstart
    after = [line for line in printed.splitlines() if line.startswith("  after:")]
    named = [
        word in answer for word, answer in zip(("Madrid", "Arabic", "dollar"), after, strict=False)
    ]
    assert sum(named) >= 2, printed
    assert "Asia" in after[-2] and "Berlin" in after[-1]
    assert "From disk, the same answers: True" in printed
    assert "Reverted, the old answers: True" in printed
    assert [path.name for path in folder.iterdir()] == [EDIT]


def test_what_the_notebook_imports_is_there() -> None:
    notebook = json.loads((ROOT / "examples" / "quickstart.ipynb").read_text(encoding="utf-8"))
    code = "".join(
        "".join(c["source"]) + "\n" for c in notebook["cells"] if c["cell_type"] == "code"
    )
    imports = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ImportFrom)]
    ours = [node for node in imports if str(node.module).startswith("rose_easyedit")]
    assert ours
    for node in ours:
        module = importlib.import_module(str(node.module))
        assert [name.name for name in node.names if not hasattr(module, name.name)] == []


@pytest.mark.slow
def test_the_notebook(tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.read(ROOT / "examples" / "quickstart.ipynb", as_version=4)
    assert [cell for cell in notebook.cells if cell.get("outputs")] == []
    client = nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    printed = "".join(
        out.get("text", "") for cell in notebook.cells for out in cell.get("outputs", ())
    )
    assert printed.count("after:") == 5
    assert "nats per token" in printed
    assert (tmp_path / EDIT).is_file()


@pytest.mark.parametrize("name", PAGES)
def test_the_blocks_of_a_page(name: str, workplace: Path, request: pytest.FixtureRequest) -> None:
    if name == "easyedit.md" and importlib.util.find_spec("easyeditor") is None:
        pytest.skip("easyeditor is not installed (pip install --no-deps easyeditor==0.0.1.dev0)")
    page = read_page(name)
    if EDIT in page and f"--out {EDIT}" not in page:
        shutil.copy(request.getfixturevalue("quickstart")[0] / EDIT, workplace)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks_of(name):
        if block.title and block.language not in RUN:
            (workplace / block.title).write_text(block.code, encoding="utf-8")
        if block.reason is None and block.language == "python":
            exec(compile(block.code, f"docs/{name}", "exec"), namespace)
        if block.reason is None and block.language == "sh":
            run_in_shell(block.code)


def run_in_shell(code: str) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    done = subprocess.run(
        ["bash", "-euc", code], env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"


def test_only_few_blocks_are_not_run() -> None:
    """A block that is not run says why; commands for a reader's own files are plain text."""
    found = {name: blocks_of(name) for name in NAMES}
    for name, blocks in found.items():
        fences = read_page(name).count("\n```")
        assert fences == 2 * len(blocks), name  # none is written in a way that is overlooked
    left_out = [block for blocks in found.values() for block in blocks if block.reason]
    assert {block.language for block in left_out} <= set(RUN)
    assert len(left_out) <= 4
