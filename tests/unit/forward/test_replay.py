"""A replay of the later layers gives what the whole model gives, at a fraction of the work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from tiny_models import MODELS, build_model
from torch import Tensor

from rose_easyedit.forward.activations import frozen
from rose_easyedit.forward.prefixes import Prefixes
from rose_easyedit.forward.replay import Replay, capture
from rose_easyedit.models.architectures import first_tensor, read_architecture
from rose_easyedit.text.locate_subject import TokenQuery

LAYER = 1

# ragged before and after the subject; the first has nothing before it, two have no target, and
# the last names the subject twice
QUERIES = (
    TokenQuery((17, 30, 31, 32), 0, 2),
    TokenQuery((40, 41, 42, 43, 44, 45, 46, 47, 48), 6, 1),
    TokenQuery((50, 51, 52, 53), 2, 1),
    TokenQuery((60, 61, 62, 63, 64, 65, 66, 67), 1, 3),
    TokenQuery((70, 71, 72), 2, 0),
    TokenQuery((80, 81, 82, 83, 84), 3, 0),
    TokenQuery((90, 91, 92, 93, 94, 95, 96), 1, 2, again=3),
)

OPENING = tuple(range(100, 116))  # as long as what is read apart


def places(query: TokenQuery) -> list[int]:
    """Positions whose next token is asked for."""
    length = len(query.ids)
    return list(range(length - query.n_target - 1, length - 1)) if query.n_target else [length - 1]


def reference(model: Any, queries: Sequence[TokenQuery], shift: Tensor) -> Tensor:
    """The same log-probabilities from whole forward passes, one query at a time."""
    editable = read_architecture(model)
    rows = []
    for query, row in zip(queries, shift, strict=True):

        def add(
            _module: Any, _args: Any, output: Any, query: TokenQuery = query, row: Tensor = row
        ) -> Any:
            hidden = first_tensor(output)
            named = torch.tensor([mention.subject for mention in query.mentions])
            place = torch.zeros(hidden.shape[1], 1).index_fill(0, named, 1.0)
            shifted = hidden + place * row
            return (shifted, *output[1:]) if isinstance(output, tuple) else shifted

        handle = editable.layers[LAYER].register_forward_hook(add)
        try:
            logits = model(torch.tensor([query.ids])).logits[0].float()
        finally:
            handle.remove()
        rows.append(logits.log_softmax(-1)[places(query)])
    return torch.cat(rows)


def expected(model: Any, queries: Sequence[TokenQuery], shift: Tensor) -> Tensor:
    """The reference without gradients."""
    with torch.no_grad():
        return reference(model, queries, shift)


def some_shift(queries: Sequence[TokenQuery], width: int = 32, scale: float = 2.0) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return scale * torch.randn(len(queries), width, generator=generator)


def captured(model: Any, queries: Sequence[TokenQuery] = QUERIES, layer: int = LAYER) -> Replay:
    with frozen(model):
        return capture(read_architecture(model), queries, layer)


def run(replay: Replay, shift: Tensor) -> Tensor:
    with torch.no_grad(), frozen(replay.editable.model):
        return replay.log_probabilities(shift)


@pytest.mark.parametrize("name", MODELS)
def test_a_replay_is_the_model(name: str) -> None:
    model = build_model(name)
    replay = captured(model)
    nothing, shift = torch.zeros(len(QUERIES), 32), some_shift(QUERIES)
    torch.testing.assert_close(
        run(replay, nothing), expected(model, QUERIES, nothing), atol=2e-4, rtol=1e-4
    )
    shifted = expected(model, QUERIES, shift)
    assert (shifted - expected(model, QUERIES, nothing)).abs().max() > 0.1
    torch.testing.assert_close(run(replay, shift), shifted, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_what_opens_alike_is_read_as_part_of_each_row(name: str) -> None:
    # longer and shorter than the window of those that slide, and two with the same prefix
    texts = [(7, 8, 9, 10, 11), (7,), (7, 8, 9, 10, 12), (12, 13, 14), (7, 8, 9, 10, 11)]
    queries = [
        TokenQuery((*OPENING, *text, 20 + i, 30), 16 + len(text), 1) for i, text in enumerate(texts)
    ]
    model = build_model(name)
    together, shift = captured(model, [*queries, *QUERIES]), some_shift([*queries, *QUERIES])
    wanted = expected(model, [*queries, *QUERIES], shift)
    torch.testing.assert_close(run(together, shift), wanted, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("batch", [1, 3, None])
def test_prefixes_are_read_once_for_the_pieces_of_many_rows(batch: int | None) -> None:
    model = build_model("mistral-sliding")
    again = [
        TokenQuery((*query.ids[: query.subject], 99, 98), query.subject, 1) for query in QUERIES
    ]
    rows = [query.key_prefix for query in [*QUERIES, *again]]
    read: list[int] = []

    def count(_module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        read.append(len(kwargs["input_ids"]))

    with frozen(model):
        editable = read_architecture(model)
        handle = model.base_model.register_forward_pre_hook(count, with_kwargs=True)
        prefixes = Prefixes.read(editable, rows, batch)
        handle.remove()
        # the first has nothing before its subject
        assert sum(read) == len({row[:-1] for row in rows if len(row) > 1})
        assert max(read) == (batch or sum(read))
        for queries in (QUERIES[2:5], QUERIES[:1], again):
            shift = some_shift(queries)
            replay = capture(editable, queries, LAYER, prefixes)
            fresh = capture(editable, queries, LAYER)
            torch.testing.assert_close(run(replay, shift), run(fresh, shift), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_some_rows_are_like_a_fresh_capture_of_them(name: str) -> None:
    model = build_model(name)
    replay, shift = captured(model), some_shift(QUERIES)
    for keep in ([0], [1, 4], [2, 3, 5], [0, 6], [3, 3, 6], [4, 1, 4]):
        fewer = replay.select(torch.tensor(keep))
        queries = [QUERIES[i] for i in keep]
        fresh = captured(model, queries)
        assert fewer.targets.tolist() == fresh.targets.tolist()
        assert fewer.rows.tolist() == fresh.rows.tolist()
        torch.testing.assert_close(
            run(fewer, shift[keep]), run(fresh, shift[keep]), atol=2e-4, rtol=1e-4
        )


@pytest.mark.parametrize("name", ["llama-tied", "mistral-sliding", "gemma3_text", "gpt2"])
def test_nothing_is_stored_between_steps(name: str) -> None:
    replay, shift = captured(build_model(name)), some_shift(QUERIES)
    first = run(replay, shift)
    run(replay, -shift)
    assert torch.equal(run(replay, shift), first)
    # a selection of a selection is no different
    halves = replay.select(torch.tensor([1, 3, 5])).select(torch.tensor([0, 2]))
    torch.testing.assert_close(
        run(halves, shift[[1, 5]]),
        first[(replay.rows[:, None] == torch.tensor([1, 5])).any(1)],
        atol=2e-4,
        rtol=1e-4,
    )


@pytest.mark.parametrize("name", MODELS)
def test_the_gradient_is_that_of_the_whole_model(name: str) -> None:
    model = build_model(name)
    replay = captured(model)
    wanted = replay.targets >= 0
    gradients = []
    for log_probabilities in (
        replay.log_probabilities,
        lambda shift: reference(model, QUERIES, shift),
    ):
        shift = some_shift(QUERIES).requires_grad_(True)
        with frozen(model):
            log_p = log_probabilities(shift)[wanted]
            log_p.gather(1, replay.targets[wanted, None]).sum().backward()
        assert shift.grad is not None
        gradients.append(shift.grad)
    asked = [query.n_target > 0 for query in QUERIES]
    assert all(gradients[0][asked].norm(dim=1) > 1e-3)
    assert gradients[0][4:6].abs().max() == 0  # no target, no loss
    torch.testing.assert_close(*gradients, atol=1e-3, rtol=1e-3)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_targets_are_the_tokens_that_follow() -> None:
    replay = captured(build_model("llama-tied"))
    assert replay.targets.tolist() == [31, 32, 48, 53, 65, 66, 67, -1, -1, 95, 96]
    assert replay.rows.tolist() == [0, 0, 1, 2, 3, 3, 3, 4, 5, 6, 6]
    assert replay.columns.tolist() == [1, 2, 1, 0, 3, 4, 5, 0, 1, 3, 4]


def test_the_hidden_state_is_that_of_the_subject() -> None:
    model = build_model("qwen2")
    replay = captured(model)
    for row, query in enumerate(QUERIES):
        with torch.no_grad():
            hidden = model(torch.tensor([query.ids]), output_hidden_states=True).hidden_states
        torch.testing.assert_close(
            replay.subject_hidden[row], hidden[LAYER + 1][0, query.subject], atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize("layer", [0, 3])
def test_the_first_and_the_last_layer_as_target(layer: int) -> None:
    model = build_model("llama-tied")
    still = run(captured(model, layer=layer), torch.zeros(len(QUERIES), 32))
    wanted = expected(model, QUERIES, torch.zeros(len(QUERIES), 32))
    torch.testing.assert_close(still, wanted, atol=2e-4, rtol=1e-4)


def test_subjects_that_are_all_first_tokens() -> None:
    model = build_model("mistral-sliding")
    queries = [TokenQuery((5, 6, 7, 8, 9, 10, 11), 0, 2), TokenQuery((12, 13), 0, 1)]
    shift = some_shift(queries)
    torch.testing.assert_close(
        run(captured(model, queries), shift),
        expected(model, queries, shift),
        atol=2e-4,
        rtol=1e-4,
    )


def test_eager_attention() -> None:
    model = build_model("llama-tied")
    model.set_attn_implementation("eager")
    shift = some_shift(QUERIES)
    torch.testing.assert_close(
        run(captured(model), shift), expected(model, QUERIES, shift), atol=2e-4, rtol=1e-4
    )


def test_only_the_layers_after_the_target_layer_are_run() -> None:
    model = build_model("llama-tied")
    replay = captured(model)
    ran = []
    for index, layer in enumerate(read_architecture(model).layers):
        layer.register_forward_hook(lambda _m, args, _o, i=index: ran.append((i, args[0].shape)))
    run(replay, torch.zeros(len(QUERIES), 32))
    # from the subject to the last place asked for: 6 tokens at the most, not the longest query's 9
    assert ran == [(2, (7, 6, 32)), (3, (7, 6, 32))]
