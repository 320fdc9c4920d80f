"""Axes of a sweep's report: round, and with every value on them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rose_easyedit.experiment.report_looks import brief
from rose_easyedit.experiment.report_scales import UNSET, Numbers, Words, setting_axis

NUMBERS = st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=1, max_size=6)


@given(NUMBERS, st.booleans(), st.booleans())
def test_every_number_and_every_tick_is_on_the_axis(
    values: list[float], zero: bool, turned: bool
) -> None:
    axis = Numbers.around("", values, zero=zero, turned=turned)
    places = [axis.place(value) for value in values] + [place for place, _ in axis.ticks]
    assert all(-1e-6 <= place <= 1 + 1e-6 for place in places)
    assert 2 <= len(axis.ticks) <= 12
    assert not zero or axis.logarithmic or axis.low <= 0
    low, high = axis.place(min(values)), axis.place(max(values))
    assert low >= high if turned else low <= high


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_a_rate_is_never_more_than_the_whole(values: list[float]) -> None:
    axis = Numbers.around("", values, rate=True)
    assert axis.low < axis.high <= 1
    assert all(word.endswith("%") for _, word in axis.ticks)


def test_ratios_are_even_on_a_wide_axis() -> None:
    axis = Numbers.around("", [0.02, 5.0])
    assert axis.logarithmic
    assert [word for _, word in axis.ticks] == ["0.02", "0.05", "0.1", "0.2", "0.5", "1", "2", "5"]
    assert axis.place(0.02) == 0 and axis.place(5) == 1
    assert axis.place(0.2) - axis.place(0.02) == pytest.approx(axis.place(1) - axis.place(0.1))
    many = Numbers.around("", [3e-9, 2.0])
    assert [word for _, word in many.ticks] == ["1e-07", "1e-05", "0.001", "0.1"]
    assert not Numbers.around("", [0.0, 5.0]).logarithmic


def test_whole_numbers_have_whole_ticks() -> None:
    assert [word for _, word in Numbers.around("", [1, 2]).ticks] == ["1", "2"]


def test_settings_are_words_unless_they_are_several_numbers() -> None:
    words = setting_axis("", ["joint", "none", "joint"])
    assert isinstance(words, Words)
    assert words.ticks == [(0.75, "joint"), (0.25, "none")]
    assert isinstance(setting_axis("", ["1", "2", "3"]), Numbers)
    assert isinstance(setting_axis("", ["1", "2", UNSET]), Words)
    assert [brief(word) for word in ("0.123456", "1e-10", "1000000", "joint")] == [
        "0.1235", "1e-10", "1e+06", "joint",
    ]  # fmt: skip
    two = setting_axis("", ["10", "9"])
    assert isinstance(two, Words) and list(two.values) == ["9", "10"]
