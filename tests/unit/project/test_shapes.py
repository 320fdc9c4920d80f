"""The tests' own check of shapes fails when a shape is not the one declared."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from jaxtyping import Float, Float64, TypeCheckError
from shapes import having, shaped, shapes_held
from torch import Tensor


def product(left: Tensor, right: Tensor, *, times: int = 1) -> Tensor:
    return (left @ right).repeat(times, 1)


@dataclass
class Pair:
    left: Tensor
    right: Tensor


PRODUCT: dict[str, Any] = {
    "left": Float[Tensor, "N d"],
    "right": Float[Tensor, "d M"],
    "returns": Float[Tensor, "N M"],
}


def test_right_shapes_pass_and_the_result_is_the_functions() -> None:
    left, right = torch.ones(2, 3), torch.ones(3, 4)
    assert torch.equal(shaped(product, **PRODUCT)(left, right), left @ right)
    assert torch.equal(shaped(product, **PRODUCT)(left, right=right, times=1), left @ right)


@pytest.mark.parametrize(
    ("left", "right", "times", "which"),
    [
        (torch.ones(3), torch.ones(3, 4), 1, "left"),  # one axis for two
        (torch.ones(2, 3), torch.ones(4, 4), 1, "right"),  # d is 3 and 4
        (torch.ones(2, 3).long(), torch.ones(3, 4).long(), 1, "left"),  # no floats
        (torch.ones(2, 3), torch.ones(3, 4), 2, "return"),  # twice N rows
    ],
)
def test_a_wrong_shape_fails(left: Tensor, right: Tensor, times: int, which: str) -> None:
    with pytest.raises(TypeCheckError, match=which):
        shaped(product, **PRODUCT)(left, right, times=times)


def test_sizes_are_of_one_call_only() -> None:
    checked = shaped(product, **PRODUCT)
    checked(torch.ones(2, 3), torch.ones(3, 4))
    checked(torch.ones(5, 1), torch.ones(1, 7))


def test_attributes_share_the_sizes_of_a_call() -> None:
    pair = having(left=Float[Tensor, "N d"], right=Float64[Tensor, "d M"])

    def with_rows(pair: Pair, rows: Tensor) -> Pair:
        return Pair(rows, pair.right)

    checked = shaped(with_rows, pair, pair=pair)
    right = torch.ones(3, 4).double()
    checked(Pair(torch.ones(2, 3), right), torch.ones(2, 3))
    with pytest.raises(TypeCheckError, match="parameter"):
        checked(Pair(torch.ones(2, 3), right.float()), torch.ones(2, 3))
    with pytest.raises(TypeCheckError, match="return"):
        checked(Pair(torch.ones(2, 3), right), torch.ones(5, 3))


def test_what_a_module_calls_by_itself_is_checked_too_for_as_long_as_it_is_held() -> None:
    module = SimpleNamespace(product=product)
    with shapes_held(module, product=PRODUCT):
        with pytest.raises(TypeCheckError):
            module.product(torch.ones(2, 3), torch.ones(3, 4), times=2)
    assert module.product is product


def test_an_argument_that_the_function_does_not_have_is_refused() -> None:
    with pytest.raises(AssertionError, match="product has no .'rigth'"):
        shaped(product, rigth=Float[Tensor, "d M"])
