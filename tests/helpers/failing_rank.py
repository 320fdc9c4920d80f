"""Two processes, of which one fails at its work and stays alive. Run as a script.

    python failing_rank.py PORT

Prints what each of them says of it, and what they exchange afterwards.
"""

from __future__ import annotations

import os
import sys

import torch
from torch import Tensor, distributed

from rose_easyedit.files.stdout import without_native_output
from rose_easyedit.method.stage1.ranks import Ranks


def work() -> dict[str, Tensor]:
    if rank == 1:
        raise ValueError("its own fault")
    return {"rank": torch.tensor([rank])}


def tell(line: str) -> None:
    """A whole line at once, which the other process cannot write into."""
    os.write(1, f"{line}\n".encode())


if __name__ == "__main__":
    torch.set_num_threads(1)
    rank = 0 if os.fork() else 1
    given = {"RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= given | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": sys.argv[1]}
    with without_native_output():
        distributed.init_process_group("gloo")
    try:
        with Ranks.of_process_group() as ranks:
            ranks.exchange(work)
    except ValueError as error:
        said: Exception = error  # kept, with all that its traceback holds
    tell(f"rank {rank}: {said}")
    with Ranks.of_process_group() as ranks:  # neither gets here while it waits for the other
        sent = ranks.exchange(lambda: {"rank": torch.tensor([rank])})
    tell(f"rank {rank} then: {[int(tensors['rank']) for tensors in sent]}")
    distributed.destroy_process_group()
    if rank == 0:
        os.wait()
