"""All that is logged of a finished run; what is logged changes nothing that is logged from."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.evaluation.records import OtherRecord, Record
from rose_easyedit.evaluation.result import EvaluationResult
from rose_easyedit.files.writing import write_whole
from rose_easyedit.geometry.diagnosis import Diagnosis
from rose_easyedit.tracking.curves import log_edit
from rose_easyedit.tracking.layout import DELTA_FILE, FIGURES, REQUESTS_FILE
from rose_easyedit.tracking.tracker import INPUT_KIND, Tracker

_RECORD = (
    "subject relation form query target truth before answer faithful success kept replaced broken "
    "success_before old_answer other_target exact_prefix"
).split()
_OTHER = "subject relation form query truth before answer known kept edited_target".split()


def log_run(
    tracker: Tracker,
    delta: EditDelta | None,
    result: EvaluationResult | None = None,
    diagnosis: Diagnosis | None = None,
    folder: Path | None = None,
    seconds: Mapping[str, float] | None = None,
) -> None:
    """Logs everything that there is of a run.

    Args:
        tracker: started.
        delta: the edit; None if there is none that could be kept, of a method of EasyEdit's own.
        result: its evaluation: totals as `evaluation/...`, tables of every answer.
        diagnosis: its geometry, as `geometry/...`, its rivals' as `geometry/rivals/<name>/...`.
        folder: the run's: its `figures/*.png`, and `delta.safetensors` with the requests that it
            was made from, which are written to `requests.json`.
        seconds: what each part of the run took, as `time/...`.
    """
    if delta is not None:
        log_edit(tracker, delta)
    if result is not None:
        _log_result(tracker, result)
    if diagnosis is not None:
        tracker.summarise(geometry_values(diagnosis))
    if folder is not None:
        for figure in sorted((folder / FIGURES).glob("*.png")):
            tracker.log_figure(f"{FIGURES}/{figure.stem}", figure)
        if delta is not None and (folder / DELTA_FILE).is_file():
            _log_files(tracker, delta, folder)
    times = {f"time/{part}": value for part, value in (seconds or {}).items()}
    tracker.summarise({**times, **system_values()})


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested totals as one level of `a/b/c`; an interval has a `low` and a `high`, None is gone.

    Lists of anything else than two numbers become text.
    """
    return dict(_leaves(values, prefix))


def geometry_values(diagnosis: Diagnosis) -> dict[str, Any]:
    """The totals of a diagnosis by name: D, R, the certificate, conflicts and key similarity.

    The radii of single subjects are left out: a name for each would drown the others.
    """
    summary = diagnosis.summary()
    edits = summary.pop("edits")
    own = diagnosis.edits[0].name
    for name, totals in edits.items():
        radius = {key: value for key, value in totals["radius"].items() if key != "subjects"}
        whole = {**totals["all"], "forms": totals["forms"], "R": radius}
        summary |= whole if name == own else {"rivals": {**summary.get("rivals", {}), name: whole}}
    return flattened(summary, "geometry")


def system_values() -> dict[str, Any]:
    """The machine, and what this process has used of it so far: CPU time and peak memory."""
    import resource

    import torch

    used = resource.getrusage(resource.RUSAGE_SELF)
    unit = 1 if platform.system() == "Darwin" else 1024  # bytes there, KiB elsewhere
    values: dict[str, Any] = {
        "system/platform": platform.platform(),
        "system/machine": platform.machine(),
        "system/cpus": os.cpu_count(),
        "system/threads": torch.get_num_threads(),
        "time/cpu": used.ru_utime + used.ru_stime,
        "memory/peak_mib": used.ru_maxrss * unit / 2**20,
    }
    if torch.cuda.is_available():
        values["system/gpu"] = torch.cuda.get_device_name()
        values["memory/gpu_peak_mib"] = torch.cuda.max_memory_allocated() / 2**20
    return values


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}/{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        if len(value) == 2 and all(isinstance(end, int | float) for end in value):
            yield f"{name}/low", value[0]
            yield f"{name}/high", value[1]
        elif value:
            yield name, ", ".join(map(str, value))
    elif value is not None:
        yield name, value


def _log_result(tracker: Tracker, result: EvaluationResult) -> None:
    summary = result.summary()
    tracker.summarise(flattened(summary, "evaluation"))
    for count, totals in summary["facts_per_subject"].items():
        rates = {f"facts_per_subject/{name}": totals[name] for name in ("faithful", "success")}
        tracker.log(rates, axis="facts_per_subject", step=count)
    columns = (*_RECORD, "probability_before", "probability")
    tracker.log_table("answers", columns, [_answer_row(record) for record in result.records])
    if result.others:
        rows = [_row(record, _OTHER) for record in result.others]
        tracker.log_table("other_facts", _OTHER, rows)
    if result.locality:
        columns = ("kind", "prompt", "kl", "top1", "before", "answer", "shared", "words")
        tracker.log_table("locality", columns, _locality_rows(result))


def _row(record: Record | OtherRecord, names: list[str]) -> list[Any]:
    return [getattr(record, name) for name in names]


def _answer_row(record: Record) -> list[Any]:
    readings = (record.reading_before, record.reading)
    probabilities = [None if reading is None else math.exp(reading.logprob) for reading in readings]
    return [*_row(record, _RECORD), *probabilities]


def _locality_rows(result: EvaluationResult) -> list[list[Any]]:
    texts: list[list[Any]] = [
        [text.before, text.answer, text.shared, text.words] if text else [None] * 4
        for text in result.texts or [None] * len(result.locality)
    ]
    rows = zip(result.locality, result.kl, result.top1, texts, strict=True)
    return [[prompt.kind, prompt.text, kl, same, *text] for prompt, kl, same, text in rows]


def _log_files(tracker: Tracker, delta: EditDelta, folder: Path) -> None:
    provenance = delta.provenance
    requests = provenance.requests
    text = json.dumps(requests, ensure_ascii=False, indent=1)
    path = write_whole(folder / REQUESTS_FILE, text.encode())
    tracker.log_artifact("requests", INPUT_KIND, path, {"facts": len(requests)})
    metadata = {
        "base": delta.base,
        "layers": list(delta.layers),
        "parameters": delta.n_parameters,
        "hparams": provenance.hparams,
        "versions": provenance.versions,
    }
    tracker.log_artifact("edit", "edit", folder / DELTA_FILE, metadata)
