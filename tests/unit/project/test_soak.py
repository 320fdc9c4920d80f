"""Many edits in one process: nothing wears, nothing piles up."""

from __future__ import annotations

import gc
import os
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from tiny_models import FACTS, LENIENT, build_model, same_weights, settings, weights_of

from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.method.edit import compute_edit

_WARM_UP = 5


def threads_of_the_system() -> int:
    """Those that libraries started, too."""
    return len(list(Path("/proc/self/task").iterdir())) if os.path.isdir("/proc/self/task") else 0


def resident_bytes() -> int:
    """Of the process; 0 where the system does not say."""
    statm = Path("/proc/self/statm")
    if not statm.is_file():
        return 0
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    "times", [15, pytest.param(200, marks=pytest.mark.slow)], ids=["some", "many"]
)
def test_edits_and_reverts_leave_nothing_behind(
    times: int, tmp_path: Path, tiny_tokenizer: Any
) -> None:
    model = build_model("llama-untied")
    before, hooks = weights_of(model), len(model._forward_hooks)
    hparams = settings(
        n_contexts=3,
        query_formats=1,
        self_check=LENIENT,  # every warning would be kept by the one who runs the tests
        hierarchy={"fact_steps": 4, "subject_steps": 4, "smoothing_radius": 0.2},
    )

    def turn(number: int) -> bytes:
        facts = FACTS[: 1 + number % 3]
        path = compute_edit(model, tiny_tokenizer, facts, hparams).save(tmp_path / "edit")
        delta = EditDelta.load(path)
        delta.apply(model)
        assert not same_weights(model, before)
        delta.revert(model)
        assert same_weights(model, before)
        return path.read_bytes()

    first = [turn(number) for number in range(3)]
    for number in range(_WARM_UP):
        turn(number)
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(3):  # what is kept once, such as the linecache, is not growth
            turn(number)
        gc.collect()
        n_threads, n_tasks = threading.active_count(), threads_of_the_system()
        kept, resident = tracemalloc.get_traced_memory()[0], resident_bytes()
        last = [turn(number) for number in range(times)][-3:]
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - kept
    finally:
        tracemalloc.stop()
    assert last == [first[number % 3] for number in range(times - 3, times)]
    assert grown < 100_000 + 500 * times  # safetensors keeps 30 bytes for each tensor that it read
    assert resident_bytes() - resident < 20e6
    assert (threading.active_count(), threads_of_the_system()) == (n_threads, n_tasks)
    assert len(model._forward_hooks) == hooks and list(tmp_path.iterdir()) == [tmp_path / "edit"]
