"""Names of settings: which exist, and which was meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import is_dataclass
from typing import Any, get_type_hints

# What others call it, whose letters are those of another setting.
_OTHER_WORDS = dict.fromkeys(("data.path", "data.file", "data.data", "data.name"), "data.source")


def unknown_keys(values: Any, schema: type, prefix: str = "") -> list[str]:
    """The keys of nested data that a dataclass has no field for, each with the nearest field."""
    known = dotted_keys(schema)
    return [
        f"{prefix}{key} is not a setting; did you mean {prefix}{nearest(key, known)}?"
        for key in _keys_of(values, schema)
        if key not in known
    ]


def dotted_keys(schema: type, prefix: str = "") -> list[str]:
    """Every setting of a schema, `hparams.alignment.strength`, and every group of them."""
    keys = []
    for name, kind in get_type_hints(schema).items():
        keys.append(f"{prefix}{name}")
        if is_dataclass(kind):
            keys += dotted_keys(kind, f"{prefix}{name}.")  # type: ignore[arg-type]
    return keys


def nearest(word: str, known: Iterable[str]) -> str:
    """The known name that was most likely meant.

    The whole names are compared, and their last parts: `strenght` stands for
    `hparams.alignment.strength`.
    """

    def last(name: str) -> str:
        return name.rpartition(".")[2]

    def likeness(name: str) -> tuple[float, float]:
        whole = difflib.SequenceMatcher(None, word, name).ratio()
        return max(whole, difflib.SequenceMatcher(None, last(word), last(name)).ratio()), whole

    known = list(known)
    other = _OTHER_WORDS.get(word, "")
    return other if other in known else max(known, key=likeness)


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Key to its last word, where that is not another's too."""
    last = [key.rpartition(".")[2] for key in keys]
    return {
        key: word if last.count(word) == 1 else key for key, word in zip(keys, last, strict=True)
    }


def _keys_of(values: Any, schema: type) -> Iterator[str]:
    """The keys of nested data, down to where the schema has groups no more."""
    groups = {name: kind for name, kind in get_type_hints(schema).items() if is_dataclass(kind)}
    for key, value in values.items():
        yield str(key)
        if key in groups and isinstance(value, dict):
            for inner in _keys_of(value, groups[key]):  # type: ignore[arg-type]
                yield f"{key}.{inner}"
