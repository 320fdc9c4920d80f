"""Baselines that are no preset of ours, on the facts and in the lines of methods.py.

    EASYEDIT_HOME=/path/to/EasyEdit python benchmarks/baselines.py --split test
    python benchmarks/baselines.py --sweep --autocast --baselines ultraedit

UltraEdit's update, EasyEdit's own FT and LoRA, and a LoRA (PEFT, rank 8, all linear layers) that is
trained on the statements, in plain text or in chat form too, for more CPU time than RoSE takes.
`--sweep` tries every setting, on the validation split only; otherwise the one that was chosen there
is measured. One thread. Without EASYEDIT_HOME (a clone of EasyEdit) its methods are left out.
"""

from __future__ import annotations

import argparse
import copy
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from baseline_easyedit import easyedit_ft, easyedit_lora
from baseline_lora import train_lora
from baseline_ultraedit import ultraedit
from easyedit_clone import easyedit_at
from measuring import Bench, add_options, prepare
from tqdm import tqdm

from rose_easyedit.config.hparams import RoSEHyperParams
from rose_easyedit.errors import RoSEError
from rose_easyedit.method.contexts import statement_forms
from rose_easyedit.method.generic import generic_passages
from rose_easyedit.models.fingerprint import weights_fingerprint
from rose_easyedit.text.locate_subject import TokenQuery

# more than RoSE takes (README), so that no baseline is short of time
SECONDS_PER_FACT = 1.9


@dataclass(frozen=True)
class Job:
    """One edit to make.

    Attributes:
        bench: the facts and the tokenizer.
        hparams: whose forms of a statement are learned.
        seconds: CPU seconds that training may take.
    """

    bench: Bench
    hparams: RoSEHyperParams
    seconds: float

    def queries(self, chat: bool) -> list[TokenQuery]:
        """The statements with their targets, in all plain contexts and, if `chat`, the chat's."""
        hparams = (
            self.hparams
            if chat
            else self.hparams.with_overrides(chat_contexts=0, answered_queries=0, restatements=0)
        )
        return [
            form.tokenize(self.bench.tokenizer, request.subject, request.target_new)
            for request in self.bench.requests
            for form in statement_forms(self.bench.tokenizer, request, hparams)
        ]


def _ultraedit(model: Any, job: Job, eta: float) -> Any:
    bare = replace(job, hparams=job.hparams.with_overrides(contexts=[""]))
    ultraedit(model, bare.queries(chat=False), eta)
    return model


def _ft(model: Any, job: Job, learning_rate: float) -> Any:
    return easyedit_ft(model, job.bench.tokenizer, job.bench.requests, learning_rate)


def _easyedit_lora(model: Any, job: Job, learning_rate: float) -> Any:
    return easyedit_lora(model, job.bench.tokenizer, job.bench.requests, learning_rate)


def _lora(model: Any, job: Job, learning_rate: float, kl_weight: float = 0.0, *, chat: bool) -> Any:
    text = replace(job.hparams.alignment, subject_weight=0.0)
    kept = [passage.ids for passage in generic_passages(job.bench.tokenizer, text)]
    return train_lora(
        model,
        job.queries(chat),
        learning_rate=learning_rate,
        seconds=job.seconds,
        kept=kept,
        kl_weight=kl_weight,
    )


@dataclass(frozen=True)
class Method:
    """A baseline.

    Attributes:
        edit: from a model, which it may change, a job and a setting to the edited model.
        chosen: the setting that was best on the validation split.
        sweep: all that were tried there.
        easyedit: whether it needs a clone of EasyEdit.
    """

    edit: Callable[..., Any]
    chosen: dict[str, float]
    sweep: Sequence[dict[str, float]]
    easyedit: bool = False


def rates(*values: float, **others: float) -> list[dict[str, float]]:
    return [{"learning_rate": value, **others} for value in values]


METHODS: dict[str, Method] = {
    "ultraedit": Method(_ultraedit, {"eta": 3e-5}, [{"eta": eta} for eta in (1e-5, 3e-5, 1e-4)]),
    "easyedit-ft": Method(_ft, {"learning_rate": 5e-4}, rates(1e-4, 5e-4, 2e-3), easyedit=True),
    "easyedit-lora": Method(
        _easyedit_lora, {"learning_rate": 5e-3}, rates(1e-3, 5e-3), easyedit=True
    ),
    "lora": Method(partial(_lora, chat=False), {"learning_rate": 1e-3}, rates(3e-4, 1e-3, 3e-3)),
    "lora, chat": Method(
        partial(_lora, chat=True), {"learning_rate": 1e-3}, rates(3e-4, 1e-3, 3e-3)
    ),
    "lora, chat, generic KL": Method(
        partial(_lora, chat=True),
        {"learning_rate": 1e-3, "kl_weight": 1.0},
        rates(1e-3, 3e-3, kl_weight=1.0),
    ),
}


def edited_copy(method: Method, job: Job, setting: dict[str, float]) -> tuple[Any, float]:
    """A copy of the bench's model with the facts in it, and the CPU seconds that the edit took.

    Raises:
        RoSEError: the method has reached through the copy and changed the bench's model.
    """
    original = job.bench.model
    before = weights_fingerprint(original.state_dict().items())
    model = copy.deepcopy(original)
    began = time.process_time()
    model = method.edit(model, job, **setting)
    seconds = time.process_time() - began
    if weights_fingerprint(original.state_dict().items()) != before:
        raise RoSEError(
            "The unedited model's weights have changed, so that nothing measured after this would "
            "count; let the method edit the model that it is given, and no other."
        )
    return model.eval().requires_grad_(False), seconds


def main() -> None:
    """Measures the baselines and appends one JSON line per setting."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser, out="baselines.jsonl")
    parser.add_argument("--baselines", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--sweep", action="store_true", help="every setting, on validation only")
    parser.add_argument(
        "--seconds-per-fact",
        type=float,
        default=SECONDS_PER_FACT,
        help="of CPU time that the PEFT LoRAs are trained (default: more than RoSE takes)",
    )
    options = parser.parse_args()
    if options.sweep and (options.split != "validation" or options.data is not None):
        parser.error("--sweep chooses settings: use it on the validation split of a bundled set.")

    torch.set_num_threads(1)
    bench = prepare(options)
    hparams = RoSEHyperParams.preset("rose", options.hparams)
    job = Job(bench, hparams, options.seconds_per_fact * len(bench.facts))
    home = os.environ.get("EASYEDIT_HOME")
    if home:
        with easyedit_at(home):
            pass  # imported, before any edit is timed
    with options.out.open("a", encoding="utf-8") as out:
        for name in tqdm(options.baselines, desc="baselines", disable=None):
            method = METHODS[name]
            if method.easyedit and not home:
                tqdm.write(f"{name} is left out: EASYEDIT_HOME does not name a clone of EasyEdit.")
                continue
            for setting in method.sweep if options.sweep else [method.chosen]:
                model, seconds = edited_copy(method, job, setting)
                bench.write_line(out, model, name, setting, seconds)


if __name__ == "__main__":
    main()
