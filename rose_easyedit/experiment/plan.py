"""The jobs of a command, composed and checked before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rose_easyedit.config.paths import conf_dir, hparams_dir
from rose_easyedit.errors import RoSEError, first_line
from rose_easyedit.experiment.metrics import ASKED
from rose_easyedit.experiment.schema import ExperimentConfig, faults_of, read_config
from rose_easyedit.experiment.words import word_faults

CONFIG = "config"
PROGRAM = "rose-experiment"


@dataclass(frozen=True)
class SweepPlan:
    """What a command will do.

    Attributes:
        folder: where.
        multirun: whether it is a sweep.
        jobs: what each job sets; None if a search decides that as it goes.
        configs: of the jobs; of a search what its jobs have in common.
    """

    folder: Path
    multirun: bool
    jobs: list[list[str]] | None
    configs: list[ExperimentConfig]


def register_groups() -> None:
    """Tells Hydra the schema, and the model settings of hparams/ as a group of that name.

    They are stored rather than searched for, so that they are at hand in every process of a
    launcher, wherever it runs.
    """
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    store = ConfigStore.instance()
    store.store(name="schema", node=ExperimentConfig, provider=PROGRAM)
    for path in sorted((hparams_dir() / "RoSE").glob("*.yaml")):
        node = OmegaConf.load(path)
        store.store(group="hparams", name=path.stem, node=node, provider=PROGRAM)


def compose_job(words: Sequence[str]) -> ExperimentConfig:
    """The checked configuration of one job, for `run.run_experiment`.

    Args:
        words: Hydra's overrides.

    Raises:
        RoSEError: as `make_plan`.
    """
    with _composer(None) as (compose, _):
        return read_config(_without_hydra(compose(words)))


def make_plan(words: Sequence[str], multirun: bool, config_dir: str | None = None) -> SweepPlan:
    """Composes every job of a command and checks it.

    Args:
        words: Hydra's overrides.
        multirun: whether `-m` was given.
        config_dir: a folder with more groups, as `--config-dir` names it.

    Raises:
        RoSEError: a key, a choice, a value or a combination does not exist or cannot be used.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    with _composer(config_dir) as (compose, loader):
        parser = OverridesParser.create(config_loader=loader)
        overrides = parser.parse_overrides(list(words))
        if faults := word_faults(overrides, loader):
            raise RoSEError.of("This experiment cannot be run:", faults)
        plain = [str(word.input_line) for word in overrides if not word.is_sweep_override()]
        base = compose(plain)
        swept = [str(word.input_line) for word in overrides if word.is_sweep_override()]
        multirun = multirun or str(base.hydra.mode) == "RunMode.MULTIRUN"
        if swept and not multirun:
            raise RoSEError(f"{', '.join(swept)} gives several values; add -m to run all of them.")
        if not multirun:
            jobs: list[list[str]] | None = [list(words)]
        else:
            jobs = _split(base.hydra.sweeper, parser, words)
        configs = [read_config(_without_hydra(compose(job))) for job in jobs or [plain]]
        params = base.hydra.sweeper.get("params") or {}
        if jobs == []:
            several = ", ".join([*swept, *(f"{key}={value}" for key, value in params.items())])
            raise RoSEError(f"This sweep has no job: see that {several} all have a value.")
        if jobs is None and (faults := _search_faults([*swept, *params], configs[0])):
            raise RoSEError.of("This search cannot be run:", faults)
    folders = list(dict.fromkeys(config.folder for config in configs))
    if len(folders) > 1:
        raise RoSEError(
            f"The jobs of a sweep share a folder, and these have {', '.join(folders[:4])}; give "
            "one name and one folder, or a command for each."
        )
    if faults := _data_faults(configs):
        raise RoSEError.of("This experiment cannot be run:", faults)
    return SweepPlan(Path(folders[0]), multirun, jobs, configs)


def _data_faults(configs: Sequence[ExperimentConfig]) -> list[str]:
    """Why facts cannot be read, or drawn as the jobs ask for; each draw is tried once."""
    from rose_easyedit.experiment.run import select_data

    faults: list[str] = []
    for data in {repr(config.data): config.data for config in configs}.values():
        try:
            select_data(data)
        except RoSEError as error:
            faults += [f"data: {fault}" for fault in faults_of(error)]
    return list(dict.fromkeys(faults))


def _split(sweeper: Any, parser: Any, words: Sequence[str]) -> list[list[str]] | None:
    """The jobs of Hydra's basic sweeper; None with another sweeper."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    if not sweeper._target_.endswith(".BasicSweeper"):
        return None
    params = [f"{key}={value}" for key, value in (sweeper.params or {}).items()]
    return BasicSweeper.split_arguments(parser.parse_overrides([*params, *words]), None)[0]


def _search_faults(searched: Sequence[str], config: ExperimentConfig) -> list[str]:
    """What a search cannot be about, and what it cannot do without."""
    keys = {word.partition("=")[0] for word in searched}
    faults = [
        f"{key} is searched, but the jobs of a search share a folder; give {key} one value"
        for key in ("name", "folder")
        if key in keys
    ]
    if missing := [form for form in ASKED if form not in config.evaluation.forms]:
        faults.append(f"evaluation.forms lacks {', '.join(missing)}, by which jobs are compared")
    return faults


@contextmanager
def _composer(config_dir: str | None) -> Iterator[tuple[Any, Any]]:
    """A function that composes overrides, and Hydra's loader of configurations.

    Hydra's own global state is as before afterwards.
    """
    from hydra import compose, version
    from hydra._internal.hydra import Hydra
    from hydra._internal.utils import create_config_search_path
    from hydra.core.config_search_path import SearchPathQuery
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    def composed(words: Sequence[str]) -> Any:
        config = compose(CONFIG, list(words), return_hydra_config=True)
        HydraConfig.instance().set_config(config)  # which `${hydra:...}` reads
        return config

    search_path = create_config_search_path(search_path_dir=str(conf_dir()))
    if config_dir is not None:
        folder = Path(config_dir).resolve()
        if not folder.is_dir():
            raise RoSEError(f"--config-dir {config_dir} is no folder; name one with groups in it.")
        anchor = SearchPathQuery(provider="schema")
        search_path.prepend("command-line", f"file://{folder}", anchor)
    held, used = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
    GlobalHydra.instance().clear()
    version.setbase("1.3")
    register_groups()
    try:
        hydra = Hydra.create_main_hydra2(PROGRAM, search_path)
        yield composed, hydra.config_loader
    except (HydraException, OmegaConfBaseException) as error:
        raise RoSEError(f"This experiment cannot be run: {_first_words(error)}") from error
    finally:
        GlobalHydra.instance().hydra, HydraConfig.instance().cfg = held, used


def _first_words(error: BaseException) -> str:
    """An error of Hydra's and what caused it, without lists of search paths."""
    causes = [error] if error.__cause__ is None else [error, error.__cause__]
    return ": ".join(first_line(str(cause)).rstrip(".:") for cause in causes)


def _without_hydra(config: Any) -> Any:
    from omegaconf import open_dict, read_write

    with read_write(config), open_dict(config):
        del config["hydra"]
    return config
