"""What each command of `rose-edit` does; heavy imports wait until a command runs."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rose_easyedit.cli import output
from rose_easyedit.cli.conversation import conversation
from rose_easyedit.cli.launched import launched, own_device
from rose_easyedit.cli.places import check_place, named, new_file, new_folder
from rose_easyedit.cli.settings import edit_settings, load_base
from rose_easyedit.cli.words import DONE, WARNED
from rose_easyedit.errors import DamageError, RoSEError, shown, text_fault

if TYPE_CHECKING:
    from rose_easyedit.edits.delta import EditDelta
    from rose_easyedit.forward.generation import Text


_GOES_ON = "The same command goes on where this one was."


def edit(arguments: Namespace) -> int:
    """Computes an edit and saves it."""
    from rose_easyedit.cli.facts import named_requests

    read = [str(name) for name in (arguments.requests, arguments.hparams) if name]
    out = new_file(arguments.out, arguments.force, read)
    requests = named_requests(arguments.requests)
    hparams = edit_settings(arguments)

    from rose_easyedit.method.edit import solve_targets
    from rose_easyedit.method.prepared import Prepared
    from rose_easyedit.method.stage1.store import ShiftStore, default_folder
    from rose_easyedit.method.stage1.targets import find_targets
    from rose_easyedit.models.loading import load_model
    from rose_easyedit.requests import as_requests

    dtype = arguments.dtype or ("float16" if hparams.fp16 else "auto")
    with launched() as ranks, output.told_in_report():
        model, tokenizer = load_model(hparams.model_name, own_device(hparams.device), dtype)
        start = time.perf_counter()
        store = ShiftStore(default_folder())
        facts = as_requests(requests)
        prepared = Prepared.of(model, tokenizer, hparams)
        try:
            targets = find_targets(prepared, facts, store, ranks=ranks)
        except KeyboardInterrupt as stop:
            raise KeyboardInterrupt(_GOES_ON) from stop
    if not ranks.is_first:
        return DONE
    with output.told_in_report():
        delta = solve_targets(prepared, targets)
    return save_edit(delta, out, time.perf_counter() - start, arguments)


def ask(arguments: Namespace) -> None:
    """Asks the base model and the edited one."""
    from rose_easyedit.edits.delta import EditDelta

    check_question(arguments)
    delta = EditDelta.load(arguments.delta)
    model, tokenizer = load_base(delta, arguments)
    told = delta.provenance.hparams.get("template_arguments")
    source = {"delta": arguments.delta}
    answer(arguments, model, tokenizer, lambda: delta.applied(model), source, told)


def answer(
    arguments: Namespace,
    model: Any,
    tokenizer: Any,
    edited: Callable[[], AbstractContextManager[Any]],
    source: dict[str, Any],
    told: dict[str, Any] | None,
) -> None:
    """Asks a model as it is and as it is inside `edited`; the report begins with `source`.

    The chat template is told what it was for the edit (`told`).
    """
    chat = tokenizer.chat_template is not None and not arguments.plain

    def answers(before: Sequence[Text], after: Sequence[Text]) -> list[tuple[str, str]]:
        """Of the base model to `before`, of the edited one to `after`."""
        from rose_easyedit.forward.generation import generate_greedy

        settings: dict[str, Any] = dict(
            chat=chat, max_new_tokens=arguments.max_new_tokens, template_arguments=told
        )
        old = generate_greedy(model, tokenizer, before, **settings)
        with edited():
            new = generate_greedy(model, tokenizer, after, **settings)
        return [(a.strip(), b.strip()) for a, b in zip(old, new, strict=True)]

    if arguments.prompt:
        pairs = zip(arguments.prompt, answers(arguments.prompt, arguments.prompt), strict=True)
        rows = [{"prompt": text, "before": old, "after": new} for text, (old, new) in pairs]
        report = {**source, "chat": chat, "answers": rows}
        output.show(report, arguments.json, output.ask_report)
    else:
        conversation(answers, chat)


def check_question(arguments: Namespace) -> None:
    """Refuses a report of a conversation, and questions that are no text."""
    if arguments.json and not arguments.prompt:
        raise RoSEError("--json needs a question: add --prompt TEXT.")
    for prompt in arguments.prompt or ():
        if fault := text_fault(prompt):
            raise RoSEError(f"--prompt {shown(prompt)} {fault}; give it in UTF-8.")


def apply(arguments: Namespace) -> None:
    """Writes the edited model."""
    from rose_easyedit.edits.delta import EditDelta
    from rose_easyedit.export.save import save_merged
    from rose_easyedit.models.loading import transformers_progress

    out = new_folder(arguments.out)
    delta = EditDelta.load(arguments.delta)
    result = _result(arguments, delta)
    model, tokenizer = load_base(delta, arguments)
    with transformers_progress(shown=sys.stderr.isatty()):
        save_merged(delta, model, tokenizer, out, result)
    report = {"out": str(out), "kind": "edited model", "weights": list(delta.layers)}
    output.show(report, arguments.json, output.written_report)


def export(arguments: Namespace) -> None:
    """Writes the edit as a LoRA adapter, for PEFT or for llama.cpp."""
    from rose_easyedit.edits.delta import EditDelta
    from rose_easyedit.export.save import save_gguf_lora, save_peft_lora

    if arguments.gguf is None:
        out = new_folder(arguments.lora, "--lora")
    else:
        out = named(arguments.gguf, "--gguf", "a new file, such as adapter.gguf")
        check_place(out)
    delta = EditDelta.load(arguments.delta)
    result = _result(arguments, delta)
    if arguments.lora:
        save_peft_lora(delta, out, result)
    else:
        save_gguf_lora(delta, out, result)
    kind = "LoRA adapter" if arguments.lora else "GGUF LoRA adapter"
    report = {"out": str(out), "kind": kind, "weights": list(delta.layers)}
    output.show(report, arguments.json, output.written_report)


def info(arguments: Namespace) -> None:
    """Shows what an edit file holds."""
    from rose_easyedit.edits.delta import EditDelta

    delta = EditDelta.load(arguments.delta)
    details = {
        name: getattr(delta.provenance, name) or None
        for name in ("architecture", "dtype", "versions", "hparams")
    }
    report = {
        "file": arguments.delta,
        "bytes": Path(arguments.delta).stat().st_size,
        "base": delta.base,
        "ranks": {name: factors.rank for name, factors in delta.layers.items()},
        **_facts(delta),
        **details,
    }
    output.show(report, arguments.json, output.info_report)


def save_edit(delta: EditDelta, out: Path, seconds: float, arguments: Namespace) -> int:
    """Saves an edit that took some seconds, and says what it holds.

    Returns:
        The exit code, which tells whether the edit is damaged.

    Raises:
        DamageError: it is, and `--strict` refuses that.
    """
    damage = damage_of(delta)
    if damage and arguments.strict:
        raise DamageError.of("The edit is damaged, and --strict writes no such edit:", damage)
    delta.save(out, replace=arguments.force)
    report = {
        "out": str(out),
        "bytes": out.stat().st_size,
        "seconds": round(seconds, 2),
        **_facts(delta),
    }
    output.show(report, arguments.json, output.edit_report)
    return WARNED if damage else DONE


def damage_of(delta: EditDelta | None) -> list[str]:
    """What an edit's check of itself warned of."""
    checked = delta.provenance.self_check if delta is not None else None
    return list(checked.warnings) if checked else []


def _facts(delta: EditDelta) -> dict[str, Any]:
    """The facts of an edit with what became of them, what its check found, and its log."""
    requests = delta.provenance.requests
    losses: Sequence[float | None] = delta.provenance.losses or [None] * len(requests)
    checked = delta.provenance.self_check
    written = checked.facts if checked else [{} for _ in requests]
    return {
        "facts": [
            {**request, "loss": loss, **of_fact}
            for request, loss, of_fact in zip(requests, losses, written, strict=True)
        ],
        "self_check": checked and {n: getattr(checked, n) for n in ("drift", "limits", "warnings")},
        "log": delta.provenance.log,
    }


def _result(arguments: Namespace, delta: EditDelta) -> dict[str, Any] | None:
    """What --result says was measured of an edit."""
    from rose_easyedit.export.model_card import load_result

    return load_result(arguments.result, delta) if arguments.result else None
