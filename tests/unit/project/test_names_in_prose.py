"""What comments, docstrings, messages and pages name exists: files, parameters, functions."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from places import ROOT

PACKAGE = ROOT / "rose_easyedit"
MODULES = {path: ast.parse(path.read_text("utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}
# The changelog speaks of what was, too.
PROSE = sorted(
    path
    for pattern in (
        "*.md", "*.toml", "*.txt", "*.yml", "Makefile", ".ci/run", "tests/README.md",
        "tests/conftest.py", "docs/*.md", "examples/*.py", "benchmarks/*.py", "conf/**/*.yaml",
        "hparams/**/*.yaml", "rose_easyedit/**/*.py", "rose_easyedit/**/*.md",
    )
    for path in ROOT.glob(pattern)
    if path.name != "CHANGELOG.md"
)  # fmt: skip
FOLDERS = ("rose_easyedit", "tests", "docs", "benchmarks", "examples", "conf", "hparams")

A_FILE = re.compile(r"(?<![\w/.$<>{}*-])((?:[\w.-]+/)*[\w-]+\.(?:py|md|yaml|json|ipynb|toml))\b")
NOT_OURS = {
    "convert_lora_to_gguf.py": "llama.cpp has it",
    "device.py": "EasyEdit has it",
    "hparams/AlphaEdit/Llama3-8B.json": "AlphaEdit has it",
    "hparams/MEMIT/gpt-j-6B.yaml": "EasyEdit has it",
    "hparams/MEMIT/gpt2-xl.yaml": "EasyEdit has it",
    "hparams/MEMIT/gpt2-xl.json": "MEMIT has it",
    "hparams/MEMIT/llama-7b.yaml": "EasyEdit has it",
    "hparams/MEMIT/mistral-7b.yaml": "EasyEdit has it",
    "hparams/RoSE/falcon-7b-instruct.yaml": "the page has the reader write it",
    "hparams/mine.yaml": "the page has the reader write it",
}


def test_files_that_are_named_exist() -> None:
    """Python files, and whatever is named with one of the repository's folders before it."""
    there = [*ROOT.glob("*.*"), *(path for name in FOLDERS for path in (ROOT / name).rglob("*.*"))]
    files = [f"/{path.relative_to(ROOT).as_posix()}" for path in there]
    named = {
        (name, path.relative_to(ROOT).as_posix())
        for path in PROSE
        for name in A_FILE.findall(path.read_text("utf-8"))
        if name.endswith(".py") or name.split("/")[0] in FOLDERS
    }
    assert len(named) > 50
    absent = {
        (name, path) for name, path in named if not any(f.endswith(f"/{name}") for f in files)
    }
    assert {(name, path) for name, path in absent if name not in NOT_OURS} == set()
    assert {name for name, _ in absent} == set(NOT_OURS)


def sections(node: ast.ClassDef | ast.FunctionDef) -> dict[str, set[str]]:
    """The names that each section of a docstring in Google style explains."""
    found: dict[str, set[str]] = {}
    section = ""
    for line in (ast.get_docstring(node) or "").splitlines():
        if heading := re.fullmatch(r"(\w+):", line):
            section = heading[1]
        elif entry := re.match(r"    (\*{0,2}\w+(?:, \w+)*):(?: |$)", line):
            found.setdefault(section, set()).update(re.findall(r"\w+", entry[1]))
    return found


def parameters(function: ast.FunctionDef) -> set[str]:
    given = function.args
    rest = [argument for argument in (given.vararg, given.kwarg) if argument]
    return {a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs, *rest)}


def attributes(node: ast.ClassDef) -> set[str]:
    """Fields, methods, and what the methods set."""
    inner = list(ast.walk(node))
    return {
        *(n.name for n in inner if isinstance(n, ast.FunctionDef)),
        *(n.attr for n in inner if isinstance(n, ast.Attribute)),
        *(n.id for n in inner if isinstance(n, ast.Name)),
    }


def explained() -> Iterator[tuple[str, set[str], set[str]]]:
    """What a docstring explains, and what is there to explain."""
    for path, tree in MODULES.items():
        for node in ast.walk(tree):
            where = f"{path.relative_to(ROOT)}: {getattr(node, 'name', '')}"
            if isinstance(node, ast.FunctionDef):
                yield where, sections(node).get("Args", set()), parameters(node)
            elif isinstance(node, ast.ClassDef):
                yield where, sections(node).get("Attributes", set()), attributes(node)


def test_docstrings_explain_parameters_and_attributes_that_exist() -> None:
    found = list(explained())
    assert sum(len(names) for _, names, _ in found) > 500
    assert [(where, names - have) for where, names, have in found if names - have] == []


def names_of(module: ast.Module) -> set[str]:
    inner = list(ast.walk(module))
    return {
        *(n.name for n in inner if isinstance(n, ast.FunctionDef | ast.ClassDef)),
        *(n.id for n in inner if isinstance(n, ast.Name)),
        *(n.attr for n in inner if isinstance(n, ast.Attribute)),
        *(n.arg for n in inner if isinstance(n, ast.arg)),
    }


def scopes() -> dict[str, set[str]]:
    """Of each module, by the ends of its dotted path, and each class: the names in it."""
    found: dict[str, set[str]] = {}
    for path, tree in MODULES.items():
        parts, names = path.relative_to(ROOT).with_suffix("").parts, names_of(tree)
        for start in range(len(parts)):
            found.setdefault(".".join(parts[start:]), set()).update(names)
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, set()).update(attributes(node))
    return found


def test_what_is_named_in_a_module_or_a_class_is_there() -> None:
    """`module.function` and `Class.method` in backticks."""
    within, absent, seen = scopes(), [], 0
    for path in PROSE:
        for scope, name, called in re.findall(
            r"`([\w.]+)\.(\w+)(\([^`]*\))?`", path.read_text("utf-8")
        ):
            if scope not in within or (not called and _is_file(f"{scope}.{name}")):
                continue
            seen += 1
            if name not in within[scope]:
                absent.append((path.relative_to(ROOT).as_posix(), f"{scope}.{name}"))
    assert seen > 30
    assert absent == []


def _is_file(name: str) -> bool:
    return Path(name).suffix in {
        ".csv", ".html", ".json", ".jsonl", ".log", ".md", ".png", ".py", ".safetensors", ".svg",
        ".txt",
    }  # fmt: skip
