"""Subjects shared among processes: the edit is that of one process, and a death loses nothing."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from ranked_worker import __file__ as WORKER
from ranked_worker import free_port
from threaded_ranks import REQUESTS, together
from tiny_models import FACTS, LENIENT, build_model, settings

from rose_easyedit.cli import main
from rose_easyedit.cli.launched import own_device
from rose_easyedit.config.hparams import INTEGRATIONS
from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.errors import RoSEError
from rose_easyedit.method.edit import compute_edit
from rose_easyedit.method.stage1.ranks import Ranks
from rose_easyedit.method.stage1.shifts import Shifts
from rose_easyedit.method.stage1.trajectory import Totals

SETTINGS = """\
model_name: tiny-random
layers: [1, 2]
sink_ratio: 50.0
precision: weights
micro_batch: 1
hierarchy: {fact_steps: 3, subject_steps: 3}
alignment: {protected_directions: 0}
"""
SETTINGS += f"self_check: {json.dumps(LENIENT)}\n"


def assert_alike(found: EditDelta, wanted: EditDelta) -> None:
    """The same edit to float tolerance."""
    assert found.targets is not None and wanted.targets is not None
    torch.testing.assert_close(found.targets, wanted.targets, rtol=1e-4, atol=1e-4)
    assert found.layers.keys() == wanted.layers.keys() and found.base == wanted.base
    for name, update in wanted.layers.items():
        torch.testing.assert_close(found.layers[name].dense(), update.dense(), rtol=1e-3, atol=1e-5)
    for name in ("requests", "hparams", "groups", "steps", "log", "versions"):
        assert getattr(found.provenance, name) == getattr(wanted.provenance, name), name
    assert found.provenance.losses == pytest.approx(wanted.provenance.losses, rel=1e-3)
    for level, curve in wanted.provenance.curves.items():
        for measure, values in curve.items():
            other = found.provenance.curves[level][measure]
            assert [v is None for v in other] == [v is None for v in values]
            known = [v or 0.0 for v in values]
            assert [v or 0.0 for v in other] == pytest.approx(known, rel=1e-3, abs=1e-3), measure


def test_shares_are_even_complete_and_the_largest_come_first() -> None:
    assert Ranks(0, 2).shares([1, 5, 2, 2, 1]) == [[1, 4], [0, 2, 3]]
    assert Ranks(0, 3).shares([4]) == [[0], [], []]
    assert Ranks(1, 3).shares([2, 2, 2, 2]) == Ranks(2, 3).shares([2, 2, 2, 2])
    sizes = [7, 1, 1, 3, 5, 5, 2, 2, 2]
    shares = Ranks(0, 4).shares(sizes)
    assert sorted(thing for share in shares for thing in share) == list(range(len(sizes)))
    assert max(sum(sizes[thing] for thing in share) for share in shares) <= 8


def test_shifts_are_put_together_in_the_order_of_their_groups_and_sent_without_loss() -> None:
    step = Totals(facts=1, loss=0.1 + 0.2, groups=1, norm=1 / 3)
    first = Shifts(torch.tensor([[2.0], [0.0]]), [[0.2], [0.0, float("nan")]], [2, 0])
    second = Shifts(torch.tensor([[1.0]]), [[0.1]], [1], {"facts": [[step]]})
    parts = [([2, 0], first), ([1], second), ([], Shifts.none(1))]
    whole = Shifts.of_parts(parts)
    assert whole.deltas.tolist() == [[0.0], [1.0], [2.0]]
    assert str(whole.losses) == "[[0.0, nan], [0.1], [0.2]]" and whole.steps == [0, 1, 2]
    assert whole.trajectories == {"facts": [[step]]}
    again = Shifts.from_tensors(whole.as_tensors())
    assert torch.equal(again.deltas, whole.deltas)
    assert str((again.losses, again.steps, again.trajectories)) == str(
        (whole.losses, whole.steps, whole.trajectories)
    )


@pytest.mark.parametrize("how", INTEGRATIONS)
def test_the_edit_is_that_of_one_process(how: str, tiny_tokenizer: Any) -> None:
    hparams = settings(hierarchy={"fact_steps": 5, "subject_steps": 5, "integration": how})
    models = [build_model("llama-tied") for _ in range(3)]  # and one of them has nothing to do
    facts = [FACTS[2], *FACTS[:2]]  # the first rank takes the second subject
    wanted = compute_edit(models[0], tiny_tokenizer, facts, hparams)
    for found in together(models, tiny_tokenizer, facts, hparams):
        assert_alike(found, wanted)


def test_a_share_of_which_nothing_is_left_is_no_failure_of_the_others(tiny_tokenizer: Any) -> None:
    prompt, subject = "We asked Isaac Newton", "Isaac Newton"
    lost = {"prompt": prompt, "subject": subject, "target_new": "German Polish"}
    (german,) = tiny_tokenizer(" German")["input_ids"]
    models = [build_model("llama-untied") for _ in range(2)]
    for model in models:
        with torch.no_grad():
            model.model.embed_tokens.weight[german] = float("nan")
    hparams = settings(hierarchy={"fact_steps": 3, "subject_steps": 3, "on_failure": "leave_out"})
    wanted = compute_edit(models[0], tiny_tokenizer, [lost, *FACTS[:2]], hparams)
    assert len(wanted.provenance.requests) == 2 and len(wanted.provenance.log) == 1
    for found in together(models, tiny_tokenizer, [lost, *FACTS[:2]], hparams):
        assert_alike(found, wanted)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with settings and facts, and a cache of its own."""
    monkeypatch.setenv("ROSE_EASYEDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "tiny.yaml").write_text(SETTINGS)
    (tmp_path / "facts.jsonl").write_text("".join(json.dumps(fact) + "\n" for fact in REQUESTS))
    return tmp_path


def words(place: Path, out: str) -> list[str]:
    return [
        *("edit", "--hparams", str(place / "tiny.yaml")),
        *("--requests", str(place / "facts.jsonl"), "--out", str(place / out)),
    ]


def test_torchrun_gives_the_edit_of_one_process(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    launch += ["--standalone", "-m", "rose_easyedit"]  # at a free port
    done = subprocess.run(
        [*launch, *words(place, "two"), "--json"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)  # of one process, though two have worked
    assert [fact["subject"] for fact in report["facts"]] == [r["subject"] for r in REQUESTS]
    assert main(words(place, "one")) == 0
    assert_alike(EditDelta.load(place / "two"), EditDelta.load(place / "one"))


def test_a_rank_that_is_killed_ends_the_job_and_what_was_finished_is_not_done_again(
    place: Path,
) -> None:
    """Without a launcher, which would end the others by itself."""
    work = [sys.executable, WORKER, str(place), *words(place, "edit"), "--json"]
    done = subprocess.run(work, capture_output=True, text=True, timeout=300, check=True)
    (first, second), again = json.loads(done.stdout)
    assert second["code"] == -signal.SIGKILL
    assert first["code"] == 2
    assert "rose-edit (rank 0 of 2): Rank 1 of 2 (counted from 0) has ended" in first["errors"]
    assert "Rank 1 of 2" in json.loads(first["output"])["error"]  # and so no edit was written
    assert len(first["optimised"]) > 2 and len(second["optimised"]) == 1

    assert [rank["code"] for rank in again] == [0, 0]
    assert again[0]["optimised"] == []
    assert again[1]["optimised"] and second["optimised"][0] not in again[1]["optimised"]
    assert (again[1]["output"], again[1]["errors"]) == ("", "")
    assert main(words(place, "one")) == 0
    assert_alike(EditDelta.load(place / "edit"), EditDelta.load(place / "one"))


def test_a_rank_that_fails_and_stays_alive_keeps_nobody_waiting() -> None:
    script = str(Path(WORKER).with_name("failing_rank.py"))
    work = [sys.executable, script, str(free_port())]
    done = subprocess.run(work, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = sorted(done.stdout.splitlines())
    assert lines[0].startswith("rank 0 then: [0, 1]")
    assert "rank 0: Rank 1 of 2 (counted from 0) has ended before its share was done" in lines[1]
    assert lines[2:] == ["rank 1 then: [0, 1]", "rank 1: its own fault"]


def test_ranks_without_a_process_group_are_refused(tiny_tokenizer: Any) -> None:
    with pytest.raises(RoSEError, match="torch.distributed is not initialised"):
        with Ranks.of_process_group():
            pass


def test_only_an_edit_is_shared(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert main(["info", "edit.safetensors"]) == 2
    shown = capsys.readouterr()
    assert "rose-edit (rank 1 of 2): 2 processes were started, and only `edit`" in shown.err
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert own_device("cpu") == "cpu"
    assert own_device("cuda:0") == own_device(0) == "cuda:1"
    monkeypatch.delenv("RANK")
    assert own_device("cuda:0") == "cuda:0"
    assert main(["info", "edit.safetensors"]) == 2
    assert "There is no edit file" in capsys.readouterr().err
