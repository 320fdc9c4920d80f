"""Threads that share a model: one after another, with the weights and flags as they were."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event
from typing import Any

import pytest
from tiny_edits import make_delta
from tiny_models import FACTS, build_model, same_weights, settings, weights_of

from rose_easyedit.errors import RoSEError
from rose_easyedit.memory import FactMemory
from rose_easyedit.method.edit import compute_edit
from rose_easyedit.models.lock import model_lock

pytestmark = pytest.mark.usefixtures("own_cache")
QUICK = settings(hierarchy={"fact_steps": 2, "subject_steps": 2})
OTHERS = [{**fact, "target_new": "Spanish"} for fact in FACTS]


@pytest.fixture(autouse=True)
def often() -> Iterator[None]:
    """Threads take turns as often as Python lets them."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def in_threads(*work: Callable[[], Any]) -> list[Any]:
    """Does several things at once; what each has given."""
    ready = Barrier(len(work))

    def begin(one: Callable[[], Any]) -> Any:
        ready.wait(60)
        return one()

    with ThreadPoolExecutor(len(work)) as pool:
        return list(pool.map(begin, work))


def test_two_memories_of_one_model_answer_as_each_alone(
    tmp_path: Path, tiny_tokenizer: Any
) -> None:
    model = build_model("llama-tied")
    before = weights_of(model)
    memories = [
        FactMemory.open(tmp_path / f"{n}.db", model, tiny_tokenizer, QUICK) for n in range(2)
    ]
    for memory, facts in zip(memories, (FACTS, OTHERS), strict=True):
        memory.add(facts)
    asked = [fact["prompt"] for fact in FACTS]
    wanted = [memory.ask(asked, chat=False, max_new_tokens=2) for memory in memories]
    assert wanted[0] != wanted[1]
    turns = 12 * [0, 1]

    def ask(number: int) -> Any:
        return memories[number].ask(asked, chat=False, max_new_tokens=2)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, turns)) == [wanted[number] for number in turns]
    assert same_weights(model, before)


def test_edits_that_are_computed_at_once_are_those_of_the_unedited_model(
    tiny_tokenizer: Any,
) -> None:
    model = build_model("llama-untied").train()
    before = weights_of(model)
    wanted = compute_edit(model, tiny_tokenizer, FACTS, QUICK)
    other = make_delta(model)

    def work() -> Any:
        return compute_edit(model, tiny_tokenizer, FACTS, QUICK)

    def switch() -> None:
        for _ in range(5):
            with other.applied(model):
                pass

    found = in_threads(work, switch, work)
    assert [edit.fingerprint for edit in (found[0], found[2])] == [wanted.fingerprint] * 2
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(module.training for module in model.modules())
    assert same_weights(model, before)


def test_one_edit_that_threads_apply_and_revert(tmp_path: Path) -> None:
    """Each call is done or refused in words; the last state is the edited one or the other."""
    model = build_model("llama-tied")
    delta, before = make_delta(model), weights_of(model)
    faults: list[Exception] = []

    def switch() -> None:
        for turn in range(40):
            try:
                (delta.revert if turn % 2 else delta.apply)(model)
            except RoSEError:
                pass
            except Exception as error:
                faults.append(error)

    in_threads(switch, switch, switch)
    assert faults == []
    if delta.is_applied(model):
        delta.revert(model)
    assert same_weights(model, before)


def test_a_thread_waits_for_the_block_of_another(tmp_path: Path, tiny_tokenizer: Any) -> None:
    model = build_model("llama-tied")
    delta, begun, goes_on = make_delta(model), Event(), Event()
    order: list[str] = []

    def lend() -> None:
        with delta.applied(model):
            begun.set()
            assert goes_on.wait(60)
            order.append("block")

    def compute() -> str:
        assert begun.wait(60)
        goes_on.set()
        base = compute_edit(model, tiny_tokenizer, FACTS, QUICK).base
        order.append("edit")
        return base

    assert in_threads(lend, compute)[1] == compute_edit(model, tiny_tokenizer, FACTS, QUICK).base
    assert order == ["block", "edit"]


def test_a_lock_is_a_model_s_own_and_lives_as_long() -> None:
    one, two = build_model("llama-tied"), build_model("llama-tied")
    assert model_lock(one) is model_lock(one) and model_lock(one) is not model_lock(two)
    with model_lock(one), model_lock(one):
        assert in_threads(lambda: bool(model_lock(two).__enter__())) == [True]
