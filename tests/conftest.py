"""Shared fixtures: a tiny random Llama and a tokenizer built from a few sentences; no network."""

from __future__ import annotations

import os

# before transformers and wandb are imported: no test may ask the network
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "disabled")

from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402
from tiny_llama import build_llama, build_tokenizer  # noqa: E402

# What hypothesis draws is new in each run, and the same under CI, which shall say the same of the
# same commit. How long an example takes says something of the machine alone. Both start from
# hypothesis' defaults: where it finds itself under CI, what is current is a profile of its own.
defaults = settings.get_profile("default")
settings.register_profile("new", defaults, deadline=None)
settings.register_profile("ci", defaults, deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "new")


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    """The tokenizer of the tiny models; put back what you change."""
    return build_tokenizer()


@pytest.fixture
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache in place of the user's, in which tests leave nothing behind."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("ROSE_EASYEDIT_CACHE", str(folder))
    return folder


@pytest.fixture
def tiny_llama() -> Any:
    """A fresh tiny Llama, which the test may edit."""
    return build_llama()


@pytest.fixture(scope="session")
def gemma() -> Any:
    """Gemma 3 270M and its tokenizer, loaded once; leave them as they are."""
    from rose_easyedit.models.embedded import is_installed
    from rose_easyedit.models.loading import load_model

    if not is_installed("gemma-3-270m"):
        pytest.skip("Gemma 3 270M is not installed: `make gemma`")
    return load_model("gemma-3-270m")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny Llama and its tokenizer in Hugging Face's form; do not write to it."""
    folder = tmp_path_factory.mktemp("tiny-llama")
    build_llama().save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder
