"""Values as JSON can hold them."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any


def plain(value: Any) -> Any:
    """The value as JSON can hold it: tuples as lists, and None for numbers that are not finite."""
    if isinstance(value, Mapping):
        return {str(key): plain(of) for key, of in value.items()}
    if isinstance(value, list | tuple):
        return [plain(of) for of in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def is_number(value: Any) -> bool:
    """Whether a value is a number that is computed with: finite, and within what a float holds."""
    # an integer that JSON may hold can be too large for `isfinite`
    return type(value) in (int, float) and -sys.float_info.max <= value <= sys.float_info.max
