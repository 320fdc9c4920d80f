"""What the jobs of a sweep set, and how they are told apart: by colours, shapes and dashes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rose_easyedit.experiment.summary_table import RunRow

COLOURS = 7  # of the style sheet, `--c0` and on
SHAPES = 4  # of `report_figures.SYMBOLS`
UNSET = "(not set)"


@dataclass(frozen=True)
class Looks:
    """Which settings decide on colours and shapes, and their values in order.

    Attributes:
        colour_key: the setting that the colour tells; empty if there is none.
        colours: its values.
        shape_key: the setting that the shape and the dashes tell; empty if there is none.
        shapes: its values.
    """

    colour_key: str
    colours: Sequence[str]
    shape_key: str
    shapes: Sequence[str]

    def colour(self, row: RunRow) -> int:
        """The number of the job's colour."""
        return self.colours.index(setting(row, self.colour_key)) if self.colour_key else 0

    def shape(self, row: RunRow) -> int:
        """The number of the job's shape, and of its dashes."""
        return self.shapes.index(setting(row, self.shape_key)) if self.shape_key else 0


def looks_of(rows: Sequence[RunRow]) -> Looks:
    """Colours for the first setting with few enough values, shapes for the next.

    Settings in words come before numbers, which have an axis of their own.
    """
    values = {key: values_of(rows, key) for key in swept_keys(rows)}
    keys = sorted(values, key=lambda key: is_numeric(values[key]))
    colour = next((key for key in keys if len(values[key]) <= COLOURS), "")
    others = (key for key in keys if key != colour)
    shape = next((key for key in others if len(values[key]) <= SHAPES), "")
    return Looks(colour, values.get(colour, []), shape, values.get(shape, []))


def setting(row: RunRow, key: str) -> str:
    """What a job sets a key to."""
    return row.swept.get(key, UNSET)


def swept_keys(rows: Sequence[RunRow]) -> list[str]:
    """The keys that differ, of these jobs."""
    keys = dict.fromkeys(key for row in rows for key in row.swept)
    return [key for key in keys if len({setting(row, key) for row in rows}) > 1]


def values_of(rows: Iterable[RunRow], key: str) -> list[str]:
    """Each value that the jobs set a key to, once: numbers by their size, words as they came."""
    distinct = list(dict.fromkeys(setting(row, key) for row in rows))
    return sorted(distinct, key=float) if is_numeric(distinct) else distinct


def is_numeric(values: Iterable[str]) -> bool:
    """Whether all of them are numbers."""
    return all(as_number(value) is not None for value in values)


def as_number(word: str) -> float | None:
    """The number that a word on a command line is, if it is one."""
    try:
        number = float(word)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def brief(value: str) -> str:
    """A value with four digits, where a search has tried one with more."""
    number = as_number(value)
    return value if number is None or len(value) <= 6 else f"{number:.4g}"


def label(row: RunRow) -> str:
    """A job in a few words."""
    values = ", ".join(map(brief, row.swept.values()))
    return f"job {row.number}: {values}" if values else f"job {row.number}"
