"""The maths of a diagnosis on hand-made numbers with known answers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import Bool, Float, Float32, Float64
from shapes import shaped, shapes_held
from torch import Tensor

from rose_easyedit.errors import RoSEError
from rose_easyedit.geometry import conflict, edits, radius, similarity, suffix
from rose_easyedit.geometry.certificate import Certificate, area_under_roc, certify, margin
from rose_easyedit.geometry.edits import QueryGeometry
from rose_easyedit.geometry.settings import SIZES, DiagnosisSettings

ROWS, PAIRS = Float[Tensor, "N width"], Float64[Tensor, "N N"]
RAYS, POINTS = Float[Tensor, "N"], Float[Tensor, "B d"]
cosines = shaped(similarity.cosines, vectors=ROWS, returns=PAIRS)
key_similarity = shaped(similarity.key_similarity, keys=ROWS)
conflict_scores = shaped(conflict.conflict_scores, gradients=ROWS, returns=PAIRS)
conflicts_within = shaped(conflict.conflicts_within, gradients=ROWS)
deviations = shaped(edits.deviations, hidden=ROWS, targets=ROWS, returns=Float64[Tensor, "N"])
largest_radii = shaped(radius.largest_radii, cap=RAYS, returns=RAYS)
summarise = shaped(radius.summarise, radii=Float[Tensor, "F U"], norms=Float[Tensor, "F"])
unit_directions = shaped(suffix.unit_directions, returns=Float32[Tensor, "{number} {width}"])
decoded_at = shaped(suffix.decoded_at, hidden=POINTS, returns=Bool[Tensor, "B"])
losses_at = shaped(suffix.losses_at, hidden=POINTS, returns=Float[Tensor, "B"])


@pytest.fixture(autouse=True, scope="module")
def shapes() -> Iterator[None]:
    """What these functions call by themselves keeps to its shapes, too."""
    per_query = dict(values=Float[Tensor, "M"], returns=Float[Tensor, "B"])
    with (
        shapes_held(similarity, cosines=dict(vectors=ROWS, returns=PAIRS)),
        shapes_held(conflict, cosines=dict(vectors=ROWS, returns=PAIRS)),
        shapes_held(suffix, _mean_per_query=per_query),
    ):
        yield


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_the_deviation_is_a_distance() -> None:
    hidden = torch.tensor([[3.0, 4.0], [1.0, 1.0]])
    assert deviations(hidden, torch.tensor([[0.0, 0.0], [1.0, 1.0]])).tolist() == [5.0, 0.0]


@pytest.mark.parametrize(("deviation", "certified"), [(4.0, True), (5.0, True), (6.0, False)])
def test_a_query_within_the_radius_is_certified(deviation: float, certified: bool) -> None:
    query = QueryGeometry(0, "question", "Who?", deviation, 9.0, 20.0, 10.0, 5.0, "She.", False)
    record = query.as_dict()
    assert record["certified"] == certified
    assert record["deviation_of_target"] == deviation / 20
    assert record["deviation_of_hidden"] == deviation / 10
    assert record["form"] == "question" and record["radius"] == 5.0


def test_a_fact_is_decoded_when_every_token_of_its_target_is() -> None:
    """Two queries over three tokens: the first has two target tokens, the second one."""
    likeliest = torch.tensor([0, 1, 2])

    def log_probabilities(shift: Tensor) -> Tensor:
        # the second query's hidden state decides what it predicts
        predicted = torch.stack([likeliest[0], likeliest[1], shift[1, 0].long()])
        return torch.nn.functional.one_hot(predicted, 3).float().log_softmax(-1)

    def replay(*targets: int) -> Any:
        return SimpleNamespace(
            hidden=torch.zeros(2, 1, 1),
            subject_hidden=torch.ones(2, 1),
            rows=torch.tensor([0, 0, 1]),
            targets=torch.tensor(targets),
            log_probabilities=log_probabilities,
        )

    hidden = torch.tensor([[1.0], [3.0]])  # a shift of 0 and of 2
    assert decoded_at(replay(0, 1, 2), hidden).tolist() == [True, True]
    assert decoded_at(replay(0, 2, 2), hidden).tolist() == [False, True]
    assert decoded_at(replay(0, 1, 2), torch.ones(2, 1)).tolist() == [True, False]
    hit, miss = math.log(1 + 2 / math.e), math.log(math.e + 2)
    torch.testing.assert_close(
        losses_at(replay(0, 2, 0), hidden), torch.tensor([(hit + miss) / 2, miss])
    )


def test_bisection_finds_known_boundaries_from_below() -> None:
    boundary, cap = vector(0.3, 2.5, 7.999), vector(8.0, 8.0, 8.0)
    found = largest_radii(lambda radius: radius <= boundary, cap, halvings=20)
    assert bool((found <= boundary).all())
    torch.testing.assert_close(found, boundary, atol=8 / 2**20, rtol=0)


def test_each_halving_halves_the_error() -> None:
    boundary, cap = vector(math.pi), vector(8.0)
    for halvings in range(1, 12):
        found = largest_radii(lambda radius: radius <= boundary, cap, halvings)
        assert 0 <= float(boundary - found) <= 8 / 2**halvings


def test_what_is_not_decoded_at_its_target_has_radius_0() -> None:
    # decoded in a shell only: bisection by itself would end at its outer edge
    found = largest_radii(lambda radius: (radius > 1) & (radius < 5), vector(6.0), halvings=20)
    assert found.tolist() == [0.0]


def test_what_is_always_decoded_has_the_cap() -> None:
    found = largest_radii(lambda radius: radius >= 0, vector(6.0, 0.5), halvings=3)
    assert found.tolist() == [6.0, 0.5]


def test_the_radius_of_a_linear_decoder() -> None:
    """Decoded where w.x > 0, so R along u is -(w.z) / (w.u), and unbounded away from the plane."""
    w, z = vector(2.0, -1.0, 0.5), vector(1.0, 0.5, 1.0)
    directions = unit_directions(64, 3, seed=3).double()
    found = largest_radii(
        lambda radius: (z + radius[:, None] * directions) @ w > 0,
        torch.full((64,), 10.0, dtype=torch.float64),
        halvings=40,
    )
    exact = -(z @ w) / (directions @ w)
    expected = torch.where((exact > 0) & (exact < 10), exact, 10.0)
    assert 5 < int((expected < 10).sum()) < 64
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)


def test_a_ray_that_leaves_and_comes_back_ends_at_a_real_boundary() -> None:
    found = largest_radii(lambda r: (r < 1) | ((r > 2) & (r < 3)), vector(8.0), halvings=30)
    assert min(abs(float(found) - edge) for edge in (1.0, 3.0)) < 1e-6


def test_all_rays_are_asked_at_once() -> None:
    shapes = []

    def decoded(radius: Tensor) -> Tensor:
        shapes.append(radius.shape)
        return radius < 1

    largest_radii(decoded, torch.full((7,), 4.0), halvings=5)
    assert shapes == [(7,)] * 7  # at 0, at the cap, and once a halving


def test_a_quantile_over_directions_is_the_radius() -> None:
    radii, norms = (
        torch.tensor([[1.0, 4.0, 2.0, 8.0], [0.0, 0.0, 0.0, 0.0]]),
        torch.tensor([2, 5.0]),
    )
    median, zero = summarise(radii, norms, quantile=0.5, max_radius=4.0)
    assert (median.radius, median.smallest, median.norm, median.capped) == (3.0, 1.0, 2.0, 0.25)
    assert (zero.radius, zero.smallest, zero.capped) == (0.0, 0.0, 0.0)
    assert [r.radius for r in summarise(radii, norms, quantile=0.0, max_radius=4.0)] == [1.0, 0.0]
    assert summarise(radii, norms, quantile=1.0, max_radius=4.0)[0].radius == 8.0
    assert median.as_dict() == {"radius": 3.0, "smallest": 1.0, "norm": 2.0, "capped": 0.25}


def test_directions_are_of_unit_length_and_seeded() -> None:
    directions = unit_directions(5, 64, seed=1)
    torch.testing.assert_close(directions.norm(dim=1), torch.ones(5))
    assert directions.equal(unit_directions(5, 64, seed=1))
    assert not directions.equal(unit_directions(5, 64, seed=2))
    # more directions begin with the same ones
    assert unit_directions(9, 64, seed=1)[:5].equal(directions)


def test_conflict_scores_by_hand() -> None:
    gradients = torch.tensor([[1.0, 0.0], [-3.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    half = 1 - 1 / math.sqrt(2)
    expected = [[0, 0, 1, half], [0, 0, 1, half], [1, 1, 0, half], [half, half, half, 0]]
    torch.testing.assert_close(
        conflict_scores(gradients), torch.tensor(expected, dtype=torch.float64)
    )


def test_conflicts_are_of_facts_of_one_subject() -> None:
    gradients = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    found = conflicts_within(gradients, ["Curie", "Newton", "Curie", "Curie"])
    assert [(c.subject, c.first, c.second, c.score) for c in found] == [
        ("Curie", 0, 2, 1.0),
        ("Curie", 0, 3, 0.0),
        ("Curie", 2, 3, 1.0),
    ]
    assert found[0].as_dict() == {"subject": "Curie", "first": 0, "second": 2, "score": 1.0}


def test_cosines_by_hand() -> None:
    found = cosines(torch.tensor([[2.0, 0.0], [3.0, 4.0], [0.0, 0.0]]))
    expected = [[1.0, 0.6, 0.0], [0.6, 1.0, 0.0], [0.0, 0.0, 0.0]]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_key_similarity_by_hand() -> None:
    keys = torch.tensor([[1.0, 0.0], [3.0, 4.0], [1.0, 0.0], [0.0, 1.0]])
    found = key_similarity(
        keys,
        subjects=["Curie", "Curie", "Curie", "Newton"],
        forms=["statement", "statement", "question", "statement"],
        # the question reads like the first statement up to its subject
        texts=["a", "b", "a", "c"],
    )
    assert found.cells == (("Curie", "statement"), ("Curie", "question"), ("Newton", "statement"))
    expected = [[0.6, 0.6, 0.4], [0.6, 1.0, 0.0], [0.4, 0.0, 1.0]]
    assert found.matrix == tuple(pytest.approx(row) for row in expected)
    assert found.within == pytest.approx(0.6)  # two pairs; that of equal texts does not count
    assert found.across == pytest.approx((0.0 + 0.8 + 0.0) / 3)
    assert found.as_dict()["within"] == found.within


def test_key_similarity_without_pairs_is_undefined() -> None:
    alone = key_similarity(torch.ones(1, 2), ["Curie"], ["statement"], ["a"])
    assert (alone.matrix, alone.within, alone.across) == (((1.0,),), None, None)


@pytest.mark.parametrize(
    ("scores", "positive", "area"),
    [
        ([0.1, 0.4, 0.35, 0.8], [False, False, True, True], 0.75),
        ([1, 2, 2, 3], [False, True, False, True], 0.875),
        ([1, 2], [False, True], 1.0),
        ([1, 2], [True, False], 0.0),
        ([5, 5, 5], [True, False, True], 0.5),
        ([math.inf, 1.0, math.inf], [True, False, False], 0.75),
        ([1, 2], [True, True], None),
        ([1, 2], [False, False], None),
        ([], [], None),
    ],
)
def test_area_under_roc_by_hand(
    scores: list[float], positive: list[bool], area: float | None
) -> None:
    assert area_under_roc(scores, positive) == area


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=12))
def test_area_under_roc_counts_pairs(drawn: list[tuple[int, bool]]) -> None:
    scores, positive = [float(score) for score, _ in drawn], [mark for _, mark in drawn]
    won = [
        1.0 if a > b else 0.5 if a == b else 0.0
        for (a, is_a), (b, is_b) in product(drawn, drawn)
        if is_a and not is_b
    ]
    expected = sum(won) / len(won) if won else None
    found = area_under_roc(scores, positive)
    assert found == (None if expected is None else pytest.approx(expected))
    turned = area_under_roc([-score for score in scores], positive)
    assert turned == (None if found is None else pytest.approx(1 - found))


def test_a_certificate_by_hand() -> None:
    found = certify(
        deviations=[1.0, 2.0, 3.0, 4.0, 5.0],
        radii=[2.0, 2.0, 2.0, 2.0, 6.0],
        answered=[True, False, True, False, True],
    )
    # certified: the first, the second (D = R) and the last
    assert found == Certificate(
        queries=5,
        certified=3,
        answered=3,
        precision=pytest.approx(2 / 3),
        recall=pytest.approx(2 / 3),
        accuracy=pytest.approx(3 / 5),
        # scores 2, 1, 2/3, 1/2, 6/5: of the six pairs, only (2/3, 1) is the wrong way round
        auc=pytest.approx(5 / 6),
    )
    assert found.as_dict()["certified"] == 3


def test_rates_without_a_denominator_are_none() -> None:
    nothing = certify([], [], [])
    assert nothing == Certificate(0, 0, 0, None, None, None, None)
    far = certify([2.0], [1.0], [True])
    assert (far.precision, far.recall, far.accuracy, far.auc) == (None, 0.0, 0.0, None)
    failed = certify([1.0], [2.0], [False])
    assert (failed.precision, failed.recall, failed.accuracy) == (0.0, None, 0.0)


@given(st.floats(0, 100), st.floats(0, 100))
def test_the_margin_is_at_least_1_exactly_within_the_radius(d: float, r: float) -> None:
    assert (margin(d, r) >= 1) == (d <= r)


def test_all_faults_of_the_settings_are_reported() -> None:
    with pytest.raises(RoSEError) as error:
        DiagnosisSettings(directions=0, quantile=1.5, max_radius=0.0, landscape_points=-1)
    for part in ("directions is 0", "quantile is 1.5", "max_radius is 0.0", "_points is -1"):
        assert part in str(error.value)


@pytest.mark.parametrize("name", ["max_radius", "landscape_extent"])
@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_length_is_finite(name: str, value: float) -> None:
    with pytest.raises(RoSEError, match=f"{name} is {value}; give a number above 0"):
        DiagnosisSettings(**{name: value})


def test_sizes_differ_in_their_samples_alone() -> None:
    quick, default, thorough = (DiagnosisSettings.of_size(size).as_dict() for size in SIZES)
    assert default == DiagnosisSettings().as_dict()
    samples = ("directions", "halvings", "landscape_directions", "landscape_points")
    for name in samples:
        assert quick[name] < default[name] < thorough[name]
    rest = set(default) - {*samples, "max_new_tokens"}
    assert all(quick[name] == default[name] == thorough[name] for name in rest)
    assert quick["max_new_tokens"] < default["max_new_tokens"] == thorough["max_new_tokens"]


def test_what_is_given_wins_over_the_size() -> None:
    given = DiagnosisSettings.of_size("quick", directions=3)
    assert (given.directions, given.halvings) == (3, SIZES["quick"]["halvings"])
    with pytest.raises(RoSEError, match="no diagnosis of size 'huge'; give quick, default, thor"):
        DiagnosisSettings.of_size("huge")
