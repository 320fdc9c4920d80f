"""How the jobs of a sweep are told apart: a colour by one setting, a shape by another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rose_easyedit.experiment.report_scales import UNSET, as_number, in_order
from rose_easyedit.experiment.summary_table import RunRow

COLOURS = 7  # of the style sheet, `--c0` and on
SHAPES = ("circle", "square", "triangle", "diamond")
DASHES = ("", "7 3", "2 3", "9 3 2 3")


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


def setting(row: RunRow, key: str) -> str:
    """What a job sets a key to."""
    return row.swept.get(key, UNSET)


def swept_keys(rows: Sequence[RunRow]) -> list[str]:
    """The keys that differ, of these jobs."""
    keys = dict.fromkeys(key for row in rows for key in row.swept)
    return [key for key in keys if len({setting(row, key) for row in rows}) > 1]


def looks_of(rows: Sequence[RunRow]) -> Looks:
    """Colours for the first setting with few enough values, shapes for the next."""
    values = {key: in_order(setting(row, key) for row in rows) for key in swept_keys(rows)}
    colour = next((key for key, of in values.items() if len(of) <= COLOURS), "")
    shape = next(
        (key for key, of in values.items() if key != colour and len(of) <= len(SHAPES)), ""
    )
    return Looks(colour, values.get(colour, []), shape, values.get(shape, []))


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Key to its last word, where that is not another's too."""
    last = [key.rpartition(".")[2] for key in keys]
    return {
        key: word if last.count(word) == 1 else key for key, word in zip(keys, last, strict=True)
    }


def brief(value: str) -> str:
    """A value with four digits, where a search has tried one with more."""
    number = as_number(value)
    return value if number is None or len(value) <= 6 else f"{number:.4g}"


def label(row: RunRow) -> str:
    """A job in a few words."""
    values = ", ".join(map(brief, row.swept.values()))
    return f"job {row.number}: {values}" if values else f"job {row.number}"
