"""Files are read once: what was checked is what is used, whatever becomes of the file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import FACTS, build_model, settings

from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.errors import RoSEError
from rose_easyedit.forward.activations import frozen
from rose_easyedit.method.edit import compute_edit
from rose_easyedit.method.prepared import Prepared
from rose_easyedit.method.stage2.statistics import load_spectra


def overwrite(path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb+") as file:  # in place: what is mapped sees it
        file.seek(size // 2)
        file.write(b"\x3f" * (size - size // 2))


# read by a process of its own, should it be killed
CHANGES: dict[str, Callable[[Path], None]] = {
    "overwritten": overwrite,
    "cut short": lambda path: os.truncate(path, 100),
}


def survives(work: Callable[[], bool]) -> bool:
    """Whether something holds, in a copy of this process; False if it dies of it."""
    child = os.fork()
    if child == 0:
        os._exit(0 if work() else 1)
    return os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("how", CHANGES)
def test_an_edit_is_what_was_read(how: str, tmp_path: Path, tiny_tokenizer: Any) -> None:
    quick = settings(hierarchy={"fact_steps": 1, "subject_steps": 1})
    model = build_model("llama-untied")
    path = compute_edit(model, tiny_tokenizer, FACTS, quick).save(tmp_path / "edit")
    first, second = EditDelta.load(path), EditDelta.load(path)
    fingerprint = first.fingerprint
    CHANGES[how](path)
    assert survives(lambda: second.fingerprint == fingerprint)
    with pytest.raises(RoSEError):
        EditDelta.load(path)


@pytest.mark.parametrize("how", CHANGES)
@pytest.mark.parametrize("leading", [None, 4])
def test_statistics_are_what_was_read(
    how: str, leading: int | None, tmp_path: Path, tiny_tokenizer: Any
) -> None:
    model = build_model("llama-untied")
    few = settings().alignment
    few.statistics_tokens = 200

    def spectrum() -> Any:
        with frozen(model):
            prepared = Prepared.of(model, tiny_tokenizer, settings())
            return load_spectra(prepared, [0], few, tmp_path, leading=leading)[0]

    computed, read = spectrum(), spectrum()
    (path,) = tmp_path.iterdir()
    CHANGES[how](path)
    assert survives(
        lambda: (
            torch.equal(read.directions, computed.directions)
            and torch.equal(read.eigenvalues, computed.eigenvalues)
        )
    )


@pytest.mark.parametrize("device", ["meta"])
def test_an_edit_is_read_where_it_is_whatever_the_default_device(
    device: str, tmp_path: Path
) -> None:
    from rose_easyedit.edits.factors import Factors

    layers = {"a.weight": Factors(torch.ones(4, 1), torch.ones(1, 6))}
    path = EditDelta(layers, "0" * 64, {}).save(tmp_path / "edit")
    with torch.device(device):
        found = EditDelta.load(path).layers["a.weight"]
    assert found.left.device.type == found.right.device.type == "cpu"


@pytest.mark.parametrize("what", ["pipe", "/dev/zero", "folder", "huge"])
def test_what_is_no_file_or_too_large_is_refused_at_once(what: str, tmp_path: Path) -> None:
    path = tmp_path / "edit"
    if what == "pipe":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    elif what == "huge":
        path.touch()
        os.truncate(path, 80 << 30)
    else:
        path = Path(what)
    with pytest.raises(RoSEError):
        EditDelta.load(path)
