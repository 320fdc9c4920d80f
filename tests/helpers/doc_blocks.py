"""The code blocks of the documentation, as a reader finds them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
RUN = ("python", "sh")

_SNIPPET = re.compile(r'^--8<-- "(?P<file>[^":]+)(:(?P<section>[\w-]+))?"$', re.MULTILINE)
_BLOCK = re.compile(
    r"^(<!-- not run: (?P<reason>[^\n]+) -->\n)?"
    r'^```(?P<language>\w+)( title="(?P<title>[^"]+)")?\n(?P<code>.*?)^```$',
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block; `reason` says why it cannot be run, `title` which file it shows."""

    language: str
    code: str
    title: str | None
    reason: str | None


def read_page(name: str) -> str:
    """The text of a page of docs/ with what it includes."""
    return _SNIPPET.sub(_included, (DOCS / name).read_text(encoding="utf-8"))


def blocks_of(name: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    return [
        Block(found["language"], found["code"], found["title"], found["reason"])
        for found in _BLOCK.finditer(read_page(name))
    ]


def _included(found: re.Match[str]) -> str:
    text = (ROOT / found["file"]).read_text(encoding="utf-8")
    if found["section"] is None:
        return text.rstrip("\n")
    _, _, rest = text.partition(f"<!-- --8<-- [start:{found['section']}] -->\n")
    section, end, _ = rest.partition(f"<!-- --8<-- [end:{found['section']}] -->")
    assert end, f"{found['file']} has no section {found['section']}"
    return section.rstrip("\n")
