"""The commands as the system starts them: an interrupt is one line, from the first import on.

One that falls into an import is raised behind it: in a library that is half imported it becomes an
error of another kind, the end of the process, or nothing at all.
"""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
from _thread import interrupt_main
from importlib import import_module
from threading import Timer
from types import FrameType

INTERRUPTED = 130
_AGAIN = 0.02  # seconds between two looks at whether an import has ended
# New objects between two searches for circles: the search through what an import has made, which is
# there to stay, takes a fifth of the time of the imports where it comes every 700.
_OBJECTS = 50_000
_IMPORTS = "<frozen importlib._bootstrap"
# How often a thread of OpenMP (GCC's, which torch brings) looks for work before it sleeps: its own
# 300,000 times take the time of others on a busy machine, where an edit is five times as long then.
_LOOKS = ("GOMP_SPINCOUNT", "5000")


def rose_edit() -> int:
    """`rose-edit`; its exit code."""
    return _run("rose-edit", "rose_easyedit.cli.main")


def rose_experiment() -> int:
    """`rose-experiment`; its exit code."""
    return _run("rose-experiment", "rose_easyedit.experiment.main")


def rose_report() -> int:
    """`rose-report`; its exit code."""
    return _run("rose-report", "rose_easyedit.experiment.report")


def rose_dashboard() -> int:
    """`rose-dashboard`; its exit code."""
    return _run("rose-dashboard", "rose_easyedit.tracking.dashboard")


class _Interrupts:
    """A handler of interrupts, for a process that imports libraries while it works.

    Attributes:
        waiting: whether one has come that was not raised yet.
    """

    def __init__(self) -> None:
        self.waiting = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if not _is_importing(frame):
            self.waiting = False
            raise KeyboardInterrupt
        self.waiting = True
        look_again = Timer(_AGAIN, interrupt_main)
        look_again.daemon = True
        look_again.start()


def _run(name: str, module: str) -> int:
    """Runs the `main` of a module, which may have told of an interrupt itself."""
    interrupts = _Interrupts()
    gc.set_threshold(_OBJECTS)
    # The end of a process takes all that is in its memory; the search for circles before, which
    # the interpreter makes several times, takes a second where torch has been imported.
    atexit.register(gc.freeze)
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault(*_LOOKS)
    _open_streams()
    try:
        # not where they are ignored, as behind a shell's `&`
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, interrupts)
        code = int(import_module(module).main())
        if code == INTERRUPTED or not interrupts.waiting:
            return code
    except KeyboardInterrupt:
        pass
    finally:
        if signal.getsignal(signal.SIGINT) is interrupts:
            # the work is over; what ends the process has nothing to say of an interrupt
            signal.signal(signal.SIGINT, signal.SIG_DFL)
    print(f"{name}: Interrupted; no file was left half written.", file=sys.stderr)
    return INTERRUPTED


def _open_streams() -> None:
    """Opens those of the three that the process began without, as `command >&-` does.

    The next file to be opened would take the number, and be written to by whoever writes there.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))


def _is_importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported on the stack."""
    while frame is not None:
        if frame.f_code.co_filename.startswith(_IMPORTS):
            return True
        frame = frame.f_back
    return False
