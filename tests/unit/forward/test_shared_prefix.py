"""Tokens that all rows share: found, and read once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import build_model
from transformers import DynamicCache

from rose_easyedit.forward.activations import frozen, read_subject_states
from rose_easyedit.forward.batches import batches
from rose_easyedit.forward.shared_prefix import (
    common_opening,
    distinct,
    families,
    read_shared_prefix,
)
from rose_easyedit.models.architectures import read_architecture
from rose_easyedit.text.locate_subject import TokenQuery

SYSTEM = tuple(range(100, 120))


def test_the_opening_leaves_each_row_a_token() -> None:
    assert common_opening([(1, 2, 3, 4), (1, 2, 5)]) == 2
    assert common_opening([(1, 2, 3), (1, 2, 3)]) == 2
    assert common_opening([(1,), (1, 2)]) == 0
    assert common_opening([(1, 2), (3, 2)]) == 0


def test_families_open_alike_and_the_rest_comes_last() -> None:
    other = tuple(range(200, 220))
    rows = [(1, 2), (*SYSTEM, 1), (*other, 1), (1, 2), (*SYSTEM, 2, 3), tuple(range(300, 330))]
    assert families(rows, price=10) == [[1, 4], [0, 2, 3, 5]]
    assert families(rows, price=11) == [[0, 1, 2, 3, 4, 5]]  # twenty tokens pay for two passes
    assert families([SYSTEM, SYSTEM], price=9) == [[0, 1]]
    assert families([], price=1) == []


def test_a_family_within_a_family_shares_more() -> None:
    near = [(*SYSTEM, 7, 8, 9, 10, n) for n in range(5)]
    far = [(*SYSTEM, n) for n in range(30, 33)]
    rows = [near[0], far[0], *near[1:], *far[1:]]
    assert families(rows, price=8) == [[0, 2, 3, 4, 5], [1, 6, 7]]
    # without the near ones, what is left of the far ones would not pay for passes of its own
    assert families([*near, far[0], (1,)], price=8) == [[0, 1, 2, 3, 4], [5, 6]]


@given(
    rows=st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8).map(tuple), max_size=30),
    price=st.integers(1, 6),
)
def test_families_hold_each_row_once_and_pay_for_themselves(
    rows: list[tuple[int, ...]], price: int
) -> None:
    found = families(rows, price)
    assert sorted(i for family in found for i in family) == list(range(len(rows)))
    for family in found[:-1]:  # the last may be of those that share nothing
        saved = (len(family) - 1) * common_opening([rows[i] for i in family])
        assert saved >= 2 * price


@pytest.mark.parametrize("name", ["llama-tied", "gpt2", "gemma2"])
def test_a_cached_opening_is_the_opening(name: str) -> None:
    model = build_model(name)
    rows = torch.tensor([[*SYSTEM, 1, 2], [*SYSTEM, 3, 4]])
    cache = DynamicCache()
    with torch.no_grad():
        read_shared_prefix(model.base_model, SYSTEM, cache, 2)
        found = model(rows[:, 20:], past_key_values=cache).logits
        wanted = model(rows).logits[:, 20:]
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_batches_hold_every_row_once_and_share_what_they_can() -> None:
    long = SYSTEM * 7
    rows = [(1,), (*long, 1), (2, 3), (*long, 2, 3), (4, 5, 6)]
    found = list(batches(rows, 2, torch.device("cpu")))
    assert [list(batch.indices) for batch in found] == [[1, 3], [0, 2], [4]]
    assert found[0].shared_prefix == long
    assert found[0].ids.tolist() == [[1, 0], [2, 3]] and found[0].mask.tolist() == [[1, 0], [1, 1]]
    assert found[2].shared_prefix == () and found[2].ids.tolist() == [
        [4, 5, 6]
    ]  # alone, and read at once
    for batch in batches(rows, 2, torch.device("cpu"), share=False):
        assert batch.shared_prefix == ()
        kept = [ids[mask.bool()].tolist() for ids, mask in zip(batch.ids, batch.mask, strict=True)]
        assert kept == [list(rows[i]) for i in batch.indices]


@pytest.mark.parametrize(
    "name", ["llama-tied", "gpt2", "gemma2", "gpt_neox-parallel", "mistral-sliding"]
)
def test_states_behind_an_opening_are_those_of_the_whole_row(name: str) -> None:
    model = build_model(name)
    texts = [(*SYSTEM, 7, 8, 9), (5, 6), *((*SYSTEM, n, n) for n in range(8))]
    queries = [TokenQuery(ids, len(ids) - 1, 0) for ids in texts]

    def read(queries: list[TokenQuery]) -> Any:
        with frozen(model):
            return read_subject_states(
                read_architecture(model), queries, key_layer=1, hidden_layer=2, batch=8
            )

    together = read(queries)
    for row, query in enumerate(queries):
        alone = read([TokenQuery((*query.ids, 1), query.subject, 0)])
        for field in ("keys", "outputs", "hidden"):
            torch.testing.assert_close(
                getattr(together, field)[row], getattr(alone, field)[0], atol=1e-4, rtol=1e-4
            )


def test_the_same_text_is_read_once() -> None:
    model = build_model("llama-tied")
    read: list[int] = []

    def count(_module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        read.append(len(kwargs["input_ids"]))

    texts = [(5, 6), (7, 8, 9), (5, 6), (5, 6)]
    # what comes behind the subject is of no concern
    queries = [TokenQuery((*text, 20 + i), len(text) - 1, 1) for i, text in enumerate(texts)]
    with frozen(model):
        handle = model.base_model.register_forward_pre_hook(count, with_kwargs=True)
        states = read_subject_states(
            read_architecture(model), queries, key_layer=1, hidden_layer=2, batch=8
        )
        handle.remove()
    assert sum(read) == 2
    for field in (states.keys, states.outputs, states.hidden):
        assert torch.equal(field[0], field[2]) and torch.equal(field[0], field[3])
        assert not torch.allclose(field[0], field[1])


def test_distinct_rows_stand_for_those_with_their_key() -> None:
    assert distinct(["a", "B", "b", "A", "c"], str.lower) == (["a", "B", "c"], [0, 1, 1, 0, 2])
    assert distinct([], len) == ([], [])
