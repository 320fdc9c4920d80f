"""One lock for each model: of the threads that use it through this package, one works at a time.

An edit is in the model's own weights while it is applied, and so are the flags of its modules: what
another thread computed meanwhile would be of a model that it did not ask for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from threading import RLock
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

import torch

from rose_easyedit.restoring import restoring

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

Model = TypeVar("Model")
Given = ParamSpec("Given")
Found = TypeVar("Found")

# as long as the model lives, whoever uses it
_LOCKS: WeakKeyDictionary[Any, AbstractContextManager[Any]] = WeakKeyDictionary()


def model_lock(model: Any) -> AbstractContextManager[Any]:
    """The lock of a model, which a thread that holds it may take again."""
    # one step for all threads, as the dictionary inside takes it: a lock around it could be left
    # held by an interrupt, and every other thread would wait for it
    return _LOCKS.setdefault(model, RLock())


def one_at_a_time(
    function: Callable[Concatenate[Model, Given], Found],
) -> Callable[Concatenate[Model, Given], Found]:
    """A function of a model, which waits until no other thread uses that model.

    Gradients are on or off afterwards as they were, even if an interrupt fell into `torch.no_grad`.
    """

    @wraps(function)
    def alone(model: Model, *args: Given.args, **kwargs: Given.kwargs) -> Found:
        with model_lock(model), _gradients_as_they_were():
            return function(model, *args, **kwargs)

    return alone  # type: ignore[return-value]  # whose first parameter has a name


@restoring
def _gradients_as_they_were() -> Iterator[None]:
    were_on = torch.is_grad_enabled()
    try:
        yield
    finally:
        torch.set_grad_enabled(were_on)
