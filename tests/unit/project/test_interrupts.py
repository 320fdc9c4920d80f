"""An interrupt (Ctrl-C) at any call: it is raised once all is as it was."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from interrupting import counted, interrupted, places_of
from tiny_edits import make_delta
from tiny_models import FACTS, build_model, same_weights, settings, weights_of

from rose_easyedit.forward.activations import frozen, with_updates
from rose_easyedit.forward.generation import generate_greedy
from rose_easyedit.memory import FactMemory
from rose_easyedit.method.edit import compute_edit
from rose_easyedit.models.architectures import read_architecture
from rose_easyedit.models.cast_weights import CastWeights
from rose_easyedit.models.grouped_attention import grouped_attention
from rose_easyedit.models.modes import evaluation_mode
from rose_easyedit.restoring import restoring, uninterrupted
from rose_easyedit.text.chat import in_questions

pytestmark = pytest.mark.usefixtures("own_cache")
QUICK = settings(hierarchy={"fact_steps": 1, "subject_steps": 1}, n_contexts=1)


def places(total: int, most: int) -> list[int]:
    """All places of a piece of work, or so many of them by chance."""
    return sorted(Random(0).sample(range(1, total + 1), min(most, total)))


def state(model: Any) -> dict[str, Any]:
    """All of a model that something changes for a while, beside the numbers of its weights."""
    return {
        "training": [module.training for module in model.modules()],
        "gradients": [p.requires_grad for p in model.parameters()],
        "weights": [id(p) for p in model.parameters()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        "attention": model.config._attn_implementation,
        "generation": id(model.generation_config),
    }


@pytest.fixture
def model() -> Any:
    """In training mode, its embeddings frozen: neither is what a context would leave by itself."""
    model = build_model("llama-untied").train()
    model.model.embed_tokens.weight.requires_grad_(False)
    return model


@pytest.mark.parametrize(
    "most", [600, pytest.param(10_000, marks=pytest.mark.slow)], ids=["some", "all"]
)
def test_the_edit_is_off_when_the_interrupt_is_raised(most: int, model: Any) -> None:
    delta, before = make_delta(model), weights_of(model)

    def work() -> None:
        with delta.applied(model):
            pass

    found = []
    for place in places(places_of(work), most):
        error = interrupted(work, place)
        if not same_weights(model, before) or delta.is_applied(model):
            found.append(place)
            delta._restore(model)
        assert error is not None, place
        del error
    assert found == []


@pytest.mark.parametrize("first", [True, False], ids=["apply", "revert"])
def test_weights_are_all_edited_or_all_as_they_were(first: bool, model: Any) -> None:
    delta, before = make_delta(model), weights_of(model)
    delta.apply(model)
    edited = weights_of(model)
    delta.revert(model)

    def work() -> None:
        (delta.apply if first else delta.revert)(model)

    if not first:
        delta.apply(model)
    for place in places(places_of(work), 400):
        if delta.is_applied(model) == first:
            (delta.revert if first else delta.apply)(model)
        error = interrupted(work, place)
        is_edited = delta.is_applied(model)
        assert same_weights(model, edited if is_edited else before), (place, error)


def contexts(model: Any, tokenizer: Any) -> dict[str, Callable[[], Any]]:
    editable = read_architecture(model)
    return {
        "frozen": lambda: frozen(model),
        "evaluation mode": lambda: evaluation_mode(model),
        "updates": lambda: with_updates(
            editable, {layer: list(make_delta(model).layers.values())[layer] for layer in (0, 1)}
        ),
        "cast weights": lambda: CastWeights(model.requires_grad_(False), torch.bfloat16).in_place(),
        "attention": lambda: grouped_attention(model),
        "questions": lambda: in_questions(tokenizer),
    }


@pytest.mark.parametrize(
    "name", ["frozen", "evaluation mode", "updates", "cast weights", "attention", "questions"]
)
def test_a_context_puts_back_what_it_changes(name: str, model: Any, tiny_tokenizer: Any) -> None:
    template, tiny_tokenizer.chat_template = tiny_tokenizer.chat_template, None
    if name == "cast weights":
        model.requires_grad_(False)
    before = state(model)

    def work() -> None:
        with contexts(model, tiny_tokenizer)[name]():
            pass

    try:
        for place in places(places_of(work), 400):
            error = interrupted(work, place)
            assert state(model) == before and tiny_tokenizer.chat_template is None, place
            assert error is not None
    finally:
        tiny_tokenizer.chat_template = template


@pytest.mark.parametrize(
    "moments", [40, pytest.param(1_500, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_an_edit_leaves_the_model_as_it_was(moments: int, model: Any, tiny_tokenizer: Any) -> None:
    before, weights = state(model), weights_of(model)

    def work() -> None:
        compute_edit(model, tiny_tokenizer, FACTS, QUICK)

    work()
    for place in places(places_of(work), moments):
        error = interrupted(work, place)
        assert state(model) == before and same_weights(model, weights), place
        assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        del error


@pytest.mark.parametrize(
    "moments", [60, pytest.param(1_500, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_an_answer_leaves_the_model_as_it_was(
    moments: int, model: Any, tiny_tokenizer: Any
) -> None:
    before = state(model)

    def work() -> None:
        generate_greedy(model, tiny_tokenizer, ["They met"], chat=False, max_new_tokens=2)

    work()
    for place in places(places_of(work), moments):
        error = interrupted(work, place)
        assert state(model) == before, place
        del error


@pytest.mark.parametrize(
    "moments", [60, pytest.param(1_500, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_a_memory_answers_after_an_interrupt(
    moments: int, tmp_path: Path, tiny_tokenizer: Any
) -> None:
    model = build_model("llama-tied")
    memory = FactMemory.open(tmp_path / "facts.db", model, tiny_tokenizer, QUICK)
    memory.add(FACTS)
    weights = weights_of(model)

    def ask() -> str:
        return memory.ask("They met", max_new_tokens=2)

    wanted = ask()
    for place in places(places_of(ask), moments):
        error = interrupted(ask, place)
        assert same_weights(model, weights), place
        assert ask() == wanted
        del error


def test_a_memory_takes_its_own_edit_off_that_was_left(tmp_path: Path, tiny_tokenizer: Any) -> None:
    """As something may leave it that is no interrupt; what another has applied is refused."""
    model = build_model("llama-tied")
    memory = FactMemory.open(tmp_path / "facts.db", model, tiny_tokenizer, QUICK)
    memory.add(FACTS)
    weights = weights_of(model)
    wanted = memory.ask("They met", max_new_tokens=2)
    block = memory.edited()
    block.__enter__()
    with pytest.raises(ValueError, match="leave the block of `edited` first"):
        memory.ask("They met", max_new_tokens=2)
    memory._inside = False  # as it would be behind a block that could not put the weights back
    assert memory.ask("They met", max_new_tokens=2) == wanted
    assert same_weights(model, weights)
    block.__exit__(None, None, None)
    assert same_weights(model, weights)


def test_several_interrupts_are_one(model: Any) -> None:
    """Whoever presses Ctrl-C again while weights are put back does not cut that off."""
    steps: list[int] = []

    @restoring
    def lent() -> Iterator[None]:
        try:
            yield
        finally:
            for step in range(3):
                signal.raise_signal(signal.SIGINT)
                steps.append(step)

    with counted(), pytest.raises(KeyboardInterrupt), lent(), lent():
        pass
    assert steps == [0, 1, 2, 0, 1, 2]


def test_an_interrupt_of_the_block_ends_it() -> None:
    reached = False
    with counted(), pytest.raises(KeyboardInterrupt), lent(), lent():
        signal.raise_signal(signal.SIGINT)
        reached = True
    assert not reached


@restoring
def lent() -> Iterator[None]:
    yield


@pytest.fixture
def seen() -> Iterator[list[int]]:
    """What a handler of the user's own has seen."""
    found: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: found.append(number))
    yield found
    signal.signal(signal.SIGINT, before)


def test_the_handler_of_the_user_is_told_behind_the_work(seen: list[int]) -> None:
    own = signal.getsignal(signal.SIGINT)

    def work() -> None:
        signal.raise_signal(signal.SIGINT)
        assert seen == []

    uninterrupted(work)
    assert seen == [signal.SIGINT] and signal.getsignal(signal.SIGINT) is own


@pytest.mark.parametrize("other", [signal.SIG_IGN, signal.SIG_DFL])
def test_interrupts_that_are_not_python_s_stay_that(other: Any, seen: list[int]) -> None:
    signal.signal(signal.SIGINT, other)
    with lent():
        assert signal.getsignal(signal.SIGINT) is other
    assert signal.getsignal(signal.SIGINT) is other


def test_a_handler_that_is_set_in_the_block_stays(seen: list[int]) -> None:
    with lent():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_a_thread_has_no_interrupts_to_keep() -> None:
    @restoring
    def lent() -> Iterator[int]:
        yield 5

    found: list[int] = []

    def work() -> None:
        with lent() as value:
            found.append(value)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [5]
