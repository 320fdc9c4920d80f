"""One run: a configuration in, an edit with its evaluation in a folder out. No Hydra in it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, chdir, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rose_easyedit.experiment.identity import determinants, run_id
from rose_easyedit.experiment.metrics import main_metrics
from rose_easyedit.experiment.models_once import LoadedModel
from rose_easyedit.experiment.schema import SOURCES, DataConfig, ExperimentConfig
from rose_easyedit.experiment.status import to_json
from rose_easyedit.files.writing import write_whole
from rose_easyedit.tracking.layout import (
    CONFIG_FILE,
    DELTA_FILE,
    DIAGNOSIS_FILE,
    FIGURES,
    RESULT_FILE,
)
from rose_easyedit.tracking.tracker import RunInfo, Tracker

if TYPE_CHECKING:
    from rose_easyedit.edits.delta import EditDelta
    from rose_easyedit.evaluation.evaluate import Baseline, EvaluationResult
    from rose_easyedit.evaluation.facts import Fact
    from rose_easyedit.evaluation.selection import Selection
    from rose_easyedit.geometry.diagnosis import Diagnosis
    from rose_easyedit.requests import EditRequest

logger = logging.getLogger(__name__)


def run_experiment(
    config: ExperimentConfig,
    folder: Path,
    tracker: Tracker,
    *,
    models: LoadedModel | None = None,
    label: str = "",
) -> dict[str, Any]:
    """Computes an edit, evaluates it, and writes both.

    The folder gets `config.yaml`, `delta.safetensors`, `result.json`, and, with
    `evaluation.geometry`, `diagnosis.json` and `figures/`. A method of EasyEdit's own leaves
    changed weights for as long as they are evaluated, and no edit: nothing that needs one is made.

    Args:
        config: what to do, checked (`schema.read_config`).
        folder: the run's own; exists.
        tracker: where numbers go; started and finished here, whatever happens.
        models: holds the model from one run to the next.
        label: what tells the run from its neighbours, for people.

    Returns:
        `metrics` (`metrics.main_metrics`) and `seconds` of each part.

    Raises:
        RoSEError: the model, the facts and the settings do not fit together.
    """
    from rose_easyedit.tracking.logged import log_run

    clock = _Clock()
    _write_config(config, folder)
    failed = True
    try:
        tracker.start(_info(config, folder, label))
        selection = select_data(config.data)
        for note in selection.notes:
            logger.info("%s", note)
        with clock.timed("model"):
            model, tokenizer = (models or LoadedModel()).get(config.hparams)
        with clock.timed("baseline"):
            baseline = _baseline(model, tokenizer, selection, config)
        with ExitStack() as stack:
            with clock.timed("edit"):
                requests = requests_of(selection.edited)
                delta = stack.enter_context(_edited(model, tokenizer, requests, config))
            if delta is not None:
                delta.save(folder / DELTA_FILE)
            with clock.timed("evaluation"):
                result = _evaluate(model, tokenizer, selection, baseline)
        write_whole(folder / RESULT_FILE, to_json(result.as_dict()))
        diagnosis = None
        if config.evaluation.geometry and delta is not None:
            with clock.timed("geometry"):
                diagnosis = _diagnose(model, tokenizer, selection.edited, delta, config, folder)
        metrics = main_metrics(result.summary())
        log_run(tracker, delta, result, diagnosis, folder, clock.seconds)
        tracker.summarise({f"main/{name}": value for name, value in metrics.items()})
        failed = False
    finally:
        tracker.finish(failed=failed)
    return {"metrics": metrics, "seconds": clock.seconds}


def select_data(data: DataConfig) -> Selection:
    """The facts to write, and what is asked beside them.

    Raises:
        RoSEError: the data cannot be read, or has too few subjects with so many facts.
    """
    from rose_easyedit.evaluation.datasets import same_subject_view
    from rose_easyedit.evaluation.selection import read_facts, selection_of

    word = SOURCES.get(data.source, data.source)
    facts, notes = read_facts(word, data.split, data.skip_bad)
    drawn = same_subject_view(
        facts,
        at_least=data.at_least,
        facts_per_subject=data.facts_per_subject,
        subjects=data.subjects,
        seed=data.seed,
    )
    requests = [fact.to_request().as_dict() for fact in drawn]
    return selection_of(requests, facts, word, notes)


def requests_of(facts: Sequence[Fact]) -> list[EditRequest]:
    """The edit that writes the facts, in the form that EasyEdit can be given: it takes no ids."""
    return [replace(fact.to_request(), case_id=None) for fact in facts]


@contextmanager
def _edited(
    model: Any, tokenizer: Any, requests: Sequence[EditRequest], config: ExperimentConfig
) -> Iterator[EditDelta | None]:
    """The model with the facts in it, and the edit, if it is one that can be kept."""
    if config.easyedit.algorithm is None:
        delta = compute(model, tokenizer, requests, config)
        with delta.applied(model):
            yield delta
        return
    from rose_easyedit.easyedit.methods import edited_by_easyedit

    logger.info(
        "EasyEdit's %s leaves no edit: without %s there is no diagnosis and no export",
        config.easyedit.algorithm,
        DELTA_FILE,
    )
    with edited_by_easyedit(model, tokenizer, requests, config.easyedit, config.hparams):
        yield None


def compute(
    model: Any, tokenizer: Any, requests: Sequence[EditRequest], config: ExperimentConfig
) -> EditDelta:
    """The edit, natively or through EasyEdit; the model is as before afterwards.

    Raises:
        RoSEError: as `compute_edit`.
    """
    if config.through == "easyedit":
        return _through_easyedit(model, tokenizer, requests, config)
    from rose_easyedit.method.edit import compute_edit
    from rose_easyedit.method.stage1.store import ShiftStore, default_folder

    store = ShiftStore(default_folder()) if config.cache else None
    return compute_edit(model, tokenizer, requests, config.hparams, store)


def _through_easyedit(
    model: Any, tokenizer: Any, requests: Sequence[EditRequest], config: ExperimentConfig
) -> EditDelta:
    from tempfile import TemporaryDirectory

    from rose_easyedit.easyedit.editor import BaseEditor

    pair: Any = (model, tokenizer)
    # EasyEdit makes a folder `logs` wherever it is when an editor is made
    with TemporaryDirectory() as scratch, chdir(scratch):
        editor = BaseEditor.from_hparams(replace(config.hparams, model_name=pair))
    editor.hparams = config.hparams  # which name the model, as the edit's record should
    _, _, weights = editor.batch_edit(
        prompts=[request.prompt for request in requests],
        target_new=[request.target_new for request in requests],
        ground_truth=[request.ground_truth for request in requests],
        subject=[request.subject for request in requests],
        verbose=False,
    )
    found: EditDelta = weights.delta
    return found


def _baseline(
    model: Any, tokenizer: Any, selection: Selection, config: ExperimentConfig
) -> Baseline:
    """The unedited model's answers, asked once for all runs that ask the same."""
    from rose_easyedit.evaluation.cache import default_folder
    from rose_easyedit.evaluation.evaluate import Baseline
    from rose_easyedit.evaluation.selection import native_rates

    told = {**config.hparams.template_arguments, **config.evaluation.template_arguments}
    settings = replace(config.evaluation, template_arguments=told)
    return Baseline.of(
        model,
        tokenizer,
        [*selection.asked, *selection.others],
        locality=selection.locality,
        settings=settings,
        native=native_rates(model, SOURCES.get(config.data.source)),
        cache=default_folder() if config.cache else None,
    )


def _evaluate(
    model: Any, tokenizer: Any, selection: Selection, baseline: Baseline
) -> EvaluationResult:
    from rose_easyedit.evaluation.evaluate import evaluate_edit

    return evaluate_edit(
        model, tokenizer, selection.asked, baseline=baseline, edited=selection.edited
    )


def _diagnose(
    model: Any,
    tokenizer: Any,
    facts: Sequence[Fact],
    delta: EditDelta,
    config: ExperimentConfig,
    folder: Path,
) -> Diagnosis:
    from rose_easyedit.figures.diagnosis import write_figures
    from rose_easyedit.geometry.diagnosis import diagnose
    from rose_easyedit.geometry.rivals import edit_name

    edits = {edit_name(config.hparams): delta}
    found = diagnose(model, tokenizer, facts, edits, config.evaluation.diagnosis)
    write_whole(folder / DIAGNOSIS_FILE, to_json(found.as_dict()))
    (folder / FIGURES).mkdir(exist_ok=True)
    write_figures(found, folder / FIGURES)
    return found


def _info(config: ExperimentConfig, folder: Path, label: str) -> RunInfo:
    from rose_easyedit.geometry.rivals import edit_name

    algorithm = config.easyedit.algorithm
    method = edit_name(config.hparams) if algorithm is None else f"EasyEdit's {algorithm}"
    return RunInfo(
        id=run_id(config),
        name=label or method,
        group=config.name,
        job_type=method,
        tags=(),
        notes="",
        folder=folder,
        config=determinants(config),
    )


def _write_config(config: ExperimentConfig, folder: Path) -> None:
    from omegaconf import OmegaConf

    write_whole(folder / CONFIG_FILE, OmegaConf.to_yaml(asdict(config)).encode())


class _Clock:
    """Seconds of the parts of a run."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[part] = round(time.perf_counter() - start, 3)
