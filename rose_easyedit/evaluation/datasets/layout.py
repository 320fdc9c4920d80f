"""What a form of records is: where a record holds each part of a fact."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Record = Mapping[str, Any]


@dataclass(frozen=True)
class FileForm:
    """One form of records.

    Attributes:
        name: What `load_dataset` calls it.
        marks: Fields that give the form away, as lines of paths (see `find`); a record has the
            form when it holds all paths of one line.
        places: The paths at which a record may hold each part of a fact, parts named as in `Fact`.
        needs_truth: Whether every record of the form has a true answer.
        spread: The field with a list of facts, in a form whose records hold several.
        join: One element of that list, completed with what its record says; of a record without
            such a list, the record itself.
    """

    name: str
    marks: tuple[str, ...]
    places: Mapping[str, tuple[str, ...]]
    needs_truth: bool = True
    spread: str | None = None
    join: Callable[[Record, Record], Record] = lambda record, element: element

    def fits(self, record: Any) -> bool:
        """Whether a record has this form, as far as its fields tell."""
        return any(
            all(find(record, path) is not None for path in line.split()) for line in self.marks
        )


def find(value: Any, path: str) -> Any:
    """What a record holds at a path such as "target_new.str"; None if it holds nothing there.

    A "*" stands for each value of a list or an object, and makes the result a list.
    """
    if not path:
        return value
    step, _, rest = path.partition(".")
    if step != "*":
        return find(value.get(step), rest) if isinstance(value, Mapping) else None
    values = value.values() if isinstance(value, Mapping) else value
    found = [find(item, rest) for item in values] if isinstance(value, Mapping | list) else []
    return [item for item in found if item is not None] or None
