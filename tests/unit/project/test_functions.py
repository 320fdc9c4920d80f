"""A function is read on one screen; how many ways lead through it is held by ruff (C901)."""

from __future__ import annotations

import ast

from places import ROOT

MOST_LINES = 60


def test_no_function_is_longer_than_a_screen() -> None:
    """Its docstring aside, which says what need not be read further down."""
    lines: dict[str, int] = {}
    for path in (ROOT / "rose_easyedit").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef):
                end = node.end_lineno or 0
                explained = 0
                if ast.get_docstring(node):
                    explained = (node.body[0].end_lineno or 0) - node.body[0].lineno + 1
                name = f"{path.relative_to(ROOT)}: {node.name}"
                lines[name] = max(lines.get(name, 0), end - node.lineno + 1 - explained)
    assert len(lines) > 800
    assert {name: n for name, n in lines.items() if n > MOST_LINES} == {}
