"""How a diagnosis is made; two of them are comparable when these agree."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from rose_easyedit.errors import RoSEError


@dataclass(frozen=True)
class DiagnosisSettings:
    """How a diagnosis is made.

    Attributes:
        directions: random directions in which each fact's radius is measured.
        quantile: over the directions, the fact's radius; 0.5 is the median, 0 the smallest.
        max_radius: the largest radius asked for, in multiples of |h|.
        halvings: of the bisection; a radius is at most max_radius / 2**halvings |h| too small.
        landscape_directions: random directions of the landscape.
        landscape_extent: how far it reaches on either side, in multiples of |h|.
        landscape_points: radii on either side of the target.
        max_new_tokens: most tokens of an answer.
        seed: of the directions.
    """

    directions: int = 16
    quantile: float = 0.5
    max_radius: float = 4.0
    halvings: int = 8
    landscape_directions: int = 8
    landscape_extent: float = 2.0
    landscape_points: int = 12
    max_new_tokens: int = 24
    seed: int = 0

    def __post_init__(self) -> None:
        counts = ("directions", "halvings", "landscape_directions", "landscape_points")
        faults = [
            f"{name} is {getattr(self, name)}; give at least 1"
            for name in (*counts, "max_new_tokens")
            if getattr(self, name) < 1
        ]
        faults += [
            f"{name} is {getattr(self, name)}; give a finite number above 0"
            for name in ("max_radius", "landscape_extent")
            if not 0 < getattr(self, name) < math.inf
        ]
        if not 0 <= self.quantile <= 1:
            faults.append(f"quantile is {self.quantile}; give a number from 0 to 1")
        if faults:
            raise RoSEError.of("These settings of a diagnosis cannot be used:", faults)

    def as_dict(self) -> dict[str, Any]:
        """The settings by name."""
        return asdict(self)
