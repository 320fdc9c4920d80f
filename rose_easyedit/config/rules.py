"""What values a setting takes, told where it is declared: bounds, or a choice of words."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

_KEY = "rule"


@dataclass(frozen=True)
class Rule:
    """Bounds of a number, each None where there is none, or the words that a text may be.

    Attributes:
        above: the value is greater.
        least: it is no smaller.
        below: it is smaller.
        most: it is no greater.
        words: it is one of them.
    """

    above: float | None = None
    least: float | None = None
    below: float | None = None
    most: float | None = None
    words: tuple[str, ...] | None = None

    def allows(self, value: Any) -> bool:
        """Whether a value of the setting's type will do; a null does where the type has one."""
        if value is None:
            return True
        if self.words is not None:
            return value in self.words
        return (
            (self.above is None or value > self.above)
            and (self.least is None or value >= self.least)
            and (self.below is None or value < self.below)
            and (self.most is None or value <= self.most)
        )

    def in_words(self) -> str:
        """The bounds, as a message says them."""
        if (self.least, self.most) == (0, 1):
            return "between 0 and 1"
        bounds = (
            (self.above, "above {}"),
            (self.least, "{} or more"),
            (self.below, "below {}"),
            (self.most, "{} at the most"),
        )
        return " and ".join(text.format(bound) for bound, text in bounds if bound is not None)


def setting(
    default: Any,
    *,
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
    most: float | None = None,
    words: tuple[str, ...] | None = None,
) -> Any:
    """A dataclass's field with a default and a rule; the arguments are those of `Rule`."""
    return field(default=default, metadata={_KEY: Rule(above, least, below, most, words)})


def rule_faults(settings: Any, prefix: str = "") -> Iterator[str]:
    """Every value that its setting's rule does not allow, and every infinite one.

    Args:
        settings: a group of settings, each of its own type.
        prefix: of the names.
    """
    for declared in fields(settings):
        value = getattr(settings, declared.name)
        if value == math.inf:
            yield f"{prefix}{declared.name} is {value}; give a number"
            continue
        rule: Rule | None = declared.metadata.get(_KEY)
        if rule is None or rule.allows(value):
            continue
        if rule.words is not None:
            yield f"{prefix}{declared.name} is {value!r}; choose one of {', '.join(rule.words)}"
            continue
        wanted = rule.in_words() + (", or null" if str(declared.type).endswith("| None") else "")
        yield f"{prefix}{declared.name} is {value}; it must be {wanted}"
