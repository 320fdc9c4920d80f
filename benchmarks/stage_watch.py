"""The stages of an edit, patched from outside: the package knows nothing of being measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from stage_flops import least_flops
from stage_meter import Meter

from rose_easyedit.edits.factors import Factors
from rose_easyedit.forward.layerwise import Stack
from rose_easyedit.method import edit
from rose_easyedit.method.neighbourhood import preserved_queries
from rose_easyedit.method.plan import Columns, make_columns, make_plan
from rose_easyedit.method.stage1 import integration, targets
from rose_easyedit.method.stage1.setting import Level
from rose_easyedit.method.stage2 import closed_form, layers
from rose_easyedit.method.stage2.closed_form import align
from rose_easyedit.method.stage2.statistics import load_spectra
from rose_easyedit.method.verification import self_check

COLD, WARM, REST = "statistics, cold", "statistics, warm", "rest"
FACTS, SUBJECTS = "fact level", "subject level"
CHECK = "check"
APPLY, REVERT = "apply", "revert"
# In the order in which data flows; "rest" is the fingerprint, the provenance, and what is between.
STAGES = (
    COLD,
    WARM,
    "plan",
    "hidden",
    "prefix",
    FACTS,
    SUBJECTS,
    "columns",
    "keys",
    "solve",
    "compress",
    "report",
    CHECK,
    REST,
    APPLY,
    REVERT,
)
_LEVELS = {"facts": FACTS, "subjects": SUBJECTS}


@dataclass
class Seen:
    """What passed by during an edit.

    Attributes:
        columns: of each solve.
        solvers: the systems that were solved: as large as there are rows, or entries of a key.
        least: floating-point operations that each level needs at the least.
        optimised: how many facts the last level had.
    """

    columns: list[Columns] = field(default_factory=list)
    solvers: set[str] = field(default_factory=set)
    least: dict[str, int] = field(default_factory=dict)
    optimised: int = 0


@contextmanager
def watched(meter: Meter, seen: Seen, spectra: Path) -> Iterator[None]:
    """Every stage of an edit metered; statistics are in a folder of their own."""

    def level_name(_setting: Any, _groups: Any, _start: Any, level: Level) -> str:
        return _LEVELS[level.name]

    def optimise(setting: Any, groups: Any, start: Any, level: Level) -> Any:
        turns = setting.hparams.context_batches
        name = _LEVELS[level.name]
        least = least_flops(setting.editable, setting.layer, groups, level, turns)
        seen.least[name] = seen.least.get(name, 0) + least
        seen.optimised = sum(len(group.facts) for group in groups)
        return integration.optimise(setting, groups, start, level)

    def reader_name(*_args: Any, **_kwargs: Any) -> str:
        return CHECK if meter.is_within(CHECK) else "keys"

    def columns(*args: Any) -> Columns:
        seen.columns.append(make_columns(*args))
        return seen.columns[-1]

    def solver(name: str) -> Any:
        function = getattr(closed_form, f"solve_{name}")

        def solve(*args: Any) -> Any:
            seen.solvers.add(name)
            return function(*args)

        return mock.patch.object(closed_form, f"solve_{name}", solve)

    stages: list[tuple[Any, str, Any, Any]] = [
        (edit, "load_spectra", partial(load_spectra, folder=spectra), WARM),
        (targets, "make_plan", make_plan, "plan"),
        (targets, "_base_hidden", targets._base_hidden, "hidden"),
        (integration, "_capture", integration._capture, "prefix"),
        (targets, "optimise", optimise, level_name),
        (edit, "preserved_queries", preserved_queries, "columns"),
        (edit, "make_columns", columns, "columns"),
        (Stack, "before", Stack.before, reader_name),
        (Stack, "advanced", Stack.advanced, reader_name),
        (Stack, "read", Stack.read, reader_name),
        (Stack, "read_keys", Stack.read_keys, reader_name),
        (layers, "align", align, "solve"),
        (Factors, "compressed", Factors.compressed, "compress"),
        (edit, "_rounding_loss", edit._rounding_loss, "report"),
        (edit, "self_check", self_check, CHECK),
    ]
    with ExitStack() as patches:
        for owner, attribute, function, name in stages:
            metered = meter.metered(function, name)
            patches.enter_context(mock.patch.object(owner, attribute, metered))
        for name in ("rows", "entries"):
            patches.enter_context(solver(name))
        yield
