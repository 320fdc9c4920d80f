"""Figures show the numbers they are given, are the same at each writing, and touch nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any
from xml.etree import ElementTree

import pytest
from diagnoses import AWKWARD, NAMES, some_diagnosis
from places import HELPERS

from rose_easyedit.errors import RoSEError
from rose_easyedit.figures import canvas
from rose_easyedit.figures.before_after import before_after_figure, write_before_after
from rose_easyedit.figures.diagnosis import write_figures
from rose_easyedit.figures.edits import (
    certificate_figure,
    deviation_figure,
    landscape_figure,
    radius_figure,
)
from rose_easyedit.figures.keys import conflict_figure, similarity_figure, spectrum_figure
from rose_easyedit.figures.sequential import Point, sequential_figure, write_sequential
from rose_easyedit.geometry.similarity import KeySimilarity


@pytest.fixture
def styled() -> Iterator[None]:
    with canvas.style():
        yield


def test_every_figure_is_written_twice_alike(tmp_path: Path) -> None:
    import matplotlib

    written = []
    # nor do the user's own settings matter
    for name, own in (("first", {}), ("second", {"font.size": 30.0, "axes.facecolor": "black"})):
        (tmp_path / name).mkdir()
        with matplotlib.rc_context(own):
            paths = write_figures(some_diagnosis(), tmp_path / name)
        assert [path.name for path in paths] == [f"{n}.{e}" for n in NAMES for e in ("png", "svg")]
        written.append({path.name: path.read_bytes() for path in paths})
    assert written[0] == written[1]
    for name, content in written[0].items():
        if name.endswith(".png"):
            assert content.startswith(b"\x89PNG") and len(content) > 5000
        else:
            assert ElementTree.fromstring(content).tag.endswith("svg")
            assert not re.search(rb"\b20\d\d-\d\d-\d\d\b", content)


def test_without_pairs_there_is_no_figure_of_conflicts(tmp_path: Path) -> None:
    paths = write_figures(replace(some_diagnosis(), conflicts=()), tmp_path)
    assert "keys.png" in {path.name for path in paths}
    assert "conflict.png" not in {path.name for path in paths}


def test_one_edit_alone_can_be_drawn(tmp_path: Path) -> None:
    one = some_diagnosis()
    assert len(write_figures(replace(one, edits=one.edits[:1]), tmp_path)) == 2 * len(NAMES)


def test_the_users_settings_and_pyplot_are_left_alone(tmp_path: Path) -> None:
    code = """
import sys, warnings
warnings.simplefilter("error")
sys.path[:0] = [TESTS]
import rose_easyedit.figures.diagnosis, rose_easyedit.geometry.diagnosis
assert "matplotlib" not in sys.modules
import matplotlib
matplotlib.rcParams["font.size"] = 17
from pathlib import Path
from diagnoses import some_diagnosis
rose_easyedit.figures.diagnosis.write_figures(some_diagnosis(), Path("."))
names = ("font.size", "axes.grid", "svg.hashsalt")
assert [matplotlib.rcParams[name] for name in names] == [17, False, None]
assert "matplotlib.pyplot" not in sys.modules
""".replace("TESTS", repr(str(HELPERS)))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "keys.svg").is_file()


def test_without_matplotlib_the_error_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(canvas, "find_spec", lambda name: None)
    with pytest.raises(RoSEError, match=r"pip install 'rose-easyedit\[figures\]'"):
        write_figures(some_diagnosis(), tmp_path)
    assert not list(tmp_path.iterdir())


def drawn_figures() -> dict[str, Any]:
    found = some_diagnosis()
    own = found.edits[0]
    long = "hierarchical, null_space with a name that is rather long"
    return {
        "deviation": deviation_figure(
            {own.name: {"statement": [1.0]}, long: {"statement": [2.0]}}, {own.name: [40.0]}
        ),
        "radius": radius_figure({own.name: [1.0], "joint, protected": [2.0]}),
        "certificate": certificate_figure([1.0, 2.0], [3.0, 1.0], [True, False]),
        "zeros": certificate_figure([0.0], [0.0], [True]),
        "landscape": landscape_figure(AWKWARD, found.landscape_radii, {own.name: own.losses}),
        "keys": similarity_figure(found.similarity),
        "spectrum": spectrum_figure(found.spectra),
        "conflict": conflict_figure([0.5]),
    }


def test_nothing_is_cut_off(styled: None) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    for name, figure in drawn_figures().items():
        renderer = FigureCanvasAgg(figure).get_renderer()
        figure.draw(renderer)
        needed, (width, height) = figure.get_tightbbox(renderer), figure.get_size_inches()
        assert needed.x0 >= 0 and needed.y0 >= 0, name
        assert needed.x1 <= width and needed.y1 <= height, name


def test_every_axis_is_labelled(styled: None) -> None:
    for name, figure in drawn_figures().items():
        axes = figure.axes[0]
        assert axes.get_title(), name
        assert axes.get_ylabel() or name == "keys"
        # forms, edits and subjects are names, and their own labels
        assert axes.get_xlabel() or name in ("deviation", "radius", "keys")
    assert "cosine" in drawn_figures()["keys"].axes[1].get_ylabel()


def test_bars_are_mean_deviations_and_lines_mean_radii(styled: None) -> None:
    deviations = {
        "a": {"statement": [1.0, 3.0], "question": [10.0]},
        "b": {"question": [6.0, 8.0]},
    }
    axes = deviation_figure(deviations, {"a": [4.0, 6.0]}).axes[0]
    heights = [[bar.get_height() for bar in bars] for bars in axes.containers]
    assert heights == [[2.0, 10.0], [7.0]]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["statement", "question"]
    (line,) = axes.lines
    assert set(line.get_ydata()) == {5.0}
    # the second edit's bar is over its form, beside the first edit's
    (only,) = axes.containers[1]
    assert 1.0 < only.get_x() + only.get_width() / 2 < 1.5
    # told apart without colour
    hatches = {bars[0].get_hatch() for bars in axes.containers}
    assert len(hatches) == 2


def test_every_radius_is_a_dot(styled: None) -> None:
    axes = radius_figure({"a": [3.0, 1.0, 2.0], "b": [5.0]}).axes[0]
    dots = [line for line in axes.lines if line.get_marker() not in ("None", "", None)]
    assert [list(line.get_ydata()) for line in dots] == [[3.0, 1.0, 2.0], [5.0]]
    assert len({line.get_marker() for line in dots}) == 2


def test_the_certificate_divides_at_d_equal_r(styled: None) -> None:
    figure = certificate_figure([1.0, 2.0, 6.0], [3.0, 1.0, 5.0], [True, False, False])
    answered, not_answered, border = figure.axes[0].lines
    assert list(answered.get_xdata()) == [1.0] and list(answered.get_ydata()) == [3.0]
    assert list(not_answered.get_xdata()) == [2.0, 6.0]
    assert list(border.get_xdata()) == list(border.get_ydata())
    assert answered.get_marker() != not_answered.get_marker()
    right, top = figure.axes[0].get_xlim()[1], figure.axes[0].get_ylim()[1]
    assert right > 6.0 and top > 5.0


def test_one_query_far_off_leaves_the_others_their_room(styled: None) -> None:
    near = [20.0, 25.0, 30.0, 40.0]
    figure = certificate_figure([*near, 400.0], [200.0] * 5, [True] * 5)
    to_shares = (figure.axes[0].transData + figure.axes[0].transAxes.inverted()).transform
    places = [to_shares((value, 200.0))[0] for value in near]
    assert places[-1] - places[0] > 0.2


@pytest.mark.parametrize("radii", [[0.0, 200.0], [0.0, 0.0], [200.0, 201.0]])
def test_what_has_no_logarithm_is_at_the_edge(radii: list[float], styled: None) -> None:
    axes = certificate_figure([0.0, 12.0], radii, [True, True]).axes[0]
    (bottom, top), (left, right) = axes.get_ylim(), axes.get_xlim()
    assert 0 < bottom <= top / 4 and 0 < left <= right / 4
    points = axes.lines[0]
    assert all(left <= value <= right for value in points.get_xdata())
    assert all(bottom <= value <= top for value in points.get_ydata())


@pytest.mark.parametrize("radii", [[3.0], [200.0, 240.0], [0.0]])
def test_no_dot_of_a_radius_is_cut(radii: list[float], styled: None) -> None:
    axes = radius_figure({"a": radii}).axes[0]
    assert axes.get_ylim()[1] > 1.05 * max(radii)


def test_the_landscape_is_mean_and_extremes(styled: None) -> None:
    axes = landscape_figure("Curie", (-1.0, 0.0, 1.0), {"a": [[2, 0, 3], [4, 1, 1]]}).axes[0]
    (line,) = axes.lines
    assert list(line.get_ydata()) == [3.0, 0.5, 2.0]
    band = axes.collections[0].get_paths()[0].vertices
    assert {tuple(point) for point in band} >= {(-1.0, 2.0), (-1.0, 4.0), (1.0, 1.0), (1.0, 3.0)}


def test_the_heat_map_keeps_a_subjects_forms_together(styled: None) -> None:
    axes = similarity_figure(some_diagnosis().similarity).axes[0]
    (image,) = axes.images
    expected = [[1.0, 0.9, 0.2], [0.9, 0.8, 0.3], [0.2, 0.3, 1.0]]
    assert image.get_array().tolist() == expected
    assert [label.get_text() for label in axes.get_xticklabels()] == [AWKWARD, "Newton"]
    assert list(axes.get_xticks()) == [0.5, 2.0]
    assert "0.90 within, - across" in axes.get_title()


def test_many_subjects_are_drawn_without_labels(styled: None) -> None:
    cells = tuple((f"subject {i}", "statement") for i in range(40))
    matrix = tuple(tuple(float(i == j) for j in range(40)) for i in range(40))
    figure = similarity_figure(KeySimilarity(cells, matrix, None, 0.0))
    assert figure.axes[0].get_xlabel() == "subjects"
    assert figure.get_size_inches()[1] <= 9.0


def test_the_spectrum_is_on_log_axes_and_marks_the_outliers(styled: None) -> None:
    axes = spectrum_figure({7: [900.0, 3.0, 0.5], 11: [20.0, 10.0, 0.1]}).axes[0]
    assert axes.get_xscale() == axes.get_yscale() == "log"
    curves, marks = axes.lines[0::2], axes.lines[1::2]
    assert [list(curve.get_ydata()) for curve in curves] == [[900.0, 3.0, 0.5], [20.0, 10.0, 0.1]]
    assert [curve.get_label() for curve in curves] == ["layer 7", "layer 11"]
    assert [list(curve.get_xdata()) for curve in curves] == [[1, 2, 3]] * 2
    assert all(mark.get_marker() not in ("None", "") for mark in marks)
    assert len({str(curve.get_linestyle()) for curve in curves}) == 2


def test_the_histogram_counts_every_pair(styled: None) -> None:
    scores = [0.0, 0.52, 0.53, 1.0]
    axes = conflict_figure(scores).axes[0]
    counts = [bar.get_height() for bar in axes.patches]
    assert sum(counts) == 4 and counts[0] == 1 and counts[10] == 2 and counts[-1] == 1
    assert axes.lines[0].get_xdata()[0] == pytest.approx(fmean(scores))


def test_batches_one_after_another_are_a_line_and_one_batch_a_mark(tmp_path: Path) -> None:
    ways = {
        "extended": [Point(25, 0.9, 0.1), Point(50, 0.8, 0.2)],
        "one batch": [Point(50, 0.8, 0.2)],
    }
    with canvas.style():
        figure = sequential_figure(ways)
    success, drift = figure.axes
    assert [list(line.get_xdata()) for line in success.lines] == [[25, 50], [50]]
    assert [list(line.get_ydata()) for line in success.lines] == [[0.9, 0.8], [0.8]]
    assert [list(line.get_ydata()) for line in drift.lines] == [[0.1, 0.2], [0.2]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(ways)
    first = [path.read_bytes() for path in write_sequential(ways, tmp_path / "a")]
    assert first == [path.read_bytes() for path in write_sequential(ways, tmp_path / "b")]


WRITTEN = {"A": {"statements": 1.0, "questions": 0.25}, "B": {"statements": 0.5, "questions": 0.75}}
KEPT = {"A": {"other facts": 0.0}, "B": {"other facts": 1.0}}


def test_what_changed_and_what_stayed_are_bars_of_the_given_height(styled: None) -> None:
    figure = before_after_figure(WRITTEN, KEPT)
    for axes, shares in zip(figure.axes, (WRITTEN, KEPT), strict=True):
        drawn = [bar.get_height() for bar in axes.patches]
        assert drawn == [share for of_method in shares.values() for share in of_method.values()]
        kinds = [label.get_text() for label in axes.get_xticklabels()]
        assert kinds == list(next(iter(shares.values())))
        middles = [bar.get_x() + bar.get_width() / 2 for bar in axes.patches]
        assert [round(middle) for middle in middles] == 2 * list(range(len(kinds)))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["A", "B"]


def test_what_changed_is_written_twice_alike(tmp_path: Path) -> None:
    first, second = (write_before_after(WRITTEN, KEPT, tmp_path / name) for name in ("a", "b"))
    assert [path.name for path in first] == ["before_after.png", "before_after.svg"]
    assert [a.read_bytes() == b.read_bytes() for a, b in zip(first, second, strict=True)] == [
        True
    ] * 2
