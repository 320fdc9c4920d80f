"""What a file could make the package allocate or wait for is bounded before it begins."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from sweeps import write_sweep

from rose_easyedit.config.hparams import RoSEHyperParams
from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.edits.factors import Factors, common_rank
from rose_easyedit.errors import RoSEError
from rose_easyedit.experiment.report import write_sweep_report
from rose_easyedit.export.model_card import load_result
from rose_easyedit.export.save import save_gguf_lora, save_peft_lora
from rose_easyedit.files.records import read_rows
from rose_easyedit.memory.store import FactStore
from rose_easyedit.requests import load_requests

DOWN = "model.layers.{}.mlp.down_proj.weight"


@contextmanager
def address_space(gigabytes: int) -> Iterator[None]:
    """Memory that is asked for beyond a bound is not given."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + (gigabytes << 30), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.fixture
def lopsided() -> EditDelta:
    """An edit of 4 MB, which would be one of 200 GB if all its weights had one rank."""
    layers = {
        DOWN.format(0): Factors(torch.ones(2, 100_000), torch.ones(100_000, 2)),
        DOWN.format(1): Factors(torch.ones(500_000, 1), torch.ones(1, 10)),
    }
    return EditDelta(layers, "0" * 64, {"architecture": "llama"})


@pytest.mark.parametrize("form", ["lora", "gguf"])
def test_ranks_far_apart_are_not_padded(form: str, lopsided: EditDelta, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export = {"lora": save_peft_lora, "gguf": save_gguf_lora}[form]
    with address_space(8), pytest.raises(RoSEError, match=r"from 1 to 100,000.*200 GB"):
        export(lopsided, out)
    assert list(tmp_path.iterdir()) == []


def test_ranks_that_differ_are(lopsided: EditDelta) -> None:
    few = {str(rank): Factors(torch.ones(8, rank), torch.ones(rank, 9)) for rank in (1, 7, 3)}
    assert common_rank(few) == 7


def without_end(path: Path, kind: str) -> Path:
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "endless":
        path.symlink_to("/dev/zero")
    else:
        path.touch()
        os.truncate(path, 80 << 30)  # sparse
    return path


@pytest.mark.parametrize("kind", ["pipe", "endless", "huge"])
def test_every_reader_is_bounded(kind: str, tmp_path: Path) -> None:
    path = without_end(tmp_path / "file.json", kind)
    readers: list[Any] = [
        EditDelta.load,
        load_requests,
        lambda path: read_rows(path, "data file"),
        RoSEHyperParams.from_hparams,
        lambda path: load_result(path, EditDelta({}, "", {})),
    ]
    if kind != "huge":  # which SQLite reads page by page
        readers.append(FactStore)
    for read in readers:
        with address_space(16), pytest.raises(RoSEError) as caught:
            read(path)
        assert len(str(caught.value)) < 2_000


FILES = [
    "summary.json",
    ".jobs/0.json",
    "runs/r0/status.json",
    "runs/r0/config.yaml",
    "runs/r0/result.json",
    "runs/r0/metrics.jsonl",
    "runs/r0/figures/radius.png",
]


@pytest.mark.parametrize("kind", ["pipe", "endless"])
@pytest.mark.parametrize("name", FILES)
def test_a_file_of_a_sweep_without_end_is_not_read(name: str, kind: str, tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "sweep")
    without_end(sweep / name, kind)
    try:
        assert write_sweep_report(sweep).stat().st_size < 10_000_000
    except RoSEError as error:
        assert ".jobs" in name or "cannot be read" in str(error)
