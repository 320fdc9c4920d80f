"""What EasyEdit measured, as a tracker gets it; the contract tests do it with the real one."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
from test_tracking_wandb import OpenRun

from rose_easyedit.config.hparams import RoSEHyperParams
from rose_easyedit.easyedit import tracking
from rose_easyedit.errors import RoSEError
from rose_easyedit.tracking.wandb_run import open_tracker

METRICS = [
    {
        "requested_rewrite": {"subject": "Oslo", "prompt": "Oslo is in", "target_new": "Peru"},
        "pre": {"rewrite_acc": [0.0], "portability": {}},
        "post": {
            "rewrite_acc": [1.0, numpy.float64(0.0)],
            "locality": {"near_acc": [[0.5]], "near_output": [[17, 4]]},
        },
    },
    {
        "requested_rewrite": {"subject": "Rome", "prompt": "Rome is in", "target_new": "Chad"},
        "pre": {"rewrite_acc": 0.5},
        "post": {"rewrite_acc": numpy.float32(1.0), "note": "text has no mean"},
    },
]


class Recorder:
    """Keeps summaries and tables."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.tables: dict[str, Any] = {}

    def summarise(self, values: dict[str, Any]) -> None:
        self.values |= values

    def log_table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None:
        self.tables[name] = (columns, rows)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr(tracking, "open_tracker", lambda: recorder)
    return recorder


def test_metrics_are_means_over_facts_and_a_row_for_each(recorder: Recorder) -> None:
    tracking.track_metrics(METRICS, "auto")
    assert recorder.values == {
        "easyedit/pre/rewrite_acc": 0.25,
        "easyedit/post/rewrite_acc": 0.75,
        "easyedit/post/locality/near_acc": 0.5,
    }
    columns, rows = recorder.tables["easyedit"]
    assert columns[:4] == ["subject", "prompt", "target", "pre/rewrite_acc"]
    assert rows == [
        ["Oslo", "Oslo is in", "Peru", 0.0, 0.5, 0.5],
        ["Rome", "Rome is in", "Chad", 0.5, 1.0, None],
    ]


def test_nothing_is_tracked_where_that_is_asked_for(recorder: Recorder) -> None:
    tracking.track_metrics(METRICS, "none")
    assert recorder.values == {} and recorder.tables == {}


@pytest.mark.parametrize("metrics", [None, [], [None], [{"post": 3}]])
def test_metrics_of_another_form_do_no_harm(recorder: Recorder, metrics: Any) -> None:
    tracking.track_metrics(metrics, "auto")


def test_the_open_run_is_found_without_importing_wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    assert open_tracker() is None and "wandb" not in sys.modules
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(run=None))  # type: ignore[misc]
    assert open_tracker() is None
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(run=OpenRun()))  # type: ignore[misc]
    assert open_tracker() is not None


def test_the_setting_is_checked() -> None:
    assert RoSEHyperParams(layers=[1]).tracking == "auto"
    with pytest.raises(RoSEError, match="tracking is 'wandb'; choose one of auto, none"):
        RoSEHyperParams(layers=[1], tracking="wandb")
