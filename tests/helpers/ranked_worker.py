"""An edit by two processes, one of which is killed, and then by two again. Run as a script.

    python ranked_worker.py FOLDER WORD...

Runs `rose-edit WORD...` in forks of a process with one thread, which saves what their imports cost.
In the first turn rank 1 kills itself as soon as it has kept its first chunk. Prints, for each turn
and rank, its exit code, its output, its errors, and the groups that it optimised, a list a chunk.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import torch

from rose_easyedit.cli import main
from rose_easyedit.method.stage1 import targets  # noqa: F401 (imported before the forks)
from rose_easyedit.method.stage1.store import ShiftStore
from rose_easyedit.models.loading import load_model

FILES = ("output", "errors", "optimised")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def start(rank: int, port: int, folder: Path, words: list[str], *, kill: bool) -> int:
    """The process id of a rank."""
    child = os.fork()
    if child:
        return child
    output, errors, optimised = (
        os.open(folder / name, os.O_CREAT | os.O_TRUNC | os.O_WRONLY) for name in FILES
    )
    os.dup2(output, 1)
    os.dup2(errors, 2)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    optimise, save = targets.optimise, ShiftStore.save

    def noted(setting: Any, groups: Any, *rest: Any) -> Any:
        found = optimise(setting, groups, *rest)
        os.write(optimised, json.dumps([group.name for group in groups]).encode() + b"\n")
        return found

    def killing(self: ShiftStore, *what: Any) -> None:
        save(self, *what)
        if kill and rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    targets.optimise, ShiftStore.save = noted, killing  # type: ignore[method-assign]
    code = main(words)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    torch.set_num_threads(1)
    top, words = Path(sys.argv[1]), sys.argv[2:]
    load_model("tiny-random")
    turns = []
    for turn in range(2):
        folders = [top / f"turn-{turn}-rank-{rank}" for rank in range(2)]
        for folder in folders:
            folder.mkdir()
        port = free_port()
        children = [
            start(rank, port, folder, words, kill=turn == 0) for rank, folder in enumerate(folders)
        ]
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        left = [[(folder / name).read_text() for name in FILES] for folder in folders]
        turns.append(
            [
                {
                    "code": code,
                    "output": output,
                    "errors": errors,
                    "optimised": [json.loads(line) for line in optimised.splitlines()],
                }
                for code, (output, errors, optimised) in zip(codes, left, strict=True)
            ]
        )
    print(json.dumps(turns))
