"""`rose-edit diagnose`: why an edit generalises or does not, in numbers and figures."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rose_easyedit.cli import output
from rose_easyedit.cli.places import new_folder
from rose_easyedit.cli.settings import edit_settings, load_base
from rose_easyedit.errors import RoSEError
from rose_easyedit.evaluation.selection import BUNDLED, no_split, read_facts, select_facts
from rose_easyedit.files.amounts import counted

if TYPE_CHECKING:
    from rose_easyedit.edits.delta import EditDelta
    from rose_easyedit.evaluation.facts import Fact
    from rose_easyedit.geometry.settings import DiagnosisSettings

# What an edit has to say of itself.
_NEEDED = ("requests", "groups", "losses", "steps", "hparams", "versions")
_RATES = ("precision", "recall", "auc")
_COLUMNS = ("asked", "D before", "D", "R", "D <= R", "answered", *_RATES)


def diagnose(arguments: Namespace) -> None:
    """Measures the geometry of an edit and draws it."""
    from rose_easyedit.export.peft import new_folder as whole_folder
    from rose_easyedit.figures.canvas import require_matplotlib

    require_matplotlib()
    settings = _settings(arguments)
    with whole_folder(new_folder(arguments.out)) as folder:
        report = _diagnose(arguments, settings, folder)
    output.show(report, arguments.json, diagnosis_report)


def _diagnose(arguments: Namespace, settings: DiagnosisSettings, folder: Path) -> dict[str, Any]:
    facts, notes, delta = _facts_and_edit(arguments)
    if delta is None:
        hparams = edit_settings(arguments)

        from rose_easyedit.method.edit import compute_edit
        from rose_easyedit.models.loading import load_model

        dtype = arguments.dtype or ("float16" if hparams.fp16 else "auto")
        model, tokenizer = load_model(hparams.model_name, hparams.device, dtype)
        delta = compute_edit(model, tokenizer, [fact.to_request() for fact in facts], hparams)
    else:
        model, tokenizer = load_base(delta, arguments)

    from rose_easyedit.config.hparams import RoSEHyperParams
    from rose_easyedit.figures.diagnosis import write_figures
    from rose_easyedit.geometry import diagnosis
    from rose_easyedit.geometry.edits import targets_of
    from rose_easyedit.geometry.rivals import edit_name, rivals

    targets_of(delta, facts)  # refuses an edit that lacks what is measured now, and not later
    edits = {edit_name(RoSEHyperParams.from_dict(delta.provenance.hparams)): delta}
    if arguments.compare:
        edits |= rivals(model, tokenizer, delta)
    found = diagnosis.diagnose(model, tokenizer, facts, edits, settings)
    numbers = {
        "delta": arguments.delta,
        "hparams": {name: edit.provenance.hparams for name, edit in edits.items()},
        "versions": delta.provenance.versions,
        **found.as_dict(),
    }
    text = json.dumps(numbers, ensure_ascii=False, indent=1)
    (folder / "diagnosis.json").write_text(text, encoding="utf-8")
    figures = write_figures(found, folder)
    return {
        "out": arguments.out,
        "files": ["diagnosis.json", *(path.name for path in figures)],
        "settings": settings.as_dict(),
        **found.summary(),
        "notes": [*notes, *found.log],
    }


def _facts_and_edit(
    arguments: Namespace,
) -> tuple[Sequence[Fact], Sequence[str], EditDelta | None]:
    """What is diagnosed, what was left out of it, and the edit if there is one already."""
    if arguments.delta is None:
        if arguments.requests is None:
            raise RoSEError("There is nothing to diagnose: add --requests FILE or --delta FILE.")
        return _read(arguments.requests, arguments.split), [], None

    from rose_easyedit.edits.delta import EditDelta

    given = {"--hparams": arguments.hparams, "--method": arguments.method, "--set": arguments.set}
    if words := [word for word, value in given.items() if value]:
        raise RoSEError(
            f"An edit brings its own settings: leave out {', '.join(words)}, or leave out --delta "
            "to compute another edit."
        )
    delta = EditDelta.load(arguments.delta)
    if missing := delta.provenance.missing(_NEEDED):
        raise RoSEError(
            f"{arguments.delta} does not say its {', '.join(missing)}, which a diagnosis needs; "
            "compute the edit again."
        )
    requests = delta.provenance.requests
    selection = select_facts(
        requests, arguments.requests, split=arguments.split, option="--requests"
    )
    return selection.edited, selection.notes, delta


def _read(requests: str, split: str | None) -> Sequence[Fact]:
    if split is not None and requests not in BUNDLED:
        raise no_split(split, "--requests")
    return read_facts(requests, split)[0]


def _settings(arguments: Namespace) -> DiagnosisSettings:
    from rose_easyedit.geometry.settings import DiagnosisSettings

    names = ("seed", "directions", "quantile")
    given = {name: getattr(arguments, name) for name in names}
    given = {name: value for name, value in given.items() if value is not None}
    return DiagnosisSettings.of_size(arguments.size, **given)


def diagnosis_report(report: output.Report, console: Any) -> None:
    """A table per edit, and what all of them share."""
    for name, edit in report["edits"].items():
        _print_edit(name, edit, console)
    conflict, cosine = report["conflict"], report["key_cosine"]
    lines = [
        f"conflict of facts of one subject: {_show(conflict['mean'], 2)} "
        f"({counted(conflict['pairs'], 'pair')}; 1: orthogonal)",
        f"cosine of keys: {_show(cosine['within'], 2)} within, "
        f"{_show(cosine['across'], 2)} across subjects",
        *(f"note: {note}" for note in report["notes"]),
        f"{counted(len(report['files']), 'file')} -> {report['out']}",
    ]
    for line in lines:
        output.line(console, line)


def _print_edit(name: str, edit: output.Report, console: Any) -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    radius = edit["radius"]
    title = (
        f"{name}: R {_show(radius['mean'], 1)} on average ({_show(radius['of_hidden'], 2)} |h|), "
        f"{_show(radius['smallest'], 1)} at the least"
    )
    table = Table(title=escape(title), title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    table.add_column("form")
    for column in _COLUMNS:
        table.add_column(column, justify="right")
    for form, row in [*edit["forms"].items(), ("all", edit["all"])]:
        table.add_row(
            escape(form),
            str(row["queries"]),
            _show(row["deviation_before"], 1),
            _show(row["deviation"], 1),
            _show(row["radius"], 1),
            str(row["certified"]),
            str(row["answered"]),
            *(_show(row[rate], 2) for rate in _RATES),
        )
    console.print(table)


def _show(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
