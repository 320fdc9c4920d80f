"""The entry point of `rose-experiment`: check, let Hydra run the jobs, and tell how they ended."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rose_easyedit.config.paths import conf_dir
from rose_easyedit.errors import RoSEError
from rose_easyedit.files.stdout import printable_message

if TYPE_CHECKING:
    from rose_easyedit.experiment.job_list import Job
    from rose_easyedit.experiment.plan import SweepPlan

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
            return _show(words, arguments)
        return _run(words, arguments)
    except KeyboardInterrupt:
        print("rose-experiment: Interrupted; the same command goes on from here.", file=sys.stderr)
        return INTERRUPTED
    except (RoSEError, OSError) as error:
        print(f"rose-experiment: {printable_message(error)}", file=sys.stderr)
        return FAILED if isinstance(error, OSError) else WRONG_INPUT


def _only_shows(arguments: Any) -> bool:
    """Whether the command asks for help or a configuration, and runs nothing."""
    names = ("help", "hydra_help", "cfg", "info", "shell_completion")
    return any(getattr(arguments, name) for name in names)


def _show(words: Sequence[str], arguments: Any) -> int:
    if arguments.cfg and not arguments.help:
        _plan(arguments)
    return _hydra(words)


def _plan(arguments: Any) -> SweepPlan:
    from rose_easyedit.experiment.plan import make_plan

    for option in ("config_name", "config_path"):
        if (given := getattr(arguments, option)) is not None:
            raise RoSEError(
                f"--{option.replace('_', '-')} is {given!r}, but rose-experiment has one "
                "configuration; put files of yours into a folder of groups, and name that with "
                "--config-dir."
            )
    if arguments.cfg and arguments.multirun:
        raise RoSEError(f"--cfg {arguments.cfg} shows one job, and -m runs several; leave one out.")
    return make_plan(arguments.overrides, arguments.multirun, arguments.config_dir)


def _run(words: Sequence[str], arguments: Any) -> int:
    from rose_easyedit.experiment.job_list import listed_jobs, write_list
    from rose_easyedit.experiment.status import only_command
    from rose_easyedit.experiment.summary_table import print_summary, read_rows, write_summary

    plan = _plan(arguments)
    jobs = _jobs(plan, arguments.config_dir)
    with only_command(plan.folder):
        # one job of a sweep, repeated alone, leaves the folder what it is: that of the sweep
        listed = [] if plan.multirun else listed_jobs(plan.folder)
        alone = next((job for job in listed if job.run == jobs[0].run), None)
        if alone is None:
            write_list(plan.folder, jobs, shlex.join(["rose-experiment", *words]))
        code = _hydra(words)
        rows = read_rows(plan.folder)
        own = rows if alone is None else [row for row in rows if row.number == alone.number]
        print_summary(plan.folder, own)
        write_summary(plan.folder, rows)
        _draw(plan.folder, [row.metrics for row in rows if row.done])
    return DONE if code == DONE and own and all(row.done for row in own) else FAILED


def _jobs(plan: SweepPlan, config_dir: str | None) -> list[Job]:
    """The jobs of a command, as their list has them; none of a search, which adds its own."""
    from rose_easyedit.experiment.identity import run_id
    from rose_easyedit.experiment.job_list import Job

    folder = "" if config_dir is None else str(Path(config_dir).resolve())
    return [
        Job(number, run_id(config), _without_hydra(words), folder)
        for number, (words, config) in enumerate(zip(plan.jobs or (), plan.configs, strict=False))
    ]


def _without_hydra(words: Sequence[str]) -> list[str]:
    """What a job sets, without what is said to Hydra."""
    return [word for word in words if not word.lstrip("+~").startswith("hydra")]


def _draw(folder: Path, metrics: Sequence[dict[str, float | None]]) -> None:
    """The trade that the jobs offer, as figures, where matplotlib is installed."""
    from importlib.util import find_spec

    from rose_easyedit.experiment.metrics import objective

    both = [of for of in metrics if of.get("asked") is not None and of.get("kl") is not None]
    points = [objective(of) for of in both]
    if len(points) > 1 and find_spec("matplotlib") is not None:
        from rose_easyedit.figures.pareto import write_pareto
        from rose_easyedit.tracking.layout import FIGURES

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
