"""`torchrun ... -m rose_easyedit edit`: one command as several processes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from rose_easyedit.errors import RoSEError
from rose_easyedit.files.stdout import without_native_output

if TYPE_CHECKING:
    from rose_easyedit.method.stage1.ranks import Ranks

# What torchrun and `accelerate launch --multi_gpu` set.
_GIVEN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# For all processes to start and find each other; the work after it takes what it takes.
_MEETING = timedelta(minutes=5)


def process() -> tuple[int, int]:
    """Which process of the command this is, from 0, and of how many."""
    if any(name not in os.environ for name in _GIVEN):
        return 0, 1
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def check_command(words: Sequence[str]) -> None:
    """Refuses to do anything but an edit several times at once."""
    _, count = process()
    if count > 1 and words[:1] != ["edit"]:
        raise RoSEError(
            f"{count} processes were started, and only `edit` shares its work between them; run "
            f"rose-edit {' '.join(words[:1])} as one process, without torchrun."
        )


@contextmanager
def launched() -> Iterator[Ranks]:
    """The processes of this command, met; all but the first are silent inside the block."""
    from rose_easyedit.method.stage1.ranks import Ranks

    rank, count = process()
    if count == 1:
        yield Ranks()
        return

    from torch import distributed

    with ExitStack() as stack:
        if rank > 0:
            nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            stack.enter_context(redirect_stdout(nowhere))
            stack.enter_context(redirect_stderr(nowhere))
        try:
            with without_native_output():  # gloo tells of its connections
                distributed.init_process_group("gloo", timeout=_MEETING)
        except RuntimeError as error:  # its errors of connections and of time are of that kind
            raise RoSEError(
                f"Rank {rank} of {count} did not meet the others within {_MEETING}: {error}"
            ) from error
        stack.callback(distributed.destroy_process_group)
        yield stack.enter_context(Ranks.of_process_group())


def own_device(device: Any) -> Any:
    """The device of this process: of CUDA devices, the one of its place on this machine."""
    if process()[1] == 1 or str(device) == "cpu":
        return device
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
