"""`rose-edit evaluate`: which facts of an edit are asked for, and what is reported of them."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rose_easyedit.cli import output
from rose_easyedit.cli.places import check_place, named
from rose_easyedit.cli.settings import load_base
from rose_easyedit.errors import RoSEError
from rose_easyedit.evaluation.selection import Selection, native_rates, select_facts
from rose_easyedit.files.plain import plain

if TYPE_CHECKING:
    from rose_easyedit.edits.delta import EditDelta
    from rose_easyedit.evaluation.settings import EvaluationSettings


def evaluate(arguments: Namespace) -> None:
    """Asks the base model and the edited one for the facts of the edit."""
    from rose_easyedit.edits.delta import EditDelta

    folder = None if arguments.report is None else _report_folder(arguments.report)
    if arguments.lm_eval_limit and not arguments.lm_eval:
        raise RoSEError("--lm-eval-limit is of --lm-eval, which names the tasks; add it.")
    if arguments.lm_eval:
        from rose_easyedit.evaluation.harness import require_harness

        require_harness()
    delta = EditDelta.load(arguments.delta)
    selection = select_facts(
        delta.provenance.requests,
        arguments.data,
        split=arguments.split,
        skip_bad=arguments.skip_bad,
        facts_per_subject=arguments.facts_per_subject,
    )
    model, tokenizer = load_base(delta, arguments)
    report = _evaluate(delta, model, tokenizer, selection, arguments)
    if folder is not None:
        from rose_easyedit.evaluation.report import write_report

        report["report"] = str(write_report(folder, report))
    output.show(report, arguments.json, output.evaluate_report)


def _report_folder(text: str) -> Path:
    folder = named(text, "--report", "a folder")
    if folder.exists() and not folder.is_dir():
        raise RoSEError(f"--report {text} is a file; name a folder.")
    check_place(folder / "index.html")
    return folder


def _evaluate(
    delta: EditDelta, model: Any, tokenizer: Any, selection: Selection, arguments: Namespace
) -> dict[str, Any]:
    from rose_easyedit.evaluation.cache import default_folder
    from rose_easyedit.evaluation.evaluate import Baseline, evaluate_edit
    from rose_easyedit.evaluation.harness import run_harness

    told = delta.provenance.hparams.get("template_arguments") or {}
    settings, notes = _settings(arguments, told), list(selection.notes)
    if tokenizer.chat_template is None:
        notes.append('the model has no chat template: it was asked "Question: ... Answer:"')
    scores = None
    if arguments.lm_eval:
        tasks = [name.strip() for name in arguments.lm_eval.split(",")]
        scores = run_harness(model, tokenizer, delta, tasks, limit=arguments.lm_eval_limit)
    baseline = Baseline.of(
        model,
        tokenizer,
        [*selection.asked, *selection.others],
        locality=selection.locality,
        settings=settings,
        native=native_rates(model, arguments.data),
        cache=default_folder(),
    )
    with delta.applied(model):
        result = evaluate_edit(
            model, tokenizer, selection.asked, baseline=baseline, edited=selection.edited
        )
    name = arguments.model or delta.provenance.hparams.get("model_name", "a model")
    return {
        "title": f"Evaluation of {Path(arguments.delta).name}",
        "delta": arguments.delta,
        "edit": delta.fingerprint,
        "model": name,
        "data": arguments.data,
        "notes": notes,
        **result.as_dict(),
        "lm_eval": plain(scores),
    }


def _settings(arguments: Namespace, template_arguments: dict[str, Any]) -> EvaluationSettings:
    from rose_easyedit.evaluation.facts import FORMS
    from rose_easyedit.evaluation.queries import ALL_FORMS
    from rose_easyedit.evaluation.settings import EvaluationSettings

    return EvaluationSettings(
        forms=ALL_FORMS if arguments.all_forms else FORMS,
        autocast="bfloat16" if arguments.autocast else None,
        locality_text=True,
        template_arguments=template_arguments,
    )
