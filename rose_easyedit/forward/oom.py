"""Work that did not fit the memory is done again with half as much at once."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from rose_easyedit.errors import RoSEError, first_line

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

# as CUDA says it, a CPU's allocator, the libraries of linear algebra on a GPU, and oneDNN, in which
# a CPU's layers compute: of a shape or type that it lacks it says "primitive descriptor"
_OUT_OF_MEMORY = re.compile(
    "out of memory|can't allocate memory|_status_alloc_failed"
    "|could not create a primitive(?! descriptor)|could not create a memory object"
)


def within_memory(work: Callable[[int], Result], size: int) -> tuple[Result, int]:
    """Does some work with as many sequences at once as fit.

    Args:
        work: takes how many sequences it may run at once; starts anew at each call.
        size: how many to begin with.

    Returns:
        What the work gave, and the size that fitted: to begin with next time.

    Raises:
        RoSEError: not even one sequence fits.
    """
    while True:
        try:
            return work(size), size
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if size == 1:
                reason = first_line(str(error)) or type(error).__name__
                raise RoSEError(
                    f"The memory does not hold one sequence at a time ({reason}); "
                    "shorten the prompts, use weights of half the precision, or a larger device."
                ) from error
        # Here the error is gone, and with it the tensors that its traceback kept alive.
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        logger.warning(
            "%d sequences at once are more than the memory holds; going on with %d (set "
            "micro_batch to begin there)",
            size,
            size // 2,
        )
        size //= 2


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the CPU."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return _OUT_OF_MEMORY.search(str(error).lower()) is not None


@contextmanager
def counted_if_done(on_step: Callable[[int], object]) -> Iterator[Callable[[int], None]]:
    """Tells `on_step` of progress, and takes it back where the block fails."""
    told = 0

    def tell(steps: int) -> None:
        nonlocal told
        told += steps
        on_step(steps)

    try:
        yield tell
    except Exception:
        on_step(-told)
        raise
