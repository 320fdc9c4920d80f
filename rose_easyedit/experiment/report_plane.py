"""A plane with two axes, and single upright axes, in SVG."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rose_easyedit.experiment.report_scales import Axis, Numbers
from rose_easyedit.experiment.report_svg import Point, drawing, line, tag, text

if TYPE_CHECKING:
    from markupsafe import Markup

_LEFT, _RIGHT, _TOP, _BELOW = 56.0, 16.0, 28.0, 46.0


@dataclass(frozen=True)
class Plane:
    """Where numbers lie in a picture.

    Attributes:
        width: of the picture, in pixels.
        height: of the picture, in pixels.
        x: runs to the right.
        y: runs upwards.
    """

    width: float
    height: float
    x: Numbers
    y: Numbers

    def at(self, x: float, y: float) -> Point:
        """Where a point is drawn."""
        across = self.width - _LEFT - _RIGHT
        up = self.height - _TOP - _BELOW
        return _LEFT + across * self.x.place(x), _TOP + up * (1 - self.y.place(y))

    def drawn(self, *inner: Markup, title: str) -> Markup:
        """The picture: axes, and what lies between them."""
        bottom, right = self.height - _BELOW, self.width - _RIGHT
        parts = []
        for place, words in self.y.ticks:
            y = _TOP + (bottom - _TOP) * (1 - place)
            parts.append(line((_LEFT, y), (right, y), "grid"))
            parts.append(text(words, _LEFT - 7, y + 4, anchor="end"))
        for place, words in self.x.ticks:
            x = _LEFT + (right - _LEFT) * place
            parts.append(line((x, bottom), (x, bottom + 4), "axis"))
            parts.append(text(words, x, bottom + 17, anchor="middle"))
        parts.append(line((_LEFT, bottom), (right, bottom), "axis"))
        middle = (_LEFT + right) / 2
        parts.append(text(_named(self.x), middle, self.height - 8, anchor="middle", class_="name"))
        parts.append(text(_named(self.y), 4, 14, class_="name"))
        return drawing(self.width, self.height, *parts, *inner, title=title)


def upright(axis: Axis, top: Point, foot: Point) -> Markup:
    """An axis of its own, with its title above it."""
    parts = [line(top, foot, "axis")]
    for place, words in axis.ticks:
        y = foot[1] + (top[1] - foot[1]) * place
        parts.append(line((top[0] - 4, y), (top[0], y), "axis"))
        parts.append(text(_short(words, 16), top[0] + 5, y + 4, class_="over"))
    for number, words in enumerate(_lines(_named(axis))):
        parts.append(text(words, top[0], top[1] - 28 + 14 * number, anchor="middle", class_="name"))
    return tag("g", *parts)


def _named(axis: Axis) -> str:
    return f"{axis.title}, log" if isinstance(axis, Numbers) and axis.logarithmic else axis.title


def _lines(title: str) -> list[str]:
    """A title in at most two lines of like length."""
    words = title.replace("_", "_ ").split()
    if len(title) <= 14 or len(words) == 1:
        return [_short(title, 18)]
    cut = min(range(1, len(words)), key=lambda at: abs(len(" ".join(words[:at])) - len(title) / 2))
    halves = (" ".join(words[:cut]), " ".join(words[cut:]))
    return [_short(half.replace("_ ", "_"), 18) for half in halves]


def _short(words: str, length: int) -> str:
    return words if len(words) <= length else words[: length - 1] + "\u2026"
