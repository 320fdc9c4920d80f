"""What an experiment is made of: the schema of conf/config.yaml, and its checks."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf

from rose_easyedit.config.checks import setting_faults
from rose_easyedit.config.hparams import RoSEHyperParams
from rose_easyedit.config.rules import setting
from rose_easyedit.easyedit.importing import easyeditor_folder
from rose_easyedit.easyedit.settings import EasyEditSettings, easyedit_faults
from rose_easyedit.errors import RoSEError
from rose_easyedit.evaluation.facts import MOST_FACTS
from rose_easyedit.evaluation.selection import BUNDLED, LABORATORY
from rose_easyedit.evaluation.settings import EvaluationSettings
from rose_easyedit.geometry.settings import DiagnosisSettings
from rose_easyedit.tracking.choice import make_tracker
from rose_easyedit.tracking.tracker import TrackingSettings

THROUGH = ("native", "easyedit")
# What `data.source` calls the bundled sets, and what the rest of the package does.
SOURCES = {word: data for data, word in BUNDLED.items()} | {LABORATORY: LABORATORY}


@dataclass
class DataConfig:
    """Which facts are written.

    Attributes:
        source: `core` or `wide` (the bundled sets), `laboratory`, or a data file.
        split: of a bundled set, `validation` or `test`; null takes all of it.
        skip_bad: leave out the records of a file that do not fit.
        at_least: keep the subjects with this many facts or more.
        facts_per_subject: draw this many facts of each subject; null takes all.
        subjects: draw this many subjects; null takes all.
        seed: of the draws.
    """

    source: str = "core"
    split: str | None = None
    skip_bad: bool = False
    at_least: int = setting(1, above=0)
    facts_per_subject: int | None = setting(None, above=0, most=MOST_FACTS)
    subjects: int | None = setting(None, above=0)
    seed: int = setting(0, least=0)


@dataclass
class JobEvaluation(EvaluationSettings):
    """How the models are asked, and whether the geometry of the edit is measured as well.

    Attributes:
        geometry: measure it, and draw it.
        diagnosis: how.
    """

    geometry: bool = False
    diagnosis: DiagnosisSettings = field(default_factory=DiagnosisSettings)


@dataclass
class ExperimentConfig:
    """One job.

    Attributes:
        name: of the sweep; jobs of one name share a folder.
        folder: where the sweep writes.
        seed: of the edit and of the draw of facts; null leaves each as its own group has it.
        through: `native`, or `easyedit`: the edit is made by EasyEdit's `BaseEditor.batch_edit`.
        resume: take a finished run from disk instead of repeating it.
        cache: take the unedited model's answers, and the shifts of stage 1 (natively), from the
            user's cache where an earlier run has found the same ones.
        hparams: the method's settings; with a method of EasyEdit's, the model's, from which those
            of the method follow.
        easyedit: a method of EasyEdit's own in place of ours; `through` says nothing of it.
        data: the facts.
        evaluation: how the edit is judged; what it tells the chat template comes on top of what
            `hparams` does.
        tracking: where numbers go while it runs.
    """

    name: str = "sweep"
    folder: str = MISSING
    seed: int | None = None
    through: str = "native"
    resume: bool = True
    cache: bool = True
    hparams: RoSEHyperParams = MISSING
    easyedit: EasyEditSettings = field(default_factory=EasyEditSettings)
    data: DataConfig = field(default_factory=DataConfig)
    evaluation: JobEvaluation = field(default_factory=JobEvaluation)
    tracking: TrackingSettings = field(default_factory=TrackingSettings)


def read_config(config: DictConfig) -> ExperimentConfig:
    """A composed configuration as checked objects, with `seed` in its places.

    Raises:
        RoSEError: with the keys that do not exist and the nearest that do, or with every value
            and combination that cannot be used.
    """
    from omegaconf.errors import OmegaConfBaseException

    from rose_easyedit.experiment.keys import unknown_keys

    values = OmegaConf.to_container(config)
    if faults := unknown_keys(values, ExperimentConfig):
        raise RoSEError.of("This experiment cannot be run:", faults)
    try:
        typed = OmegaConf.merge(OmegaConf.structured(ExperimentConfig), config)
        made, faults = _objects(typed)
    except OmegaConfBaseException as error:
        message = str(error).splitlines()[0]
        raise RoSEError(f"This experiment cannot be run: {error.full_key}: {message}") from error
    if faults := [*_faults(made), *faults]:
        raise RoSEError.of("This experiment cannot be run:", faults)
    found = ExperimentConfig(**made)
    if found.seed is None:
        return found
    return replace(
        found,
        hparams=replace(found.hparams, seed=found.seed),
        data=replace(found.data, seed=found.seed),
    )


def _objects(typed: Any) -> tuple[dict[str, Any], list[str]]:
    """The parts of a job that can be made, and what is wrong with the others."""
    made, faults = {}, []
    for name in typed:
        part, wrong = _object(typed[name])
        faults += [f"{name}.{fault}" for fault in wrong]
        if not wrong:
            made[name] = part
    return made, faults


def _object(part: Any) -> tuple[Any, list[str]]:
    """A group of settings, and every fault of it and of the groups in it."""
    if not OmegaConf.is_dict(part) or OmegaConf.get_type(part) is dict:
        return OmegaConf.to_object(part) if OmegaConf.is_config(part) else part, []
    faults = []
    for name in part:
        _, wrong = _object(part[name])
        if wrong:
            faults += [f"{name}.{fault}" for fault in wrong]
            part[name] = OmegaConf.structured(OmegaConf.get_type(part[name]))
    try:
        return OmegaConf.to_object(part), faults
    except RoSEError as error:
        return None, faults_of(error) + faults


def _faults(made: dict[str, Any]) -> list[str]:
    """What is wrong with parts, and how they go together, that no part can tell of itself."""
    faults = []
    if made["through"] not in THROUGH:
        faults.append(f"through is {made['through']!r}; choose one of {', '.join(THROUGH)}")
    name = made["name"]
    if name in ("", ".", "..") or {"/", "\0"} & set(name):
        faults.append(f"name is {name!r}; give a word that can name a folder")
    faults += easyedit_faults(made["easyedit"], easyeditor_folder())
    faults += _data_faults(made["data"])
    try:
        make_tracker(made["tracking"])
        if "evaluation" in made and made["evaluation"].geometry:
            from rose_easyedit.figures.canvas import require_matplotlib

            require_matplotlib()
    except RoSEError as error:
        faults += faults_of(error)
    return faults


def faults_of(error: RoSEError) -> list[str]:
    """The faults that an error reports, without its title if it has one."""
    lines = str(error).splitlines()
    return [line.removeprefix("  - ") for line in lines[1:]] or lines


def _data_faults(data: DataConfig) -> list[str]:
    from rose_easyedit.evaluation.facts import SPLITS

    faults = setting_faults(data, "data.")
    bundled = data.source in BUNDLED.values()
    if data.source not in SOURCES and not Path(data.source).is_file():
        faults.append(
            f"data.source is {data.source!r}; give {', '.join(SOURCES)}, or a data file that exists"
        )
    if data.split is not None and not bundled:
        faults.append(
            f"data.split is {data.split!r}, but only the bundled sets have splits; "
            "data.split=null leaves it out"
        )
    elif data.split not in (None, *SPLITS):
        faults.append(f"data.split is {data.split!r}; choose one of {', '.join(SPLITS)}, or null")
    return faults
