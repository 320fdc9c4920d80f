"""Memory that runs out: the work goes on with half as much at once, and gives the same."""

from __future__ import annotations

import logging
import tempfile
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import FACTS, build_model, same_weights, settings, weights_of
from torch import Tensor

from rose_easyedit.errors import RoSEError
from rose_easyedit.forward.activations import frozen
from rose_easyedit.forward.layerwise import Stack
from rose_easyedit.forward.oom import counted_if_done, is_out_of_memory, within_memory
from rose_easyedit.method.edit import compute_edit, solve_edit
from rose_easyedit.method.prepared import Prepared
from rose_easyedit.method.stage1 import integration, targets
from rose_easyedit.method.stage1.pieces import Piece
from rose_easyedit.method.stage1.targets import compute_targets
from rose_easyedit.method.stage2 import statistics
from rose_easyedit.method.stage2.constraints import Spectrum

ON_A_GPU = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nTry this.")
IN_A_SOLVE = RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `create`")
ON_A_CPU = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to")
IN_A_LAYER = RuntimeError("could not create a primitive")  # oneDNN's whole message


@pytest.mark.parametrize(
    "error",
    [
        ON_A_GPU,
        IN_A_SOLVE,
        ON_A_CPU,
        IN_A_LAYER,
        RuntimeError("could not create a memory object"),
        MemoryError(),
    ],
    ids=["gpu", "gpu's solver", "cpu", "cpu's layer", "cpu's copy", "python"],
)
def test_the_size_is_halved_until_it_fits(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    tried: list[int] = []

    def work(size: int) -> str:
        tried.append(size)
        if size > 3:
            raise error
        return "done"

    with caplog.at_level(logging.WARNING):
        assert within_memory(work, 13) == ("done", 3)
    assert tried == [13, 6, 3]
    assert "13 sequences at once" in caplog.text and "going on with 6" in caplog.text


def test_what_does_not_fit_one_by_one_is_an_error_of_ours() -> None:
    def work(size: int) -> None:
        raise ON_A_GPU

    with pytest.raises(RoSEError, match=r"one sequence at a time \(CUDA out of memory.*MiB.\)"):
        within_memory(work, 4)


@pytest.mark.parametrize("error", [RuntimeError("shapes do not match"), KeyboardInterrupt()])
def test_other_errors_pass(error: BaseException) -> None:
    def work(size: int) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        within_memory(work, 4)
    assert caught.value is error
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    # oneDNN of a shape or type that it does not compute
    other = "could not create a primitive descriptor for the matmul primitive. Run workload with"
    assert not is_out_of_memory(RuntimeError(other))


def test_what_was_tried_is_freed_before_it_is_tried_again() -> None:
    tensors: list[weakref.ref[Tensor]] = []

    def work(size: int) -> None:
        assert all(tensor() is None for tensor in tensors)
        large = torch.ones(3)
        tensors.append(weakref.ref(large))
        if size > 1:
            raise torch.OutOfMemoryError("out of memory")

    within_memory(work, 4)
    assert len(tensors) == 3


def test_progress_that_was_for_nothing_is_taken_back() -> None:
    told: list[int] = []
    with counted_if_done(told.append) as tell:
        tell(3)
    with pytest.raises(RuntimeError), counted_if_done(told.append) as tell:
        tell(2)
        tell(5)
        raise RuntimeError
    assert told == [3, 2, 5, -7]


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[int]]:
    """A memory that holds so many rows: the loss of more runs out of it, in the second step."""

    def limit(most: int) -> list[int]:
        loss, seen = integration._loss, []

        def limited(piece: Piece, *args: Any) -> Any:
            seen.append(len(piece.names))
            if len(piece.names) > most and len(seen) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return loss(piece, *args)

        monkeypatch.setattr(integration, "_loss", limited)
        return seen

    return limit


HPARAMS = {
    "fact_steps": 4,
    "subject_steps": 4,
    "fact_learning_rate": 0.1,
    "subject_learning_rate": 0.1,
    "smoothing_radius": 0.2,
}


@pytest.mark.parametrize("most", [4, 2, 1])
def test_an_edit_that_runs_out_of_memory_is_the_same_edit(
    most: int, small_memory: Callable[[int], list[int]], tiny_tokenizer: Any
) -> None:
    model = build_model("llama-untied")
    weights, hparams = weights_of(model), settings(hierarchy=HPARAMS, micro_batch=16)
    whole = compute_edit(model, tiny_tokenizer, FACTS, hparams)
    seen = small_memory(most)
    halved = compute_edit(model, tiny_tokenizer, FACTS, hparams)
    assert max(seen) > most and min(seen) <= most
    assert whole.targets is not None and halved.targets is not None
    torch.testing.assert_close(halved.targets, whole.targets, atol=1e-3, rtol=1e-3)
    assert halved.provenance.steps == whole.provenance.steps
    assert halved.provenance.losses == pytest.approx(whole.provenance.losses, abs=1e-3)
    assert same_weights(model, weights)


def test_the_micro_batch_that_fitted_is_kept_for_the_level(
    small_memory: Callable[[int], list[int]], tiny_tokenizer: Any
) -> None:
    seen = small_memory(2)
    hparams = settings(
        micro_batch=4, hierarchy={**HPARAMS, "integration": "joint", "loss_threshold": 0.0}
    )
    compute_edit(build_model("llama-untied"), tiny_tokenizer, FACTS, hparams)
    too_many = [place for place, rows in enumerate(seen) if rows > 2]
    assert 0 < len(too_many) <= 3  # once of the first step of all, once for each halving
    assert max(seen[too_many[-1] + 1 :]) <= 2


def test_an_edit_of_which_not_one_row_fits_leaves_the_model(
    small_memory: Callable[[int], list[int]], tiny_tokenizer: Any
) -> None:
    model = build_model("llama-untied").train()
    weights = weights_of(model)
    small_memory(0)
    with pytest.raises(RoSEError, match="does not hold one sequence at a time"):
        compute_edit(model, tiny_tokenizer, FACTS, settings(hierarchy=HPARAMS))
    assert same_weights(model, weights)
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_the_bar_ends_where_it_would_have_ended(
    small_memory: Callable[[int], list[int]],
    monkeypatch: pytest.MonkeyPatch,
    tiny_tokenizer: Any,
) -> None:
    told: list[int] = []

    class Bar:
        def __init__(self, total: int, **_: Any) -> None:
            told.append(-total)

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *_: Any) -> None:
            pass

        def update(self, n: int) -> None:
            told.append(n)

    monkeypatch.setattr(targets, "tqdm", Bar)
    small_memory(2)
    compute_edit(build_model("llama-untied"), tiny_tokenizer, FACTS, settings(hierarchy=HPARAMS))
    assert len(told) > 4 and sum(told) == 0


@pytest.fixture
def narrow_reading(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """A memory that holds two rows where keys and hidden states are read."""
    from rose_easyedit.forward import activations

    read, seen = activations._read, []

    def limited(editable: Any, part: Any, *args: Any) -> Any:
        seen.append(len(part.ids))
        if len(part.ids) > 2:
            raise ON_A_CPU
        return read(editable, part, *args)

    monkeypatch.setattr(activations, "_read", limited)
    yield seen


def test_keys_and_hidden_states_are_read_in_smaller_batches_too(
    narrow_reading: list[int], tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build_model("llama-untied")
    hparams = settings(hierarchy=HPARAMS)
    halved = compute_edit(model, tiny_tokenizer, FACTS, hparams)
    assert max(narrow_reading) > 2
    monkeypatch.undo()
    whole = compute_edit(model, tiny_tokenizer, FACTS, hparams)
    assert whole.targets is not None and halved.targets is not None
    torch.testing.assert_close(halved.targets, whole.targets, atol=1e-3, rtol=1e-3)
    for name, factors in whole.layers.items():
        torch.testing.assert_close(
            halved.layers[name].dense(), factors.dense(), atol=1e-3, rtol=1e-3
        )


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, str, Callable[..., int]], list[int]]:
    """Makes a function run out of memory for more than two rows, and lists how many it was asked.

    `rows` tells from its arguments how many there are.
    """

    def limit(owner: Any, name: str, rows: Callable[..., int]) -> list[int]:
        own, seen = getattr(owner, name), []

        def limited(*args: Any) -> Any:
            seen.append(rows(*args))
            if seen[-1] > 2:
                raise ON_A_GPU
            return own(*args)

        monkeypatch.setattr(owner, name, limited)
        return seen

    return limit


def test_statistics_that_run_out_of_memory_are_the_same(narrow: Any, tiny_tokenizer: Any) -> None:
    hparams = settings(alignment={"protected_directions": 4, "statistics_tokens": 400})
    prepared = Prepared.of(build_model("llama-untied"), tiny_tokenizer, hparams)

    def collect() -> dict[int, Spectrum]:
        with frozen(prepared.model), tempfile.TemporaryDirectory() as folder:
            return statistics.load_spectra(prepared, [1], hparams.alignment, Path(folder))

    whole = collect()
    seen = narrow(statistics, "read_keys", lambda _, batch, *__: len(batch.ids))
    halved = collect()
    assert max(seen) > 2 and seen[-1] <= 2
    torch.testing.assert_close(halved[1].eigenvalues, whole[1].eigenvalues, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("budget", "preserved"), [(None, 0), (None, 9), (1e6, 9)])
def test_columns_that_run_out_of_memory_are_read_in_smaller_batches(
    budget: float | None, preserved: int, narrow: Any, tiny_tokenizer: Any
) -> None:
    model = build_model("llama-untied")
    hparams = settings(
        micro_batch=16, alignment={"locality_budget": budget, "preserved_columns": preserved}
    )
    targets = compute_targets(model, tiny_tokenizer, FACTS, hparams)
    whole = solve_edit(model, tiny_tokenizer, targets, hparams)
    seen = narrow(Stack, "_step", lambda _, rows, *__: len(rows.hidden))
    halved = solve_edit(model, tiny_tokenizer, targets, hparams)
    assert max(seen) > 2 and seen[-1] <= 2
    for name, factors in halved.layers.items():
        torch.testing.assert_close(
            factors.dense(), whole.layers[name].dense(), atol=1e-4, rtol=1e-3
        )
