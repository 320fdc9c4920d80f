"""Ranks that are threads of one process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.method.edit import compute_edit
from rose_easyedit.method.stage1.ranks import Ranks

PAIRS = [("We met {} in", "London"), ("They say that {}", "sang"), ("He asked {} about", "Paris")]
REQUESTS = [
    {"prompt": prompt.format(subject), "subject": subject, "target_new": target}
    # the first rank takes the second subject, the second the others
    for subject, n_facts in {"Marie Curie": 1, "Ada Lovelace": 3, "Isaac Newton": 2}.items()
    for prompt, target in PAIRS[:n_facts]
]


@dataclass(frozen=True)
class Together(Ranks):
    """Ranks that are threads: what each gives is put on a common table."""

    table: Any = None

    def exchange(self, work: Callable[[], dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        results, barrier = self.table
        results[self.rank] = work()
        barrier.wait(300)
        return [results[rank] for rank in range(self.count)]


def together(models: Sequence[Any], *words: Any) -> list[EditDelta]:
    """An edit by as many ranks as there are models, as each of them has it."""
    table = ({}, threading.Barrier(len(models)))
    found: dict[int, EditDelta] = {}

    def run(rank: int) -> None:
        ranks = Together(rank, len(models), table=table)
        found[rank] = compute_edit(models[rank], *words, ranks=ranks)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(len(models))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[rank] for rank in range(len(models))]
