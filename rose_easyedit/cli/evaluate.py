"""`rose-edit evaluate`: which facts of an edit are asked for, and what is reported of them."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rose_easyedit.cli import output
from rose_easyedit.cli.settings import load_base
from rose_easyedit.errors import RoSEError

if TYPE_CHECKING:
    from rose_easyedit.delta import EditDelta
    from rose_easyedit.evaluation.facts import Fact, LocalityPrompt
    from rose_easyedit.evaluation.settings import EvaluationSettings

# What --data calls the bundled sets, and their names.
BUNDLED = {"bundled": "core", "bundled-wide": "wide"}
# Each takes a generation and a row of the vocabulary's size in memory.
_MOST_NEIGHBOURS = 200


@dataclass(frozen=True)
class Selection:
    """What an edit is evaluated on.

    Attributes:
        asked: The edited facts that are asked for.
        edited: All facts of the data that are edited.
        others: Facts of the data about the same subjects, of which the edit says nothing.
        locality: Prompts that the edit should leave alone.
        notes: What was left out, in words.
    """

    asked: Sequence[Fact]
    edited: Sequence[Fact]
    others: Sequence[Fact]
    locality: Sequence[LocalityPrompt]
    notes: Sequence[str]


def evaluate(arguments: Namespace) -> None:
    """Asks the base model and the edited one for the facts of the edit."""
    from rose_easyedit.delta import EditDelta

    folder = Path(arguments.report) if arguments.report else None
    if folder is not None and folder.exists() and not folder.is_dir():
        raise RoSEError(f"--report {arguments.report} is a file; name a folder.")
    if arguments.lm_eval:
        from rose_easyedit.evaluation.harness import require_harness

        require_harness()
    delta = EditDelta.load(arguments.delta)
    selection = select_facts(
        delta.provenance.get("requests", []),
        arguments.data,
        split=arguments.split,
        skip_bad=arguments.skip_bad,
        facts_per_subject=arguments.facts_per_subject,
    )
    model, tokenizer = load_base(delta, arguments)
    with delta.applied(model):
        pass  # refuses another model now, and not after minutes of questions
    report = _evaluate(delta, model, tokenizer, selection, arguments)
    if folder is not None:
        from rose_easyedit.evaluation.report import write_report

        report["report"] = str(write_report(folder, report))
    output.show(report, arguments.json, output.evaluate_report)


def _evaluate(
    delta: EditDelta, model: Any, tokenizer: Any, selection: Selection, arguments: Namespace
) -> dict[str, Any]:
    from rose_easyedit.evaluation.cache import default_folder
    from rose_easyedit.evaluation.evaluate import Baseline, evaluate_edit
    from rose_easyedit.evaluation.harness import run_harness

    settings, notes = _settings(arguments), list(selection.notes)
    locality = selection.locality
    if tokenizer.chat_template is None:
        settings = replace(settings, forms=_plain_forms(settings.forms))
        locality = [prompt for prompt in locality if not prompt.chat]
        notes.append("the model has no chat template, so only plain text was put to it")
    scores = None
    if arguments.lm_eval:
        tasks = [name.strip() for name in arguments.lm_eval.split(",")]
        scores = run_harness(model, tokenizer, delta, tasks, limit=arguments.lm_eval_limit)
    baseline = Baseline.of(
        model,
        tokenizer,
        [*selection.asked, *selection.others],
        locality=locality,
        settings=settings,
        native=_native_rates(model, arguments.data),
        cache=default_folder(),
    )
    with delta.applied(model):
        result = evaluate_edit(
            model, tokenizer, selection.asked, baseline=baseline, edited=selection.edited
        )
    name = arguments.model or delta.provenance.get("hparams", {}).get("model_name", "a model")
    return {
        "title": f"Evaluation of {Path(arguments.delta).name}",
        "delta": arguments.delta,
        "model": name,
        "data": arguments.data,
        "notes": notes,
        **result.as_dict(),
        "lm_eval": scores,
    }


def select_facts(
    requests: Sequence[Mapping[str, Any]],
    data: str | None,
    *,
    split: str | None = None,
    skip_bad: bool = False,
    facts_per_subject: int | None = None,
) -> Selection:
    """The facts of the data that an edit holds, and what is asked beside them.

    Args:
        requests: Those of the edit, as its provenance has them.
        data: One of `BUNDLED`, a data file, or None for the requests themselves.
        split: Of a bundled set; None takes all of it.
        skip_bad: Leave out the records of a file that do not fit.
        facts_per_subject: Ask for as many facts of each subject that has them, and for no other.

    Raises:
        RoSEError: If the edit names no request, none of the data is edited, the options do not
            fit together, or the data cannot be read.
    """
    from rose_easyedit.evaluation.datasets import same_subject_view
    from rose_easyedit.evaluation.evaluate import bundled_locality
    from rose_easyedit.evaluation.facts import CORE
    from rose_easyedit.evaluation.records import other_facts

    if not requests:
        raise RoSEError("The edit does not say which facts it holds; compute it anew with edit.")
    if split is not None and data not in BUNDLED:
        raise RoSEError(
            f"--split {split} is one of a bundled set; add --data {' or '.join(BUNDLED)}."
        )
    facts, notes = _read(requests, data, split, skip_bad)
    wanted = {(r["subject"], r["prompt"], r["target_new"]) for r in requests}
    edited = [fact for fact in facts if _key(fact) in wanted]
    if not edited:
        raise RoSEError(
            f"None of the {len(facts)} facts of {data!r} is among the {len(requests)} requests of "
            f"the edit (the first: {requests[0]['prompt']!r} -> {requests[0]['target_new']!r}); "
            "give the data that it was computed from, or leave out --data."
        )
    if missing := len(wanted - {_key(fact) for fact in edited}):
        notes.append(f"{missing} of the edit's {len(wanted)} facts are not in the data")
    asked: Sequence[Fact] = edited
    if facts_per_subject is not None:
        asked = same_subject_view(
            edited, at_least=facts_per_subject, facts_per_subject=facts_per_subject
        )
        notes.append(f"{len(asked)} of {len(edited)} facts were drawn, {facts_per_subject} each")
    subjects = {fact.subject for fact in asked}
    others = other_facts((fact for fact in facts if fact.subject in subjects), edited)
    locality = bundled_locality(edited, BUNDLED.get(str(data), CORE))
    neighbours = _neighbours(edited, notes)
    return Selection(asked, edited, others, [*neighbours, *locality], notes)


def _read(
    requests: Sequence[Mapping[str, Any]], data: str | None, split: str | None, skip_bad: bool
) -> tuple[list[Fact], list[str]]:
    """The facts of the data, each once, with a question and instructions, and notes."""
    from rose_easyedit.evaluation.datasets import load_dataset, with_wrapped_forms
    from rose_easyedit.evaluation.facts import load_facts

    notes = []
    if data is None:
        facts: Sequence[Fact] = [_fact_of(request) for request in requests]
    elif data in BUNDLED:
        facts = load_facts(split, name=BUNDLED[data])
    else:
        dataset = load_dataset(data, skip_bad=skip_bad)
        facts = dataset.facts
        if dataset.faults:
            notes.append(f"{len(dataset.faults)} faults of the data, left out: {dataset.faults[0]}")
    return list(dict.fromkeys(with_wrapped_forms(facts))), notes


def _native_rates(model: Any, data: str | None) -> Mapping[tuple[str, str], float] | None:
    from rose_easyedit.evaluation.native import bundled_native_rates

    return bundled_native_rates(model, BUNDLED[data]) if data in BUNDLED else None


def _fact_of(request: Mapping[str, Any]) -> Fact:
    """A request as a fact; the relation is its prompt without the subject."""
    from rose_easyedit.evaluation.datasets.parsing import template
    from rose_easyedit.evaluation.facts import Fact

    return Fact(
        subject=request["subject"],
        relation=template(request["prompt"], request["subject"]),
        prompt=request["prompt"],
        target_new=request["target_new"],
        ground_truth=request.get("ground_truth") or "",
    )


def _key(fact: Fact) -> tuple[str, str, str]:
    request = fact.to_request()
    return request.subject.strip(), request.prompt.rstrip(), request.target_new.strip()


def _neighbours(facts: Sequence[Fact], notes: list[str]) -> list[LocalityPrompt]:
    """The data's own neighbours, evenly thinned where there are very many."""
    from rose_easyedit.evaluation.datasets import neighbour_prompts

    prompts = neighbour_prompts(facts)
    if len(prompts) <= _MOST_NEIGHBOURS:
        return list(prompts)
    notes.append(f"{_MOST_NEIGHBOURS} of the data's {len(prompts)} neighbours were asked")
    return [prompts[i * len(prompts) // _MOST_NEIGHBOURS] for i in range(_MOST_NEIGHBOURS)]


def _settings(arguments: Namespace) -> EvaluationSettings:
    import torch

    from rose_easyedit.evaluation.facts import FORMS
    from rose_easyedit.evaluation.queries import ALL_FORMS
    from rose_easyedit.evaluation.settings import EvaluationSettings

    return EvaluationSettings(
        forms=ALL_FORMS if arguments.all_forms else FORMS,
        autocast=torch.bfloat16 if arguments.autocast else None,
        locality_text=True,
    )


def _plain_forms(forms: Sequence[str]) -> tuple[str, ...]:
    from rose_easyedit.evaluation.facts import CHAT_FORMS
    from rose_easyedit.evaluation.queries import MULTI_TURN

    return tuple(form for form in forms if form not in CHAT_FORMS and form != MULTI_TURN)
