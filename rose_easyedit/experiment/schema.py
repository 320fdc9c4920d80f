"""What an experiment is made of: the schema of conf/config.yaml, and its checks."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from omegaconf import MISSING, DictConfig, OmegaConf

from rose_easyedit.config.hparams import RoSEHyperParams
from rose_easyedit.easyedit.importing import easyeditor_folder
from rose_easyedit.easyedit.settings import EasyEditSettings, settings_faults
from rose_easyedit.errors import RoSEError
from rose_easyedit.evaluation.selection import BUNDLED, LABORATORY
from rose_easyedit.tracking.choice import make_tracker
from rose_easyedit.tracking.tracker import TrackingSettings

if TYPE_CHECKING:
    from rose_easyedit.evaluation.settings import EvaluationSettings
    from rose_easyedit.geometry.settings import DiagnosisSettings

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
    at_least: int = 1
    facts_per_subject: int | None = None
    subjects: int | None = None
    seed: int = 0


@dataclass
class DiagnosisConfig:
    """How geometry is measured; see `geometry.settings.DiagnosisSettings`."""

    directions: int = 16
    quantile: float = 0.5
    max_radius: float = 4.0
    halvings: int = 8
    landscape_directions: int = 8
    landscape_extent: float = 2.0
    landscape_points: int = 12
    max_new_tokens: int = 24
    seed: int = 0

    def settings(self) -> DiagnosisSettings:
        """As the diagnosis takes them."""
        from rose_easyedit.geometry.settings import DiagnosisSettings

        return DiagnosisSettings(**vars(self))


@dataclass
class EvaluationConfig:
    """How the models are asked; see `evaluation.settings.EvaluationSettings`.

    Attributes:
        autocast: `bfloat16`, `float16`, or null for the weights' own precision.
        geometry: measure the geometry of the edit as well, and draw it.
        diagnosis: how.
    """

    max_new_tokens: int = 24
    batch_size: int = 64
    autocast: str | None = None
    forms: list[str] = field(
        default_factory=lambda: ["statement", "paraphrase", "question", "instruction"]
    )
    system_prompt: str | None = None
    teacher_forcing: bool = True
    locality_text: bool = False
    geometry: bool = False
    diagnosis: DiagnosisConfig = field(default_factory=DiagnosisConfig)

    def settings(self) -> EvaluationSettings:
        """As the evaluation takes them.

        Raises:
            RoSEError: a value cannot be used.
        """
        import torch

        from rose_easyedit.evaluation.settings import EvaluationSettings

        if self.autocast not in (None, "bfloat16", "float16"):
            raise RoSEError(
                f"evaluation.autocast is {self.autocast!r}; choose bfloat16, float16 or null."
            )
        values = {**vars(self), "forms": tuple(self.forms)}
        del values["geometry"], values["diagnosis"]
        values["autocast"] = self.autocast and getattr(torch, self.autocast)
        return EvaluationSettings(**values)


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
        evaluation: how the edit is judged.
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
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
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
        found = cast(ExperimentConfig, OmegaConf.to_object(typed))
    except OmegaConfBaseException as error:
        message = str(error).splitlines()[0]
        raise RoSEError(f"This experiment cannot be run: {error.full_key}: {message}") from error
    _check(found)
    if found.seed is None:
        return found
    return replace(
        found,
        hparams=replace(found.hparams, seed=found.seed),
        data=replace(found.data, seed=found.seed),
    )


def _check(config: ExperimentConfig) -> None:
    faults = []
    if config.through not in THROUGH:
        faults.append(f"through is {config.through!r}; choose one of {', '.join(THROUGH)}")
    if config.name in ("", ".", "..") or {"/", "\0"} & set(config.name):
        faults.append(f"name is {config.name!r}; give a word that can name a folder")
    faults += settings_faults(config.easyedit, easyeditor_folder())
    faults += _data_faults(config.data)
    for made in (
        config.evaluation.settings,
        config.evaluation.diagnosis.settings,
        lambda: make_tracker(config.tracking),
    ):
        try:
            made()
        except RoSEError as error:
            faults += faults_of(error)
    if config.evaluation.geometry:
        from rose_easyedit.figures.canvas import require_matplotlib

        require_matplotlib()
    if faults:
        raise RoSEError.of("This experiment cannot be run:", faults)


def faults_of(error: RoSEError) -> list[str]:
    """The faults that an error reports, without its title if it has one."""
    lines = str(error).splitlines()
    return [line.removeprefix("  - ") for line in lines[1:]] or lines


def _data_faults(data: DataConfig) -> list[str]:
    from rose_easyedit.evaluation.facts import SPLITS

    faults = []
    bundled = data.source in BUNDLED.values()
    if data.source not in SOURCES and not Path(data.source).is_file():
        faults.append(
            f"data.source is {data.source!r}; give {', '.join(SOURCES)}, or a data file that exists"
        )
    if data.split is not None and not bundled:
        faults.append(f"data.split is {data.split!r}, but only the bundled sets have splits")
    elif data.split not in (None, *SPLITS):
        faults.append(f"data.split is {data.split!r}; choose one of {', '.join(SPLITS)}, or null")
    return faults
