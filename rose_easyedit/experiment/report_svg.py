"""Elements of SVG as escaped text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rose_easyedit.experiment.report_looks import DASHES, SHAPES, Looks, label
from rose_easyedit.experiment.summary_table import RunRow

if TYPE_CHECKING:
    from markupsafe import Markup

Point = tuple[float, float]


def tag(name: str, *inner: str, **attributes: object) -> Markup:
    """An element; `data_job` is written `data-job`, `class_` as `class`, None is left out.

    Numbers are rounded to a tenth of a pixel.
    """
    from markupsafe import Markup

    words = [
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _plain(value))
        for key, value in attributes.items()
        if value is not None
    ]
    content = Markup("").join(inner)
    return Markup("<{0}{1}>{2}</{0}>").format(name, Markup("").join(words), content)


def drawing(width: float, height: float, *inner: str, title: str) -> Markup:
    """A whole picture, with a name for those who do not see it."""
    size = {"viewBox": f"0 0 {width:g} {height:g}", "style": f"min-width:{width * 0.8:g}px"}
    return tag("svg", *inner, class_="chart", role="group", aria_label=title, **size)


def text(words: str, x: float, y: float, *, anchor: str = "start", class_: str = "") -> Markup:
    """Words at a place."""
    return tag("text", words, x=x, y=y, text_anchor=anchor, class_=class_ or None)


def line(one: Point, other: Point, class_: str) -> Markup:
    """A straight line."""
    return tag("line", x1=one[0], y1=one[1], x2=other[0], y2=other[1], class_=class_)


def path_of(points: Sequence[Point | None]) -> str:
    """A line through points, broken at each None."""
    words, pen = [], "M"
    for point in points:
        if point is not None:
            words.append(f"{pen}{point[0]:.1f} {point[1]:.1f}")
        pen = "M" if point is None else "L"
    return "".join(words)


def lone_points(points: Sequence[Point | None]) -> list[Point]:
    """Those without a neighbour, of which a line shows nothing."""
    around = zip([None, *points], points, [*points[1:], None], strict=False)
    return [
        point
        for before, point, after in around
        if point is not None and before is None and after is None
    ]


def job_line(
    row: RunRow, looks: Looks, points: Sequence[Point | None], more: str, *, easy: bool = True
) -> Markup:
    """A job's line; `more` is said of it when it is pointed at, which `easy` makes easier."""
    dash = DASHES[looks.shape(row) % len(DASHES)]
    drawn = [tag("path", d=path_of(points), stroke_dasharray=dash or None)]
    drawn += [mark(looks.shape(row), point, 3.0) for point in lone_points(points)]
    if easy:
        drawn.append(tag("path", d=path_of(points), class_="wide"))
    return _job(row, looks, *drawn, more=more)


def job_mark(row: RunRow, looks: Looks, place: Point, more: str) -> Markup:
    """A job's point."""
    return _job(row, looks, mark(looks.shape(row), place), more=more)


def mark(shape: int, place: Point, size: float = 5.0) -> Markup:
    """One of the shapes."""
    x, y = place
    name = SHAPES[shape % len(SHAPES)]
    if name == "circle":
        return tag("circle", cx=x, cy=y, r=size)
    corners = {
        "square": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
        "triangle": [(0, -1.2), (1.1, 0.9), (-1.1, 0.9)],
        "diamond": [(0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)],
    }[name]
    points = " ".join(f"{x + size * dx:.1f},{y + size * dy:.1f}" for dx, dy in corners)
    return tag("polygon", points=points)


def legend(looks: Looks) -> list[tuple[str, list[tuple[Markup, str]]]]:
    """The settings that colours and shapes tell, with a sample and the words of each value."""
    coloured = [(_sample(number, 0), value) for number, value in enumerate(looks.colours)]
    shaped = [(_sample(None, number), value) for number, value in enumerate(looks.shapes)]
    told = [(looks.colour_key, coloured), (looks.shape_key, shaped)]
    return [(key, samples) for key, samples in told if key]


def _sample(colour: int | None, shape: int) -> Markup:
    across = tag("path", d="M2 8L34 8", stroke_dasharray=DASHES[shape] or None)
    group = tag(
        "g",
        across,
        mark(shape, (18, 8)),
        class_="job plain" if colour is None else f"job c{colour}",
    )
    return tag("svg", group, viewBox="0 0 36 16", width=36, height=16, aria_hidden="true")


def _job(row: RunRow, looks: Looks, *inner: str, more: str) -> Markup:
    words = f"{label(row)}; {more}"
    return tag(
        "g",
        tag("title", words),
        *inner,
        class_=f"job c{looks.colour(row)}",
        data_job=row.number,
        tabindex=0,
        role="img",
        aria_label=words,
    )


def _plain(value: object) -> object:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else value
