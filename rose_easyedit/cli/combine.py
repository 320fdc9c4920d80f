"""`rose-edit combine`: several edits as one."""

from __future__ import annotations

import time
from argparse import Namespace
from functools import reduce

from rose_easyedit.cli import output
from rose_easyedit.cli.commands import save_edit
from rose_easyedit.cli.places import new_file
from rose_easyedit.cli.settings import load_base
from rose_easyedit.errors import RoSEError


def combine(arguments: Namespace) -> int:
    """Solves the facts of several edits together, or adds their updates, and saves the edit."""
    from rose_easyedit.edits.delta import EditDelta
    from rose_easyedit.method.combine import add
    from rose_easyedit.method.combine import combine as solve_together

    out = new_file(arguments.out, arguments.force, arguments.deltas)
    if len(arguments.deltas) < 2:
        raise RoSEError("There is one edit only; name two or more to combine.")
    deltas = [EditDelta.load(name) for name in arguments.deltas]
    start = time.perf_counter()
    if arguments.add:
        delta = reduce(add, deltas)
    else:
        model, tokenizer = load_base(deltas[0], arguments)
        with output.told_in_report():
            delta = solve_together(model, tokenizer, deltas[0], *deltas[1:])
    return save_edit(delta, out, time.perf_counter() - start, arguments)
