"""Where a value lies on an axis: words side by side, numbers evenly or by their logarithm."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# From this ratio of the largest to the smallest, an axis of positive numbers is logarithmic.
_WIDE = 20.0
# What is smaller counts as nothing.
_LEAST = 1e-12
UNSET = "(not set)"


@dataclass(frozen=True)
class Words:
    """An axis of words, in the order in which they came.

    Attributes:
        values: all of them.
        title: of the axis.
    """

    title: str
    values: Sequence[str]

    def place(self, value: str) -> float:
        """Between 0 and 1, the first the highest."""
        return 1 - (self.values.index(value) + 0.5) / len(self.values)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Place and label of each word."""
        return [(self.place(value), value) for value in self.values]


@dataclass(frozen=True)
class Numbers:
    """An axis of numbers.

    Attributes:
        title: of the axis.
        low: where it begins.
        high: where it ends; above `low`.
        step: from tick to tick, unless it is logarithmic.
        logarithmic: even steps are even ratios.
        turned: it runs downwards.
        rate: it is written in percent.
    """

    title: str
    low: float
    high: float
    step: float
    logarithmic: bool = False
    turned: bool = False
    rate: bool = False

    @classmethod
    def around(
        cls,
        title: str,
        values: Sequence[float],
        *,
        zero: bool = False,
        rate: bool = False,
        turned: bool = False,
    ) -> Numbers:
        """An axis with round ends that holds the values.

        Args:
            title: of the axis.
            values: one or more.
            zero: it begins at zero, unless it is logarithmic.
            rate: the values are parts of a whole, at most 1, and written in percent.
            turned: it runs downwards.
        """
        low, high = min(values), max(values)
        if low > _LEAST and high / low >= _WIDE and not rate:
            round_ones = _round_numbers(low, high)
            low = max(number for number in round_ones if number <= low)
            high = min(number for number in round_ones if number >= high)
            return cls(title, low, high, 1.0, logarithmic=True, turned=turned)
        if zero:
            low = min(low, 0.0)
        size = max(abs(low), abs(high))
        # differences that only rounding makes are none
        length = high - low if high - low > 1e-9 * size else size
        step = _step(length if length > _LEAST else 1.0)
        if all(float(value).is_integer() for value in values):
            step = max(step, 1.0)
        low, high = math.floor(low / step) * step, math.ceil(high / step) * step
        if low == high:
            low, high = (low - step, high) if rate and high == 1 else (low, high + step)
        high = min(high, 1.0) if rate else high
        return cls(title, low, high, step, turned=turned, rate=rate)

    def place(self, value: float) -> float:
        """Between 0 and 1."""
        low, high = self.low, self.high
        if self.logarithmic:
            low, high, value = math.log10(low), math.log10(high), math.log10(value)
        place = (value - low) / (high - low)
        return 1 - place if self.turned else place

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Place and label of round numbers."""
        if self.logarithmic:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            every = math.ceil((last - first) / 6)
            values = [float(f"1e{power}") for power in range(first, last + 1, every)]
            if last - first <= 3:
                values = _round_numbers(self.low, self.high)
            values = [value for value in values if self.low <= value <= self.high]
        else:
            count = math.floor((self.high - self.low) / self.step + 1e-6)
            values = [self.low + self.step * number for number in range(count + 1)]
        words = [f"{100 * value:.4g}%" if self.rate else f"{value:.6g}" for value in values]
        return [(self.place(value), word) for value, word in zip(values, words, strict=True)]


Axis = Words | Numbers


def setting_axis(title: str, values: Sequence[str]) -> Axis:
    """The axis of a swept setting: of numbers, if all of its values are, and they are several."""
    distinct = in_order(values)
    numbers = [number for number in map(as_number, distinct) if number is not None]
    if len(distinct) < 3 or len(numbers) < len(distinct):
        return Words(title, distinct)
    return Numbers.around(title, numbers)


def in_order(values: Iterable[str]) -> list[str]:
    """Each value once: numbers by their size, words as they came."""
    distinct = list(dict.fromkeys(values))
    if all(as_number(value) is not None for value in distinct):
        return sorted(distinct, key=float)
    return distinct


def as_number(word: str) -> float | None:
    """The number that a word on a command line is, if it is one."""
    try:
        number = float(word)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _round_numbers(low: float, high: float) -> list[float]:
    """1, 2 and 5 with the powers of ten around two numbers."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [float(f"{digit}e{power}") for power in powers for digit in (1, 2, 5)]


def _step(length: float) -> float:
    """A round number that goes into a length three to eight times."""
    power = 10.0 ** math.floor(math.log10(length))
    ratio = length / power
    return power * (0.2 if ratio < 1.6 else 0.5 if ratio < 4 else 1.0 if ratio < 8 else 2.0)
