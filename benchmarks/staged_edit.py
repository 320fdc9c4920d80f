"""One edit of made-up facts, told apart into its stages, in whatever process calls this."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from made_up_facts import made_up_requests
from stage_flops import flop_counter, matmul_peak
from stage_meter import Cost, Meter, resident
from stage_watch import APPLY, COLD, FACTS, REST, REVERT, STAGES, SUBJECTS, Seen, watched

from rose_easyedit.config.hparams import RoSEHyperParams
from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.forward.activations import frozen
from rose_easyedit.method import edit
from rose_easyedit.method.extend import extend
from rose_easyedit.method.prepared import Prepared
from rose_easyedit.method.stage1.store import ShiftStore
from rose_easyedit.method.stage2.statistics import load_spectra
from rose_easyedit.models.loading import load_model
from rose_easyedit.models.precision import computing_dtype
from rose_easyedit.requests import EditRequest


@dataclass(frozen=True)
class Job:
    """What to edit, and how.

    Attributes:
        n_facts: of `made_up_requests`.
        model: as `load_model` takes it.
        hparams: name of the settings of that model.
        preset: a method in place of what the settings say.
        fact_steps, subject_steps: None takes the preset's own.
        threads: of torch.
    """

    n_facts: int
    model: str = "embedded"
    hparams: str = "smollm2-135m"
    preset: str | None = None
    fact_steps: int | None = None
    subject_steps: int | None = None
    threads: int = 1

    @property
    def settings(self) -> RoSEHyperParams:
        """All facts take all steps, so that a size costs what it costs."""
        steps = {"fact_steps": self.fact_steps, "subject_steps": self.subject_steps}
        hierarchy: dict[str, Any] = {k: v for k, v in steps.items() if v is not None}
        hparams = RoSEHyperParams.from_hparams(self.hparams)
        if self.preset is not None:
            hparams = hparams.with_preset(self.preset)
        return hparams.with_overrides(hierarchy={**hierarchy, "loss_threshold": 0.0})


class Editor:
    """A loaded model that has edited once, so that what a first edit pays is not measured."""

    def __init__(self, job: Job, folder: Path) -> None:
        torch.set_num_threads(job.threads)
        self.job, self.folder = job, folder
        self.model, self.tokenizer = load_model(job.model)
        self.hparams = job.settings
        self.precision = stage_precision(self.hparams, self.model)
        cold = Meter()
        with frozen(self.model), cold.stage(COLD):
            prepared = Prepared.of(self.model, self.tokenizer, self.hparams)
            load_spectra(prepared, prepared.hparams.layers, self.hparams.alignment, folder)
        self.cold = cold.costs[COLD]
        one_step = {"fact_steps": 1, "subject_steps": 1}
        hparams = self.hparams
        self.hparams = hparams.with_overrides(hierarchy=one_step)
        self.edit(made_up_requests(1), Meter())
        self.hparams = hparams
        self.loaded = resident()

    def edit(self, requests: Sequence[EditRequest], meter: Meter) -> tuple[EditDelta, Seen]:
        """The edit and what was seen on the way; the model is as it was."""
        seen = Seen()
        with watched(meter, seen, self.folder):
            with meter.stage(REST):
                delta = self.compute(requests)
            with meter.stage(APPLY):
                delta.apply(self.model)
            with meter.stage(REVERT):
                delta.revert(self.model)
        return delta, seen

    def compute(
        self, requests: Sequence[EditRequest], store: ShiftStore | None = None
    ) -> EditDelta:
        """The edit by the settings of the job."""
        return edit.compute_edit(self.model, self.tokenizer, requests, self.hparams, store)


def stage_precision(hparams: RoSEHyperParams, model: Any) -> dict[str, torch.dtype]:
    """The type that the products of each stage are computed in."""
    runs = computing_dtype(hparams.precision, model)
    exact = dict.fromkeys(("solve", "compress", "report", APPLY, REST), torch.float64)
    return {**dict.fromkeys(STAGES, runs), **exact}


def measure_stages(job: Job) -> dict[str, Any]:
    """The record of one size: seconds, and MiB over the loaded model, by stage."""
    with tempfile.TemporaryDirectory() as folder:
        editor = Editor(job, Path(folder))
        requests = made_up_requests(job.n_facts)
        meter = Meter()
        delta, seen = editor.edit(requests, meter)
    costs = {COLD: editor.cold, **meter.costs}
    stages = {
        name: {
            "cpu": costs[name].cpu,
            "wall": costs[name].wall,
            "mib": max(0.0, costs[name].peak - editor.loaded),
        }
        for name in STAGES
        if name in costs
    }
    (columns,) = seen.columns
    return {
        "kind": "stages",
        **described(editor, len(requests)),
        "subjects": len({request.subject for request in requests}),
        "columns": len(columns.queries) + len(columns.preserved),
        "preserved": len(columns.preserved),
        "solver": sorted(seen.solvers),
        "rank": max(factors.rank for factors in delta.layers.values()),
        "loaded_mib": editor.loaded,
        "stages": stages,
    }


def measure_flops(job: Job) -> dict[str, Any]:
    """The record of one size: operations by stage, against the least and the machine's peak.

    The edit runs twice, since counting takes longer than computing: seconds come from the first.
    """
    with tempfile.TemporaryDirectory() as folder:
        editor = Editor(job, Path(folder))
        requests = made_up_requests(job.n_facts)
        timed = Meter()
        editor.edit(requests, timed)
        with flop_counter() as counter:
            counted = Meter(counter)
            _, seen = editor.edit(requests, counted)
    peaks = {dtype: matmul_peak(dtype) for dtype in set(editor.precision.values())}
    stages = {}
    for name in STAGES:
        if name not in counted.costs or not counted.costs[name].flops:
            continue
        done, dtype = counted.costs[name].flops, editor.precision[name]
        rate = 1e-9 * done / timed.costs[name].cpu
        stages[name] = {
            "gflop": 1e-9 * done,
            "least_gflop": 1e-9 * seen.least[name] if name in seen.least else None,
            "gflops": rate,
            "dtype": str(dtype).removeprefix("torch."),
            "of_peak": rate / peaks[dtype],
        }
    return {
        "kind": "flops",
        **described(editor, len(requests)),
        "peak_gflops": {str(k).removeprefix("torch."): v for k, v in peaks.items()},
        "stages": stages,
    }


def measure_extending(job: Job, n_more: int) -> dict[str, Any]:
    """CPU seconds of stage 1: of N facts, of the same again, of a few more, and of these alone."""
    with tempfile.TemporaryDirectory() as folder:
        editor = Editor(job, Path(folder))
        store = ShiftStore(Path(folder) / "shifts")
        requests = made_up_requests(job.n_facts + n_more)
        before, more = requests[: job.n_facts], requests[job.n_facts :]

        def stage1(run: Callable[[], EditDelta]) -> tuple[dict[str, float], EditDelta]:
            meter, seen = Meter(), Seen()
            with watched(meter, seen, editor.folder), meter.stage(REST):
                delta = run()
            found = (meter.costs.get(name, Cost()) for name in ("prefix", FACTS, SUBJECTS))
            return {"cpu": sum(cost.cpu for cost in found), "optimised": seen.optimised}, delta

        first, delta = stage1(lambda: editor.compute(before, store))
        again, _ = stage1(lambda: editor.compute(before, store))
        added, _ = stage1(lambda: extend(editor.model, editor.tokenizer, delta, more))
        alone, _ = stage1(lambda: editor.compute(more))
    return {
        "kind": "extend",
        **described(editor, len(before)),
        "more": len(more),
        "stage1": {"first": first, "again": again, "extended": added, "alone": alone},
    }


def described(editor: Editor, n_facts: int) -> dict[str, Any]:
    """What every record says of how it was measured."""
    hierarchy = editor.hparams.hierarchy
    return {
        "facts": n_facts,
        **{k: v for k, v in asdict(editor.job).items() if k != "n_facts"},
        "fact_steps": hierarchy.fact_steps,
        "subject_steps": hierarchy.subject_steps,
        "precision": str(editor.precision[SUBJECTS]).removeprefix("torch."),
        "torch": torch.__version__,
    }
