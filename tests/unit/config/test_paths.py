"""Where the cache goes, and that the shipped folders are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from rose_easyedit.config import paths
from rose_easyedit.errors import RoSEError


def test_the_cache_folder_can_be_named_outright(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROSE_EASYEDIT_CACHE", "/somewhere/else")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert paths.cache_dir() == Path("/somewhere/else")


def test_the_cache_folder_honours_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROSE_EASYEDIT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert paths.cache_dir() == Path("/xdg/rose-easyedit")


def test_the_cache_folder_is_in_the_home_folder_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROSE_EASYEDIT_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/reader")
    assert paths.cache_dir() == Path("/home/reader/.cache/rose-easyedit")


def _layout(monkeypatch: pytest.MonkeyPatch, package: Path) -> None:
    monkeypatch.setattr(paths, "__file__", str(package / "config" / "paths.py"))


def test_a_folder_inside_the_package_comes_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _layout(monkeypatch, tmp_path / "package")
    (tmp_path / "hparams").mkdir()
    assert paths.hparams_dir() == tmp_path / "hparams"
    (tmp_path / "package" / "hparams").mkdir(parents=True)
    assert paths.hparams_dir() == tmp_path / "package" / "hparams"


def test_an_installation_without_the_folder_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _layout(monkeypatch, tmp_path / "package")
    with pytest.raises(RoSEError, match="install the package again"):
        paths.conf_dir()


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROSE_EASYEDIT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "~nobody-of-this-name/cache")
    with pytest.raises(RoSEError, match="no home folder .*; set ROSE_EASYEDIT_CACHE"):
        paths.cache_dir()
