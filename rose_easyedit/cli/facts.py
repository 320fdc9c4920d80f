"""The facts that `--requests` names: requests, any data file of the field, or a bundled set."""

from __future__ import annotations

import difflib
from pathlib import Path

from rose_easyedit.errors import RoSEError
from rose_easyedit.requests import EditRequest, load_requests

_TABLES = (".csv", ".tsv")


def named_requests(name: str) -> list[EditRequest]:
    """What `--requests` names, as requests.

    Args:
        name: a file of requests, a data file in one of the forms that `evaluate --data` reads, or
            one of `selection.BUNDLED`.

    Raises:
        RoSEError: there is no such file, or it is in none of these forms; with the faults of
            requests, which it was most likely to hold.
    """
    from rose_easyedit.evaluation.selection import BUNDLED, LABORATORY

    if name in (*BUNDLED, LABORATORY):
        return _of_data(name)
    near = difflib.get_close_matches(name, BUNDLED, n=1, cutoff=0.8)
    if near and not Path(name).exists():
        raise RoSEError(f"There is no request file {name!r}; did you mean {near[0]!r}?")
    if Path(name).suffix.lower() in _TABLES:
        raise RoSEError(
            f"{name} is a table (CSV); give one JSON object a line, with prompt, subject and "
            "target_new."
        )
    try:
        return load_requests(name)
    except RoSEError as error:
        if not Path(name).is_file():
            raise
        try:
            return _of_data(name)
        except RoSEError:
            raise error from None


def _of_data(name: str) -> list[EditRequest]:
    from rose_easyedit.evaluation.selection import read_facts

    return [fact.to_request() for fact in read_facts(name)[0]]
