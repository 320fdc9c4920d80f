"""What a norm behind the down projection can give: known answers."""

from __future__ import annotations

import pytest
import torch
from jaxtyping import Float, Float64
from shapes import shaped
from torch import Tensor

from rose_easyedit.method.stage2 import post_norm

ROWS, COORDINATES = Float[Tensor, "N d"], Float[Tensor, "d"]
nearest_on_sphere = shaped(
    post_norm.nearest_on_sphere,
    gain=COORDINATES,
    goal=ROWS,
    scale=COORDINATES,
    returns=Float64[Tensor, "N d"],
)
gain_before_norm = shaped(
    post_norm.gain_before_norm,
    gain=COORDINATES,
    outputs=ROWS,
    wanted=ROWS,
    scale=COORDINATES,
    returns=ROWS,
)
ONES = torch.ones(2, dtype=torch.float64)


def rms(rows: torch.Tensor) -> torch.Tensor:
    return rows.square().mean(-1).sqrt()


def test_with_equal_gains_the_nearest_is_the_goal_at_the_sphere() -> None:
    goal = torch.tensor([[3.0, 4.0], [0.3, -0.4]], dtype=torch.float64)
    found = nearest_on_sphere(2 * ONES, goal, ONES)
    wanted = torch.nn.functional.normalize(goal, dim=1) * 2**0.5
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_a_goal_that_can_be_given_is_given() -> None:
    gain = torch.tensor([5.0, 0.1, 2.0], dtype=torch.float64)
    s = torch.tensor([[1.0, -1.0, 1.0], [1.2, 0.0, -((3 - 1.44) ** 0.5)]], dtype=torch.float64)
    for scale in (torch.ones(3), torch.tensor([1.0, 7.0, 0.2])):
        found = nearest_on_sphere(gain, gain * s, scale.double())
        torch.testing.assert_close(found, s, rtol=1e-9, atol=1e-9)


def test_no_point_of_the_sphere_is_nearer() -> None:
    generator = torch.Generator().manual_seed(0)
    gain = torch.rand(6, generator=generator, dtype=torch.float64) * 3
    scale = torch.rand(6, generator=generator, dtype=torch.float64) + 0.1
    goal = torch.randn(4, 6, generator=generator, dtype=torch.float64) * 4
    found = nearest_on_sphere(gain, goal, scale)
    torch.testing.assert_close(rms(found), torch.ones(4, dtype=torch.float64))
    others = torch.randn(5000, 1, 6, generator=generator, dtype=torch.float64)
    others = torch.cat([others.expand(-1, 4, -1), found + 0.01 * others])
    others = others / rms(others)[..., None]

    def miss(s: torch.Tensor) -> torch.Tensor:
        return ((gain * s - goal) / scale).square().sum(-1)

    assert bool((miss(others) >= miss(found) - 1e-9).all())


def test_the_scale_says_which_coordinate_may_be_missed() -> None:
    goal = torch.tensor([[10.0, 10.0]], dtype=torch.float64)
    first = nearest_on_sphere(ONES, goal, torch.tensor([0.1, 10.0], dtype=torch.float64))
    assert first[0, 0] > 1.4 and abs(first[0, 1]) < 0.2


@pytest.mark.parametrize("length", [1e-3, 1.0, 1e3])
def test_a_gain_before_the_norm_does_not_depend_on_how_long_the_output_is(length: float) -> None:
    gain = torch.tensor([3.0, 1.0, 0.5, 2.0])
    outputs = torch.tensor([[1.0, -2.0, 0.5, 1.0]]) * length
    reachable = torch.tensor([[1.0, 1.0, -1.0, 1.0]])
    now = outputs / rms(outputs)[:, None]
    wanted = gain * (reachable - now)
    gained = gain_before_norm(gain, outputs, wanted, torch.ones(4))
    after = (outputs + gained) / rms(outputs + gained)[:, None]
    torch.testing.assert_close(gain * (after - now), wanted, rtol=1e-4, atol=1e-4)


def test_what_is_out_of_reach_keeps_the_length_of_the_output() -> None:
    outputs = torch.tensor([[1.0, -2.0, 0.5, 1.0]])
    gained = gain_before_norm(torch.ones(4), outputs, torch.full((1, 4), 1e4), torch.ones(4))
    torch.testing.assert_close(rms(outputs + gained), rms(outputs))
