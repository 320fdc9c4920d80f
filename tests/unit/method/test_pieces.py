"""How rows are dealt out to turns and cut into pieces."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import torch
from hypothesis import given
from hypothesis import strategies as st

from rose_easyedit.forward.shared_prefix import price_of_a_pass
from rose_easyedit.method.stage1.pieces import (
    Group,
    PieceRow,
    count_turns,
    cut,
    make_rows,
)
from rose_easyedit.text.locate_subject import TokenQuery

PRICE = price_of_a_pass(torch.device("cpu"))


def row(width: int, number: int = 0) -> PieceRow:
    return PieceRow("r", TokenQuery(tuple(range(width + 1)), 0, 1), 0, number, 1.0)


def run_tokens(pieces: list[list[PieceRow]]) -> int:
    return sum(len(piece) * max(row.width for row in piece) for piece in pieces)


def test_the_width_is_what_is_run_from_the_subject_on() -> None:
    assert PieceRow("r", TokenQuery((1, 2, 3, 4, 5), 1, 2), 0, 0, 1.0).width == 3
    assert PieceRow("r", TokenQuery((1, 2, 3), 1, 0), 0, -1, 0.0).width == 2


def test_rows_of_like_length_run_together() -> None:
    rows = [row(2, number=i) for i in range(40)] + [row(12, number=i) for i in range(40)]
    pieces = cut(rows[::-1], 64, PRICE)
    assert [sorted({row.width for row in piece}) for piece in pieces] == [[2], [12]]


def test_a_few_longer_rows_are_no_piece_of_their_own() -> None:
    assert len(cut([row(2), row(3), row(4), row(8)], 64, PRICE)) == 1


def test_where_calls_cost_more_than_tokens_rows_run_together() -> None:
    rows = [row(2, number=i) for i in range(40)] + [row(12, number=i) for i in range(40)]
    assert len(cut(rows, 80, price_of_a_pass(torch.device("cuda")))) == 1


@given(st.lists(st.integers(1, 30), min_size=1, max_size=60), st.integers(1, 20))
def test_pieces_hold_every_row_once_within_the_bound(widths: list[int], most: int) -> None:
    rows = [row(width, number=1000 * i) for i, width in enumerate(widths)]
    pieces = cut(rows, most, PRICE)
    assert all(0 < len(piece) <= most for piece in pieces)
    assert sorted(row.fact for piece in pieces for row in piece) == [row.fact for row in rows]
    of_like_length = [row.width for piece in pieces for row in piece]
    assert all(one <= next_ for one, next_ in pairwise(of_like_length))
    one_by_one = [rows[i : i + most] for i in range(0, len(rows), most)]
    assert run_tokens(pieces) <= run_tokens(one_by_one) + PRICE * len(one_by_one)


def group(n_facts: int, n_queries: int) -> Group:
    facts = [[TokenQuery((f, q, 9), 0, 1) for q in range(n_queries)] for f in range(n_facts)]
    return Group("g", tuple(map(tuple, facts)), (TokenQuery((7, 8), 0, 0),))


def test_one_turn_has_everything() -> None:
    [rows] = make_rows([group(2, 3), group(1, 2)], 1)
    assert [(row.group, row.fact) for row in rows] == [
        *[(0, 0)] * 3,
        *[(0, 1)] * 3,
        (0, -1),
        *[(1, 2)] * 2,
        (1, -1),
    ]
    assert {row.fact: row.weight for row in rows} == {0: 1 / 3, 1: 1 / 3, -1: 1.0, 2: 1 / 2}
    assert len({row.name for row in make_rows([group(2, 3)], 1)[0]}) == 7


def test_turns_share_out_the_contexts_and_what_is_kept() -> None:
    first, second = make_rows([group(1, 5), group(1, 2)], 2)
    assert [row.fact for row in first] == [0, 0, 0, -1, 1, -1]
    assert [row.fact for row in second] == [0, 0, 1]
    more = replace(group(1, 2), kept=(TokenQuery((7, 8), 0, 0),) * 3)
    turns = make_rows([more], 2)
    assert [[row.fact for row in rows] for rows in turns] == [[0, -1, -1], [0, -1]]
    assert {row.weight for rows in turns for row in rows if row.fact < 0} == {1 / 3}


def test_there_are_no_more_turns_than_contexts() -> None:
    assert count_turns([group(1, 3), group(1, 2)], 9) == 3
    assert count_turns([group(1, 3), group(1, 2)], 2) == 2
