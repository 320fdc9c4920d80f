"""Every package that an installation brings has a licence that goes with the package's own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution

import pytest
from packaging.requirements import Requirement
from places import ROOT

# As SPDX names them, and as older metadata does. MPL-2.0 binds changes to the files under it alone.
ALLOWED = {
    "0BSD",
    "Apache",
    "Apache 2.0 License",
    "Apache License, Version 2.0",
    "Apache Software License",
    "Apache-2.0",
    "BSD",
    "3-Clause BSD License",
    "BSD License",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CNRI-Python",
    "ISC License (ISCL)",
    "LLVM-exception",
    "MIT",
    "MIT License",
    "MPL-2.0",
    "Mozilla Public License 2.0 (MPL 2.0)",
    "PSF-2.0",
    "Python Software Foundation License",
    "Zlib",
}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def installed() -> dict[str, Distribution]:
    """All that the package requires without an extra, and what that requires."""
    found: dict[str, Distribution] = {}
    waiting = [Requirement("rose-easyedit")]
    while waiting:
        wanted = waiting.pop()
        name = canonical(wanted.name)
        # the libraries of a CUDA build of torch, which come under NVIDIA's own terms
        if name in found or name.startswith(("nvidia-", "cuda-")):
            continue
        try:
            found[name] = distribution(wanted.name)
        except PackageNotFoundError:
            pytest.fail(f"{name} is required and not installed")
        for line in found[name].requires or []:
            inner = Requirement(line)
            extras = ("", *wanted.extras)
            if inner.marker is None or any(inner.marker.evaluate({"extra": e}) for e in extras):
                waiting.append(inner)
    del found["rose-easyedit"]
    return found


def licences(package: Distribution) -> Iterator[str]:
    """What a package says of its licence, the most exact of it."""
    metadata = package.metadata
    if expression := metadata.get("License-Expression"):
        yield from re.split(r" AND | OR | WITH |[()]", expression)
        return
    classifiers = [c for c in metadata.get_all("Classifier") or [] if c.startswith("License ::")]
    if classifiers:
        yield from (classifier.rsplit(" :: ", 1)[1] for classifier in classifiers)
        return
    yield from re.split(r" AND | OR ", metadata.get("License") or "none")


def test_every_requirement_may_be_used_beside_ours() -> None:
    packages = installed()
    assert {"torch", "transformers", "safetensors", "tqdm"} <= packages.keys()
    others = {
        name: licence
        for name, package in packages.items()
        for licence in map(str.strip, licences(package))
        if licence and licence not in ALLOWED
    }
    assert others == {}


def test_the_page_lists_all_that_is_pinned() -> None:
    page = (ROOT / "docs" / "trust.md").read_text().split("## Licences", 1)[1]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {canonical(line.split("==")[0]) for line in lines if "==" in line}
    wanted = installed().keys() & pinned
    assert len(wanted) > 30
    assert wanted - set(re.findall(r"`([a-z0-9-]+)`", page)) == set()
