"""Amounts as people say them."""

from __future__ import annotations

import pytest

from rose_easyedit.files.amounts import counted, duration


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "0.0 s"),
        (4.26, "4.3 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min"),
        (200.1, "3 min 20 s"),
        (3599.7, "1 h"),
        (7500.0, "2 h 5 min"),
        (-1.0, "0.0 s"),
    ],
)
def test_times_are_for_people(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_one_is_no_plural() -> None:
    assert counted(1, "subject") == "1 subject"
    assert counted(0, "pair") == "0 pairs"
    assert counted(1200, "query", "queries") == "1,200 queries"
