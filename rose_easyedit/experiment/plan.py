"""The jobs of a command, composed and checked before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, cast

from rose_easyedit.config.paths import conf_dir, hparams_dir
from rose_easyedit.errors import RoSEError
from rose_easyedit.experiment.metrics import ASKED
from rose_easyedit.experiment.schema import ExperimentConfig, faults_of, read_config
from rose_easyedit.experiment.words import CANNOT_BE_RUN, told_in_words, word_faults

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
        options: the words, beside its own, without which a job cannot be repeated.
    """

    folder: Path
    multirun: bool
    jobs: list[list[str]] | None
    configs: list[ExperimentConfig]
    options: list[str]


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


@contextmanager
def hydra_loader() -> Iterator[Any]:
    """Hydra's loader of our configuration; inside the block `hydra.compose` composes it."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    register_groups()
    with initialize_config_dir(str(conf_dir()), job_name=PROGRAM, version_base="1.3"):
        yield GlobalHydra.instance().config_loader()


def compose_job(words: Sequence[str]) -> ExperimentConfig:
    """The checked configuration of one job, for `run.run_experiment`.

    Args:
        words: Hydra's overrides.

    Raises:
        RoSEError: a key, a choice, a value or a combination does not exist or cannot be used.
    """
    from hydra import compose

    with hydra_loader() as loader, told_in_words(words, loader):
        config = compose(CONFIG, list(words))
    return read_config(config)


def make_plan(config: Any, multirun: bool, loader: Any) -> SweepPlan:
    """Composes every job of a command and checks it, as Hydra's sweeper will compose it.

    Args:
        config: of the command, as Hydra has composed it, with its own part.
        multirun: whether it is a sweep.
        loader: Hydra's loader of configurations, which has composed it.

    Raises:
        RoSEError: a key, a choice, a value or a combination does not exist or cannot be used; of
            a job, with its number.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parser = OverridesParser.create(config_loader=loader)
    params = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
    words = [*(params if multirun else []), *words_said(config.hydra.overrides.task)]
    overrides = parser.parse_overrides(words)
    said = parser.parse_overrides(words_said(config.hydra.overrides.hydra))
    if faults := word_faults([*said, *overrides], loader):
        raise RoSEError.of(CANNOT_BE_RUN, faults)
    basic = config.hydra.sweeper._target_.endswith(".BasicSweeper")
    jobs: list[list[str]] | None = [words]
    if multirun:
        jobs = _split(overrides) if basic else None
    swept = [str(override.input_line) for override in overrides if override.is_sweep_override()]
    if jobs == []:
        raise RoSEError(f"This sweep has no job: see that {', '.join(swept)} all have a value.")
    composed = [config] if jobs is None or not multirun else _composed(jobs, config, loader)
    configs = _read(composed, numbered=len(composed) > 1)
    if jobs is None and (faults := _search_faults([*swept, *params], configs[0])):
        raise RoSEError.of("This search cannot be run:", faults)
    folders = list(dict.fromkeys(job.folder for job in configs))
    if len(folders) > 1:
        raise RoSEError(
            f"The jobs of a sweep share a folder, and these have {', '.join(folders[:4])}; give "
            "one name and one folder, or a command for each."
        )
    _check_data(configs)
    folder = sweep_folder(config.hydra, multirun)
    return SweepPlan(folder, multirun, jobs, configs, options_of(config.hydra, folder, folders[0]))


def sweep_folder(hydra: Any, multirun: bool) -> Path:
    """Where a command writes: what `hydra.sweep.dir`, or for one job `hydra.run.dir`, says."""
    return Path(str(hydra.sweep.dir if multirun else hydra.run.dir))


def words_said(overrides: Any) -> list[str]:
    """Words of a command as they were given: one with an interpolation stays one.

    Args:
        overrides: `hydra.overrides.task`, what a job sets, or `hydra.overrides.hydra`.
    """
    from omegaconf import OmegaConf

    return [str(word) for word in cast(list[str], OmegaConf.to_container(overrides, resolve=False))]


def options_of(hydra: Any, folder: Path, own: str) -> list[str]:
    """What was said to Hydra, and must be said again to repeat a job.

    Args:
        hydra: its part of a configuration.
        folder: where the command writes.
        own: where it writes if nothing is said to Hydra.
    """
    sources = hydra.runtime.config_sources
    options = []
    for source in sources:
        if source.provider == "command-line":
            options += ["--config-dir", str(source.path)]
    if hydra.job.config_name != CONFIG:
        options += ["--config-name", str(hydra.job.config_name)]
    options += [word for word in words_said(hydra.overrides.hydra) if "hydra.searchpath=" in word]
    return [*options, *([] if folder == Path(own) else [f"hydra.run.dir={folder}"])]


def _check_data(configs: Sequence[ExperimentConfig]) -> None:
    """Refuses facts that cannot be read, or drawn as the jobs ask for; each draw is tried once."""
    from rose_easyedit.experiment.run import select_data

    faults: list[str] = []
    for data in {repr(config.data): config.data for config in configs}.values():
        try:
            select_data(data)
        except RoSEError as error:
            faults += [f"data: {fault}" for fault in faults_of(error)]
    if faults:
        raise RoSEError.of(CANNOT_BE_RUN, list(dict.fromkeys(faults)))


def _split(overrides: Sequence[Any]) -> list[list[str]]:
    """The jobs of Hydra's basic sweeper, in its order: every combination."""
    values: dict[str, list[str]] = {}
    for override in overrides:
        key = override.get_key_element()
        if override.is_discrete_sweep():
            values[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
        elif override.is_sweep_override():
            raise RoSEError(
                f"{override.input_line} is a range to search in; add sweeper=optuna, or give values"
            )
        else:
            values[key] = [f"{key}={override.get_value_element_as_str()}"]
    return [list(job) for job in product(*values.values())]


def _composed(jobs: Sequence[Sequence[str]], config: Any, loader: Any) -> list[Any]:
    """The configuration of each job, with its number, as a launcher will compose it."""
    from omegaconf import open_dict

    found = []
    for number, words in enumerate(jobs):
        job = loader.load_sweep_config(config, list(words))
        with open_dict(job):
            job.hydra.job.num, job.hydra.job.id = number, str(number)
        found.append(job)
    return found


def _read(composed: Sequence[Any], numbered: bool) -> list[ExperimentConfig]:
    """The checked configurations; the faults of all jobs together, each with its first number."""
    found, faults = [], dict[str, int]()
    for number, config in enumerate(composed):
        try:
            found.append(_checked(config))
        except RoSEError as error:
            for fault in faults_of(error):
                faults.setdefault(fault, number)
    if faults:
        told = [f"job {n}: {fault}" if numbered else fault for fault, n in faults.items()]
        raise RoSEError.of(CANNOT_BE_RUN, told)
    return found


def _checked(config: Any) -> ExperimentConfig:
    """A job's configuration, while `${hydra:...}` means its own; Hydra's state is as before."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import open_dict, read_write

    held = HydraConfig.instance().cfg
    own = deepcopy(config)
    try:
        HydraConfig.instance().set_config(config)
        with read_write(own), open_dict(own):
            del own["hydra"]
        return read_config(own)
    finally:
        HydraConfig.instance().cfg = held


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
