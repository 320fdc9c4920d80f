"""How a diagnosis is made; two of them are comparable when these agree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

from rose_easyedit.config.checks import setting_faults
from rose_easyedit.config.rules import setting
from rose_easyedit.errors import RoSEError


# not frozen, since Hydra composes values into it
@dataclass
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

    directions: int = setting(16, above=0)
    quantile: float = setting(0.5, least=0, most=1)
    max_radius: float = setting(4.0, above=0)
    halvings: int = setting(8, above=0)
    landscape_directions: int = setting(8, above=0)
    landscape_extent: float = setting(2.0, above=0)
    landscape_points: int = setting(12, above=0)
    max_new_tokens: int = setting(24, above=0)
    seed: int = setting(0, least=0)

    @classmethod
    def of_size(cls, size: str = "default", **given: Any) -> DiagnosisSettings:
        """The settings of one of `SIZES`, with single ones given.

        Raises:
            RoSEError: there is no such size, or these settings cannot be used.
        """
        if size not in SIZES:
            raise RoSEError(f"There is no diagnosis of size {size!r}; give {', '.join(SIZES)}.")
        return cls(**{**SIZES[size], **given})

    def __post_init__(self) -> None:
        if faults := setting_faults(self):
            raise RoSEError.of("These settings of a diagnosis cannot be used:", faults)

    def as_dict(self) -> dict[str, Any]:
        """The settings by name."""
        return asdict(self)


# Samples by what they are for. On SmolLM2 a fact's radii in single directions spread by a fifth to
# a half of their median, whose standard error is about 12% over 16 directions and 20% over 6:
# beside it the step of 8 halvings, 1/64 |h|, is nothing, and that of 6 little.
SIZES: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "quick": {
            "directions": 6,
            "halvings": 6,
            "landscape_directions": 4,
            "landscape_points": 6,
            "max_new_tokens": 12,
        },
        "default": {},
        "thorough": {
            "directions": 64,
            "halvings": 10,
            "landscape_directions": 16,
            "landscape_points": 24,
        },
    }
)
