"""The entry point of `rose-experiment`: check, let Hydra run the jobs, and tell how they ended."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rose_easyedit.errors import RoSEError
from rose_easyedit.paths import conf_dir

DONE, FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a job, or with `-m` a sweep of them.

    Args:
        argv: the words after `rose-experiment`; those of the process if None.

    Returns:
        0 all jobs have finished, 1 one has not, 2 the input was wrong, 130 interrupted.
    """
    from hydra._internal.utils import get_args_parser

    words = list(sys.argv[1:] if argv is None else argv)
    arguments = get_args_parser().parse_args(words)
    try:
        if _only_shows(arguments):
            return _hydra(words)
        return _run(words, arguments)
    except KeyboardInterrupt:
        print("rose-experiment: Interrupted; the same command goes on from here.", file=sys.stderr)
        return INTERRUPTED
    except (RoSEError, OSError) as error:
        print(f"rose-experiment: {error}", file=sys.stderr)
        return WRONG_INPUT if isinstance(error, RoSEError) else FAILED


def _only_shows(arguments: object) -> bool:
    """Whether the command asks for help or a configuration, and runs nothing."""
    names = ("help", "hydra_help", "cfg", "info", "shell_completion")
    return any(getattr(arguments, name) for name in names)


def _run(words: Sequence[str], arguments: object) -> int:
    from rose_easyedit.experiment.job import listed_jobs, new_list, put_back
    from rose_easyedit.experiment.plan import make_plan
    from rose_easyedit.experiment.summary_table import print_summary, read_rows, write_summary

    plan = make_plan(
        arguments.overrides,  # type: ignore[attr-defined]
        arguments.multirun,  # type: ignore[attr-defined]
        arguments.config_dir,  # type: ignore[attr-defined]
    )
    earlier = [] if plan.multirun else listed_jobs(plan.folder)
    new_list(plan.folder)
    code = _hydra(words)
    rows = read_rows(plan.folder, plan.jobs)
    print_summary(plan.folder, rows)
    if {row.run for row in rows} & {job.run for job in earlier}:
        # one job of a sweep, repeated alone: the sweep is what the folder is about
        put_back(plan.folder, earlier)
        write_summary(plan.folder, read_rows(plan.folder, None))
    else:
        write_summary(plan.folder, rows)
    if plan.multirun:
        _draw(plan.folder, [row.metrics for row in rows if row.done])
    return DONE if code == DONE and rows and all(row.done for row in rows) else FAILED


def _draw(folder: Path, metrics: Sequence[dict[str, float | None]]) -> None:
    """The trade that the jobs offer, as figures, where matplotlib is installed."""
    from importlib.util import find_spec

    from rose_easyedit.experiment.metrics import objective

    points = [objective(of) for of in metrics if of["asked"] is not None and of["kl"] is not None]
    if len(points) > 1 and find_spec("matplotlib") is not None:
        from rose_easyedit.experiment.layout import FIGURES
        from rose_easyedit.figures.pareto import write_pareto

        write_pareto(points, folder / FIGURES)


def _hydra(words: Sequence[str]) -> int:
    """Hydra's own run of the command; its exit code."""
    import hydra

    from rose_easyedit.experiment.job import hydra_job
    from rose_easyedit.experiment.plan import CONFIG, PROGRAM, register_groups

    register_groups()
    decorate = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=CONFIG)
    with _command_line([PROGRAM, *words]):
        try:
            decorate(hydra_job)()
        except SystemExit as end:
            return int(end.code or DONE)
    return DONE


@contextmanager
def _command_line(words: list[str]) -> Iterator[None]:
    """Hydra reads the process's own."""
    own, sys.argv = sys.argv, words
    try:
        yield
    finally:
        sys.argv = own
