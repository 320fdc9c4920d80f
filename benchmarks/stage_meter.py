"""What each stage of a run costs, told apart from outside: CPU, clock, memory and operations."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple, Protocol

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


class Counter(Protocol):
    """What counts floating-point operations (torch's FlopCounterMode)."""

    def get_total_flops(self) -> int: ...


@dataclass
class Cost:
    """Of one stage, without the stages within it.

    Attributes:
        calls: how often it was entered.
        cpu: seconds of all threads.
        wall: seconds.
        peak: most resident memory, MiB; 0 where the system does not tell.
        flops: floating-point operations, where they are counted.
    """

    calls: int = 0
    cpu: float = 0.0
    wall: float = 0.0
    peak: float = 0.0
    flops: int = 0


class _Moment(NamedTuple):
    cpu: float
    wall: float
    flops: int


class Meter:
    """Adds up what happens while each stage is open; the innermost one counts.

    Memory is the kernel's own high-water mark of the process (VmHWM), put back to what is resident
    whenever another stage begins, so that nothing between two samples is missed.

    Args:
        counter: of operations; None does not count them.
    """

    def __init__(self, counter: Counter | None = None) -> None:
        self.costs: dict[str, Cost] = {}
        self._counter = counter
        self._open: list[str] = []
        self._since = self._now()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Opens a stage."""
        self._turn_over()
        self._open.append(name)
        self.costs.setdefault(name, Cost()).calls += 1
        try:
            yield
        finally:
            self._turn_over()
            self._open.pop()

    def is_within(self, name: str) -> bool:
        """Whether a stage is open, be it around others."""
        return name in self._open

    def metered(self, function: Callable[..., Any], name: str | Callable[..., str]) -> Any:
        """A function as a stage; the name may depend on what the function is given."""

        @wraps(function)
        def within(*args: Any, **kwargs: Any) -> Any:
            with self.stage(name if isinstance(name, str) else name(*args, **kwargs)):
                return function(*args, **kwargs)

        return within

    def _turn_over(self) -> None:
        """Books what has happened since the last call to the stage that is open."""
        now = self._now()
        if self._open:
            cost = self.costs[self._open[-1]]
            cost.cpu += now.cpu - self._since.cpu
            cost.wall += now.wall - self._since.wall
            cost.flops += now.flops - self._since.flops
            cost.peak = max(cost.peak, resident("VmHWM"))
        _forget_peak()
        self._since = self._now()

    def _now(self) -> _Moment:
        flops = 0 if self._counter is None else self._counter.get_total_flops()
        return _Moment(time.process_time(), time.perf_counter(), flops)


def resident(what: str = "VmRSS") -> float:
    """Resident memory of this process, MiB: now, or its peak (VmHWM); 0 where there is no /proc."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(what)), 0.0)


def _forget_peak() -> None:
    if os.access(_CLEAR, os.W_OK):
        _CLEAR.write_text(_RESET_PEAK)
