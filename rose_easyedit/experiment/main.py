"""The entry point of `rose-experiment`: Hydra runs the jobs, and what came of them is told."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rose_easyedit.config.paths import conf_dir
from rose_easyedit.errors import RoSEError
from rose_easyedit.files.stdout import printable_message, reader_may_leave

if TYPE_CHECKING:
    from rose_easyedit.experiment.callback import Command
    from rose_easyedit.experiment.summary_table import RunRow

DONE, FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130
_FULL_ERROR = "HYDRA_FULL_ERROR"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a job, or with `-m` a sweep of them.

    With `HYDRA_FULL_ERROR=1` an error is raised, with its whole trace, and no line.

    Args:
        argv: the words after `rose-experiment`; those of the process if None.

    Returns:
        0 all jobs have finished, 1 one has not, 2 the input was wrong, 130 interrupted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        with reader_may_leave():
            return _run(words)
        return DONE
    except KeyboardInterrupt:
        print("rose-experiment: Interrupted; the same command goes on from here.", file=sys.stderr)
        return INTERRUPTED
    except (RoSEError, OSError) as error:
        if os.environ.get(_FULL_ERROR) == "1":
            raise
        print(f"rose-experiment: {printable_message(error)}", file=sys.stderr)
        return FAILED if isinstance(error, OSError) else WRONG_INPUT


def _run(words: Sequence[str]) -> int:
    from rose_easyedit.experiment.callback import Command
    from rose_easyedit.experiment.summary_table import print_summary, read_rows, write_summary

    with ExitStack() as held:
        command = Command(words, held)
        with command.current():
            code = _hydra(command)
        if command.folder is None:
            return code
        rows = read_rows(command.folder)
        own = [row for row in rows if command.number in (None, row.number)]
        write_summary(command.folder, rows)
        print_summary(command.folder, own)
        _draw(command.folder, [row for row in rows if row.done])
    return DONE if code == DONE and own and all(row.done for row in own) else FAILED


def _draw(folder: Path, rows: Sequence[RunRow]) -> None:
    """The trade that the jobs offer, as figures, where matplotlib is installed."""
    from importlib.util import find_spec

    from rose_easyedit.experiment.metrics import objective
    from rose_easyedit.experiment.report_settings import brief, looks_of, setting

    both = [row for row in rows if None not in map(row.metrics.get, ("asked", "kl"))]
    if len(both) < 2 or find_spec("matplotlib") is None:
        return
    from rose_easyedit.figures.pareto import write_pareto
    from rose_easyedit.tracking.layout import FIGURES

    key = looks_of(both).colour_key
    series: dict[str, list[tuple[float, float]]] = {}
    for row in both:
        name = brief(setting(row, key)) if key else "runs"
        series.setdefault(name, []).append(objective(row.metrics))
    write_pareto(series, folder / FIGURES)


def _hydra(command: Command) -> int:
    """Hydra's own run of the command; its exit code.

    Raises:
        RoSEError: the words cannot be used.
    """
    import hydra

    from rose_easyedit.experiment.job import hydra_job
    from rose_easyedit.experiment.plan import CONFIG, PROGRAM, hydra_loader, register_groups
    from rose_easyedit.experiment.words import told_in_words

    register_groups()
    decorate = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=CONFIG)
    try:
        # so that Hydra raises what it would print
        with _environment(_FULL_ERROR, "1"), _command_line([PROGRAM, *command.words]):
            decorate(hydra_job)()
        return DONE
    except SystemExit as end:
        if not isinstance(end.__cause__, Exception):
            return int(end.code or DONE)
        error = end.__cause__
    except Exception as raised:
        error = raised
    if os.environ.get(_FULL_ERROR) == "1" or isinstance(error, RoSEError):
        raise error
    if command.folder is not None:  # a launcher's; what its jobs have done is told all the same
        message = printable_message(f"{type(error).__name__}: {error}")
        print(f"rose-experiment: {message}", file=sys.stderr)
        return FAILED
    folder, overrides = _settings(command.words)
    with hydra_loader() as loader, told_in_words(overrides, loader, folder):
        raise error


def _settings(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """What `--config-dir` names, and the words that are no options, as Hydra reads them."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--config-dir", "-cd")
    for names in (("--config-path", "-cp"), ("--config-name", "-cn"), ("--package", "-p")):
        parser.add_argument(*names)
    parser.add_argument("--cfg", "-c")
    options, rest = parser.parse_known_args(list(words))
    return options.config_dir, [word for word in rest if not word.startswith("-")]


@contextmanager
def _command_line(words: list[str]) -> Iterator[None]:
    """Hydra reads the process's own."""
    own, sys.argv = sys.argv, words
    try:
        yield
    finally:
        sys.argv = own


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """A variable of the process, put back afterwards."""
    own = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
        if own is not None:
            os.environ[name] = own
