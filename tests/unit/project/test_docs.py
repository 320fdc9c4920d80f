"""The documentation builds strictly, asks nothing of other hosts, and has every public name."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from places import ROOT

import rose_easyedit
from rose_easyedit.evaluation.facts import load_facts


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for package in ("material", "mkdocstrings"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed (pip install 'rose-easyedit[docs]')")
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


class Assets(HTMLParser):
    """What a browser fetches by itself when it shows a page, but not where its links lead."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = ("href",) if tag == "link" else ("src", "srcset", "poster", "data")
        self.found += [value for name, value in attrs if name in names and value]


def test_no_page_fetches_anything_from_another_host(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 10
    for page in pages:
        assets = Assets()
        assets.feed(page.read_text(encoding="utf-8"))
        assert assets.found
        outside = [url for url in assets.found if re.match(r"(\w+:)?//", url)]
        assert outside == [], page.name
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(\w+:)?//", sheet.read_text()), sheet.name


def test_every_public_name_is_on_the_api_page(site: Path) -> None:
    page = (site / "api.html").read_text(encoding="utf-8")
    public = set(rose_easyedit.__all__) - {"__version__"}
    assert {name for name in public if f'id="rose_easyedit.{name}"' not in page} == set()


def test_what_is_included_is_there(site: Path) -> None:
    """Tables come from benchmarks/RESULTS.md, the script from examples/."""
    assert "QUESTIONS" in (site / "tutorial.html").read_text(encoding="utf-8")
    assert "no generic subjects" in (site / "benchmarks/RESULTS.html").read_text(encoding="utf-8")
    for page in site.rglob("*.html"):
        assert "--8&lt;--" not in page.read_text(encoding="utf-8"), page.name


def test_the_figures_are_of_the_facts_of_the_demo() -> None:
    lines = (ROOT / "docs/figures/facts.jsonl").read_text(encoding="utf-8").splitlines()
    drawn = [(r["subject"], r["prompt"], r["target_new"]) for r in map(json.loads, lines)]
    assert drawn == [(f.subject, f.prompt, f.target_new) for f in load_facts(demo=True)]


def test_the_readme_is_short_and_its_links_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text) <= 9_000
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert links and all((ROOT / link).exists() for link in links)
