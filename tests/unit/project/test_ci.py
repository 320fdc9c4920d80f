"""What continuous integration runs: the README's command, the same for the same commit, a floor."""

from __future__ import annotations

import re
import tomllib

from hypothesis import settings
from places import ROOT

RUN = (ROOT / ".ci/run").read_text("utf-8")


def test_hypothesis_repeats_itself_there() -> None:
    assert settings.get_profile("ci").derandomize
    assert settings.get_profile("ci").deadline is settings.get_profile("new").deadline is None
    assert not settings.get_profile("new").derandomize
    assert "--hypothesis-profile=ci" in RUN


def test_the_floor_of_coverage_is_that_of_all_fast_tests_only() -> None:
    (arguments,) = re.findall(r'^make test ARGS="(.*)"$', RUN, re.MULTILINE)
    assert re.search(r"--cov --cov-report=term --cov-fail-under=\d\d( |$)", arguments)
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]
    assert "fail_under" not in tools["coverage"]["report"]
    assert "--cov" not in tools["pytest"]["ini_options"]["addopts"]
    assert tools["coverage"]["run"] == {"source": ["rose_easyedit"], "branch": True}
