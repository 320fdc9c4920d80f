"""Shapes that docstrings promise, held for every call that a test makes, direct or not."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import pytest
from beartype import beartype
from beartype.vale import Is
from jaxtyping import jaxtyped


def shaped(function: Callable[..., Any], returns: Any = Any, **arguments: Any) -> Any:
    """A function that checks the shapes of what it is given and of what it gives.

    A letter that several shapes share is one size for the length of a call.

    Args:
        function: of the package.
        returns: the type of the result, say `Float[Tensor, "N d"]`, or `having(...)`.
        arguments: the types of its arguments, by name; the others may be anything.
    """
    signature = inspect.signature(function)
    parameters = [
        parameter.replace(annotation=arguments.pop(name, Any))
        for name, parameter in signature.parameters.items()
    ]
    assert not arguments, f"{function.__name__} has no {sorted(arguments)}"

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    call.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": returns}
    call.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=parameters, return_annotation=returns
    )
    del call.__wrapped__
    return jaxtyped(typechecker=beartype)(call)


def having(**parts: Any) -> Any:
    """The type of an object, or None, whose attributes have these types."""

    def has_them(value: Any) -> bool:
        return value is None or all(
            isinstance(getattr(value, name), kind) for name, kind in parts.items()
        )

    return Annotated[object, Is[has_them]]


@contextmanager
def shapes_held(module: Any, **functions: dict[str, Any]) -> Iterator[None]:
    """Within, a module's functions are `shaped`; of each, its arguments and `returns`."""
    with pytest.MonkeyPatch.context() as patch:
        for name, shapes in functions.items():
            patch.setattr(module, name, shaped(getattr(module, name), **shapes))
        yield
