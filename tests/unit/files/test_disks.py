"""A disk that is full: each writer says so in words, and leaves what was there and nothing else."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from results import RESULT
from small_disks import Disk, small_disk
from sweeps import write_sweep
from tiny_edits import make_delta
from tiny_gguf import write_gguf
from tiny_models import build_model, same_weights, weights_of

from rose_easyedit.cache.entries import Cache, CacheEntry
from rose_easyedit.cli.main import FAILED, main
from rose_easyedit.config.hparams import RoSEHyperParams
from rose_easyedit.errors import DiskError, RoSEError
from rose_easyedit.evaluation.report import write_report
from rose_easyedit.experiment.job_list import Job, write_list
from rose_easyedit.experiment.report import main as report_main
from rose_easyedit.experiment.report import write_sweep_report
from rose_easyedit.experiment.status import RUNNING, Status
from rose_easyedit.experiment.summary_table import read_rows, write_summary
from rose_easyedit.export.save import save_gguf_lora, save_merged, save_peft_lora
from rose_easyedit.figures.pareto import write_pareto
from rose_easyedit.files.plain import plain
from rose_easyedit.memory.store import FactStore
from rose_easyedit.method.stage1.shifts import Shifts
from rose_easyedit.method.stage1.store import ShiftStore
from rose_easyedit.models.embedded import PACKAGED, packaged_model
from rose_easyedit.models.gguf_file import gguf_model
from rose_easyedit.requests import EditRequest
from rose_easyedit.tracking.jsonl import JsonlTracker
from rose_easyedit.tracking.wandb_run import RunInfo, TrackingSettings

SIZES = 14  # of a disk, from nothing to almost enough
Write = Callable[[Path], object]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    with small_disk(folder) as disk:
        yield disk


def empty(disk: Disk) -> None:
    for path in disk.folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def spaces(whole: dict[str, bytes], sizes: int = SIZES) -> list[int]:
    """Numbers of bytes, none of them enough for the largest of some files."""
    most = max(map(len, whole.values()))
    return sorted({most * i // sizes for i in range(sizes)})


def check(disk: Disk, write: Write, *, each: bool = False, sizes: int = SIZES) -> None:
    """A writer on ever larger disks, all of them too small; with `each`, of files for themselves.

    Such files may be there without each other.
    """
    empty(disk)
    write(disk.folder)
    whole = disk.content()
    for space in spaces(whole, sizes):
        empty(disk)
        with disk.with_space(space), pytest.raises(RoSEError) as caught:
            write(disk.folder)
        assert isinstance(caught.value, DiskError), space
        text = str(caught.value)
        assert "No space left" in text or "File too large" in text or "disk" in text, text
        left = disk.content()
        assert left.items() <= (whole.items() if each else set()), (space, left.keys())
    empty(disk)
    write(disk.folder)
    assert disk.content() == whole


@pytest.mark.parametrize("how", ["save", "lora", "gguf", "merged"])
def test_an_edit_that_leaves(how: str, disk: Disk, tiny_tokenizer: Any) -> None:
    model = build_model("llama-tied")
    delta, weights = make_delta(model), weights_of(model)
    writers: dict[str, Write] = {
        "save": lambda folder: delta.save(folder / "edit"),
        "lora": lambda folder: save_peft_lora(delta, folder / "lora"),
        "gguf": lambda folder: save_gguf_lora(delta, folder / "edit.gguf"),
        "merged": lambda folder: save_merged(delta, model, tiny_tokenizer, folder / "merged"),
    }
    check(disk, writers[how])
    assert same_weights(model, weights) and not delta.is_applied(model)


def test_the_tokenizer_of_an_edited_model(disk: Disk, tiny_tokenizer: Any) -> None:
    """Its library has errors of no kind: the model is there, and the tokenizer has no space."""
    model = build_model("llama-tied")
    delta = make_delta(model)
    words = tiny_tokenizer.save_pretrained

    class AfterTheModel:
        def save_pretrained(self, folder: Path) -> None:
            with disk.with_space(2_000):
                words(folder)

    with pytest.raises(DiskError, match="merged' cannot be written"):
        save_merged(delta, model, AfterTheModel(), disk.folder / "merged")
    assert disk.content() == {}


def test_a_model_that_is_expanded(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_tokenizer: Any
) -> None:
    monkeypatch.setenv("ROSE_EASYEDIT_CACHE", str(disk.folder))
    source = write_gguf(tmp_path / "tiny.gguf", build_model("llama-untied"), tiny_tokenizer)

    gguf_model(source)
    whole = disk.content()
    for space in spaces(whole, sizes=6):
        empty(disk)
        with disk.with_space(space), pytest.raises(DiskError, match="set ROSE_EASYEDIT_CACHE"):
            gguf_model(source)
        assert {name for name in disk.content() if not name.endswith(".lock")} == set()
    gguf_model(source)
    assert disk.content() == whole


@pytest.mark.model
def test_the_embedded_model(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    assert PACKAGED["embedded"].megabytes << 20 > 4 << 20
    monkeypatch.setenv("ROSE_EASYEDIT_CACHE", str(disk.folder))
    with disk.with_space(1 << 20), pytest.raises(DiskError, match="600 MB free"):
        packaged_model("embedded")
    assert {name for name in disk.content() if not name.endswith(".lock")} == set()


def test_figures(disk: Disk) -> None:
    pytest.importorskip("matplotlib")
    check(disk, lambda folder: write_pareto({"runs": [(0.5, 0.1)]}, folder / "figures"), each=True)


def test_the_report_of_an_evaluation(disk: Disk) -> None:
    report = plain({"title": "a", "model": "b", "notes": [], "lm_eval": None, **RESULT.as_dict()})
    check(disk, lambda folder: write_report(folder / "report", report), each=True)


def test_the_files_of_a_sweep(disk: Disk) -> None:
    status = Status("a", RUNNING, overrides=["a=b" * 3_000])
    check(disk, lambda folder: status.write(folder / "a"))
    check(disk, lambda folder: write_list(folder, [Job(0, "a", ["a=b" * 3_000])]))


def test_what_a_sweep_is_summed_up_in(disk: Disk, tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "sweep")
    rows = read_rows(sweep)
    check(disk, lambda folder: write_summary(folder, rows), each=True)
    check(disk, lambda folder: write_sweep_report(sweep, folder / "page.html"))


def test_events_of_a_run_are_whole_lines(disk: Disk) -> None:
    tracker = JsonlTracker(TrackingSettings())
    tracker.start(RunInfo("a", "a", "g", "rose", (), "", disk.folder, {}))
    before = disk.content()
    values = {f"number-{i}": 1.0 for i in range(2_000)}
    for space in range(0, 20_000, 2_048):
        size = len(next(iter(before.values())))
        with disk.with_space(space + (0 if disk.is_mounted else size)), pytest.raises(DiskError):
            tracker.log(values, axis="step", step=1)
        assert disk.content() == before
    tracker.log(values, axis="step", step=1)


def test_a_memory_is_begun_and_written_whole_or_not_at_all(disk: Disk) -> None:
    settings = RoSEHyperParams(layers=[1]).as_dict()
    fact = EditRequest("a b", "a", "c" * 30_000)
    for space in range(0, 24_576, 4_096):
        with disk.with_space(space), pytest.raises(DiskError, match="free some space"):
            FactStore(disk.folder / "facts.db", settings)
        assert set(disk.content().values()) <= {b""}
    store = FactStore(disk.folder / "facts.db", settings)
    size = len(disk.content()["facts.db"])
    for space in range(0, 24_576, 4_096):
        limit = space + (0 if disk.is_mounted else size)
        with disk.with_space(limit), pytest.raises(DiskError, match="free some space"):
            store.put([fact])
        assert store.entries() == [] and store.history() == []
    store.put([fact])
    assert len(store.entries()) == 1


CACHES: dict[str, Write] = {
    "shifts": lambda folder: ShiftStore(folder).save(
        "a", Shifts(torch.zeros(3, 4_000), [[0.1]] * 3, [1] * 3)
    ),
    "entries": lambda folder: Cache(folder).write(
        "a", CacheEntry({"a": torch.ones(64, 64)}, list(range(3_000))), rows=8
    ),
}


@pytest.mark.parametrize("name", CACHES)
def test_what_is_not_kept_is_told_and_the_work_goes_on(
    name: str, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    CACHES[name](disk.folder)
    for space in spaces(disk.content()):
        empty(disk)
        caplog.clear()
        with disk.with_space(space):
            CACHES[name](disk.folder)
        assert "not kept" in caplog.text and "cannot be written" in caplog.text
        assert disk.content() == {}


def test_the_command_fails_and_is_not_told_that_its_words_were_wrong(
    disk: Disk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_delta(build_model("llama-tied")).save(tmp_path / "edit")
    sweep = write_sweep(tmp_path / "sweep")
    with disk.with_space(0):
        assert main(["export", "--delta", str(path), "--lora", str(disk.folder / "out")]) == FAILED
        assert report_main([str(sweep), "--out", str(disk.folder / "page.html")]) == FAILED
    first, second = capsys.readouterr().err.splitlines()
    for line in (first, second):
        assert "cannot be written" in line and "free some space" in line


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "free some space"),
        (errno.EROFS, "may be written"),
        (errno.EIO, "another place"),
    ],
)
def test_an_error_of_a_disk_says_what_to_do(
    number: int, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(DiskError, match=advice) as caught:
        make_delta(build_model("llama-tied")).save(tmp_path / "edit")
    assert caught.value.errno == number and os.strerror(number) in str(caught.value)
