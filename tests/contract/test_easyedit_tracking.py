"""A plain BaseEditor run is logged to the W&B run that the caller has open, and only there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_easyedit import (
    FACTS,
    REQUESTS,
    assert_same,
    editor,
    hparams,
    pytestmark,
    snapshot,
    workplace,
)

from rose_easyedit import apply_rose_to_model

__all__ = ["editor", "hparams", "pytestmark", "workplace"]  # fixtures and marks, used by name


@pytest.fixture
def open_run(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An offline run of the caller's."""
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    import wandb

    settings = wandb.Settings(console="off", silent=True, disable_git=True, disable_code=True)
    run = wandb.init(mode="offline", dir=workplace, project="own", settings=settings)
    yield run
    run.finish()


def logged(run: Any) -> dict[str, Any]:
    return {key: run.summary.get(key) for key in run.summary.keys()}  # noqa: SIM118


def test_an_edit_goes_to_the_open_run(editor: Any, open_run: Any) -> None:
    locality = {"neighbour": {"prompt": ["Albert Einstein"] * 3, "ground_truth": ["German"] * 3}}
    _, _, weights = editor.batch_edit(**FACTS, locality_inputs=locality, verbose=False)
    values = logged(open_run)
    curves = weights.delta.provenance.curves
    assert values["fact/step"] == len(curves["facts"]["loss"]) - 1
    assert values["subject/active_facts"] == curves["subjects"]["facts"][-1]
    assert values["layer"] == 2
    assert values["edit/facts"] == 3
    assert values["easyedit/pre/rewrite_acc"] == 0.0
    assert values["easyedit/post/rewrite_acc"] == 1.0
    assert not any(name.endswith("_output") for name in values)
    assert values["easyedit"]["nrows"] == values["facts"]["nrows"] == 3
    open_run.log({"still": 1})  # it is the caller's, to go on with and to finish


def test_the_edits_of_a_call_follow_each_other(editor: Any, open_run: Any) -> None:
    _, _, weights = editor.edit(**FACTS, verbose=False)
    lengths = [len(d.provenance.curves["facts"]["loss"]) for d in weights.deltas]
    assert logged(open_run)["fact/step"] == sum(lengths) - 1


def test_tracking_none_logs_nothing_and_changes_no_edit(
    editor: Any, hparams: Any, open_run: Any
) -> None:
    _, _, tracked = editor.batch_edit(**FACTS, verbose=False)
    before = logged(open_run)
    editor.hparams.tracking = "none"
    _, _, untracked = editor.batch_edit(**FACTS, verbose=False)
    assert logged(open_run) == before
    for name, factors in tracked.delta.layers.items():
        assert factors.dense().equal(untracked.delta.layers[name].dense())


def test_a_failure_to_log_is_a_warning(
    editor: Any, open_run: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise ConnectionError("no such luck")

    monkeypatch.setattr(type(open_run), "define_metric", broken)
    monkeypatch.setattr(type(open_run), "log", broken)
    before = snapshot(editor.model, editor.tok)
    metrics, _, _ = editor.batch_edit(**FACTS, verbose=False)
    assert_same(snapshot(editor.model, editor.tok), before)
    assert metrics[-1]["post"]["rewrite_acc"] == [1.0]
    own = [r for r in caplog.records if r.name.startswith("rose_easyedit")]
    # what the edit says of itself is no matter here: random weights learn little
    told = [r.message for r in own if r.name != "rose_easyedit.method.verification"]
    assert len(told) == 2 and all("ConnectionError: no such luck" in line for line in told)


def test_without_an_open_run_nothing_is_touched(
    tiny_llama: Any, tiny_tokenizer: Any, hparams: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # to import it would be an error
    apply_rose_to_model(tiny_llama, tiny_tokenizer, REQUESTS, hparams)
