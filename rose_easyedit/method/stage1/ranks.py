"""The processes of a job that optimise the subjects of an edit between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from rose_easyedit.errors import RoSEError, first_line
from rose_easyedit.files.stdout import without_native_output

# Longer than any share takes: a rank that dies is noticed at once, by its closed connection.
_PATIENCE = timedelta(days=7)


@dataclass
class _Link:
    """The connections to the others. They close when nothing holds the group any longer."""

    group: Any = None


@dataclass(frozen=True)
class Ranks:
    """The processes of a job, and which of them this is; one that is alone unless told otherwise.

    Attributes:
        rank: of this process, from 0.
        count: how many there are.
    """

    rank: int = 0
    count: int = 1
    _link: _Link = field(default_factory=_Link, repr=False, compare=False)

    @classmethod
    @contextmanager
    def of_process_group(cls) -> Iterator[Ranks]:
        """All processes of `torch.distributed`, which the caller has initialised in each of them.

        Only small tensors are exchanged, once, and always by gloo: it notices a process that has
        died. A process that leaves the block is gone for the others, whether it is done or failed.

        Raises:
            RoSEError: `torch.distributed` is not initialised.
        """
        from torch import distributed

        if not (distributed.is_available() and distributed.is_initialized()):
            raise RoSEError(
                "torch.distributed is not initialised: start the processes with torchrun, and "
                'call torch.distributed.init_process_group("gloo") in each of them first.'
            )
        with without_native_output():  # gloo tells of its connections
            link = _Link(distributed.new_group(backend="gloo", timeout=_PATIENCE))
        try:
            yield cls(distributed.get_rank(), distributed.get_world_size(), link)
        finally:
            distributed.destroy_process_group(link.group)
            link.group = None

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def shares(self, sizes: Sequence[int]) -> list[list[int]]:
        """Things dealt out to the ranks, the largest first, each to the rank that has least.

        Args:
            sizes: of each thing.

        Returns:
            For each rank, which things are its own, in ascending order; the same in all processes.
        """
        shares: list[list[int]] = [[] for _ in range(self.count)]
        loads = [0] * self.count
        for thing in sorted(range(len(sizes)), key=lambda thing: -sizes[thing]):
            rank = loads.index(min(loads))
            shares[rank].append(thing)
            loads[rank] += sizes[thing]
        return [sorted(share) for share in shares]

    def exchange(self, work: Callable[[], dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        """Does this rank's work, and gives what each rank's gave, to all of them.

        Args:
            work: gives named tensors on the CPU.

        Raises:
            RoSEError: another rank is gone, with its number.
        """
        own = work()
        if self.count == 1:
            return [own]
        content = save(own)
        if self.is_first:
            contents = [content, *map(self._receive, range(1, self.count))]
            for rank in range(1, self.count):
                for each in contents:
                    self._send(each, rank)
        else:
            self._send(content, 0)
            contents = [self._receive(0) for _ in range(self.count)]
        return [load(each) for each in contents]

    def _send(self, content: bytes, rank: int) -> None:
        from torch.distributed import send

        self._talk(send, torch.tensor([len(content)], device="cpu"), rank)
        self._talk(send, torch.frombuffer(bytearray(content), dtype=torch.uint8), rank)

    def _receive(self, rank: int) -> bytes:
        from torch.distributed import recv

        size = self._talk(recv, torch.zeros(1, dtype=torch.long, device="cpu"), rank)
        content = self._talk(recv, torch.zeros(int(size), dtype=torch.uint8, device="cpu"), rank)
        return content.numpy().tobytes()

    def _talk(self, how: Callable[..., Any], content: Tensor, rank: int) -> Tensor:
        """Sends or receives a tensor; an error that names the other rank, where gloo gives a port.

        It is not raised from gloo's, whose traceback would hold the group and so leave the other
        ranks waiting for this one.
        """
        try:
            how(content, rank, self._link.group)
            return content
        except RuntimeError as error:
            reason = first_line(str(error))
        raise RoSEError(
            f"Rank {rank} of {self.count} (counted from 0) has ended before its share was done; "
            "its own output says why. No weight was changed and no edit written; what was kept in "
            f"a store is read when as many ranks run again. ({reason})"
        )
