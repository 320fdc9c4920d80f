"""Full disks, folders that may not be written, kills and interrupts: what is left is whole."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from places import HELPERS
from small_disks import no_file_above
from tiny_edits import make_delta
from tiny_models import FACTS, build_model, same_weights, settings, weights_of
from torch.utils._python_dispatch import TorchDispatchMode

from rose_easyedit.cli.main import FAILED, main
from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.errors import DiskError
from rose_easyedit.export.save import save_gguf_lora, save_merged, save_peft_lora
from rose_easyedit.method.edit import compute_edit

WRITERS: dict[str, Callable[[EditDelta, Any, Any, Path], Path]] = {
    "save": lambda delta, _model, _tokenizer, path: delta.save(path),
    "export": lambda delta, _model, _tokenizer, path: save_peft_lora(delta, path),
    "gguf": lambda delta, _model, _tokenizer, path: save_gguf_lora(delta, path),
    "merge": lambda delta, model, tokenizer, path: save_merged(delta, model, tokenizer, path),
}


@contextmanager
def no_right_to_write(folder: Path) -> Iterator[None]:
    """Nobody may write to a folder; the user `root`, who may everywhere, is somebody else."""
    user = os.geteuid()
    folder.chmod(0o555)
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
        folder.chmod(0o755)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can see, which those of pytest are not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize("how", WRITERS)
def test_a_file_that_cannot_grow(how: str, tmp_path: Path, tiny_tokenizer: Any) -> None:
    model = build_model("llama-tied")
    delta, before = make_delta(model), weights_of(model)
    with no_file_above(1_000), pytest.raises(OSError):
        WRITERS[how](delta, model, tiny_tokenizer, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    assert same_weights(model, before) and not delta.is_applied(model)
    WRITERS[how](delta, model, tiny_tokenizer, tmp_path / "out")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a disk of a few pages")
@pytest.mark.parametrize("how", WRITERS)
def test_a_disk_that_is_full(how: str, tmp_path: Path, tiny_tokenizer: Any) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a disk")
    try:
        model = build_model("llama-tied")
        delta, before = make_delta(model), weights_of(model)
        (tmp_path / "full").write_bytes(bytes(16 * 1024))
        with pytest.raises(OSError, match="No space left"):
            WRITERS[how](delta, model, tiny_tokenizer, tmp_path / "out")
        assert os.listdir(tmp_path) == ["full"]
        assert same_weights(model, before) and not delta.is_applied(model)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_that_fails_keeps_the_old_file(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build_model("llama-tied")
    path = make_delta(model).save(tmp_path / "edit")
    old = path.read_bytes()

    def fail(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=os.strerror(number)):
        make_delta(model, scale=0.7).save(path)
    assert path.read_bytes() == old and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("how", WRITERS)
def test_a_folder_that_may_not_be_written(how: str, open_folder: Path, tiny_tokenizer: Any) -> None:
    model = build_model("llama-tied")
    delta, before = make_delta(model), weights_of(model)
    with no_right_to_write(open_folder), pytest.raises(DiskError, match="name a folder that may"):
        WRITERS[how](delta, model, tiny_tokenizer, open_folder / "out")
    assert list(open_folder.iterdir()) == []
    assert same_weights(model, before) and not delta.is_applied(model)


def test_the_command_says_so_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_delta(build_model("llama-tied")).save(tmp_path / "edit")
    with no_file_above(1_000):
        code = main(["export", "--delta", str(path), "--lora", str(tmp_path / "out")])
    assert code == FAILED
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("rose-edit: ") and "File too large" in line


class Interrupt(TorchDispatchMode):
    """Raises at the n-th operation on tensors, and counts them."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.left = self.at = at

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), named: Any = None
    ) -> Any:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return function(*arguments, **(named or {}))


@pytest.mark.parametrize(
    "moments", [12, pytest.param(200, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_an_interrupt_at_any_moment_of_an_edit(moments: int, tiny_tokenizer: Any) -> None:
    model = build_model("llama-untied").train()
    hparams = settings(hierarchy={"fact_steps": 3, "subject_steps": 3})
    before, frozen_before = weights_of(model), model.model.embed_tokens.weight
    frozen_before.requires_grad_(False)
    tiny_tokenizer.padding_side = "left"
    counter = Interrupt(at=0)
    with counter:
        compute_edit(model, tiny_tokenizer, FACTS, hparams)
    total, random = -counter.left, Random(0)
    assert total > 500
    try:
        for _ in range(moments):
            with pytest.raises(KeyboardInterrupt), Interrupt(at=random.randrange(1, total)):
                compute_edit(model, tiny_tokenizer, FACTS, hparams)
            assert same_weights(model, before)
            assert all(module.training for module in model.modules())
            assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
            free = {name for name, weight in model.named_parameters() if weight.requires_grad}
            assert free == before.keys() - {"model.embed_tokens.weight"}
            assert tiny_tokenizer.padding_side == "left"
        assert torch.is_grad_enabled()
    finally:
        tiny_tokenizer.padding_side = "right"


@pytest.mark.parametrize(
    "kills", [20, pytest.param(500, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_a_kill_at_any_moment_leaves_only_what_is_whole(kills: int, tmp_path: Path) -> None:
    """And an interrupt ends with the weights as they were (exit code 130)."""
    script = HELPERS / "killing.py"
    command = [sys.executable, str(script), str(tmp_path), str(kills), str(kills)]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert set(report["kills"].values()) == {kills // 5}
    assert report["interrupts"] == [130] * (kills // 4)
