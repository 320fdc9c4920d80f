"""Randomised smoothing: a shift that works wherever a query lands near it.

A query in another form reaches the layer with a hidden state displaced from the edited one. So
every row of a step is displaced at random, and the shift found is one that tolerates it.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


class Noise:
    """Seeded random displacements; a row's do not depend on which rows run beside it.

    Attributes:
        draws: how many each row has had, by its name.
    """

    def __init__(self, seed: int, width: int, radius: float) -> None:
        self._seed, self._width, self._radius = seed, width, radius
        self._generators: dict[str, torch.Generator] = {}
        self.draws: Counter[str] = Counter()

    def draw(self, names: Sequence[str], device: torch.device) -> Tensor:
        """One displacement a row: uniform direction, root mean square uniform in 0..radius.

        Args:
            names: of the rows; each name has a sequence of displacements of its own.
            device: where they are wanted.

        Returns:
            [B, d], float32; where the radius is 0, one zero for all of it, [1].
        """
        if self._radius == 0:
            return torch.zeros(1, dtype=torch.float32, device=device)
        return torch.stack([self._next(name) for name in names]).to(device)

    def go_on_from(self, draws: Mapping[str, int]) -> None:
        """Leaves out the displacements that rows have had before, as many as `draws` told."""
        for name, n_had in draws.items():
            for _ in range(n_had):
                self._next(name)

    def _next(self, name: str) -> Tensor:
        if name not in self._generators:
            # a CPU generator heeds 32 bits of its seed
            seed = zlib.crc32(f"{self._seed}\n{name}".encode())
            self._generators[name] = torch.Generator().manual_seed(seed)
        generator = self._generators[name]
        self.draws[name] += 1
        kind: dict[str, Any] = dict(generator=generator, dtype=torch.float32, device="cpu")
        direction = torch.randn(self._width, **kind)
        length = torch.rand((), **kind) * self._radius * self._width**0.5
        found: Tensor = direction * (length / direction.norm())
        return found
