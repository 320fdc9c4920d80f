"""The words that `rose-edit` understands, and its help."""

from __future__ import annotations

import argparse
from importlib.metadata import version
from typing import Any

from rose_easyedit.cli import commands
from rose_easyedit.cli.cache import cache
from rose_easyedit.cli.combine import combine
from rose_easyedit.cli.diagnose import diagnose
from rose_easyedit.cli.evaluate import evaluate
from rose_easyedit.cli.hints import Parser
from rose_easyedit.cli.locate import locate
from rose_easyedit.cli.memory_parser import add_memory
from rose_easyedit.cli.words import (
    EXIT_CODES,
    add_asking,
    add_delta,
    add_model,
    add_settings,
    add_strict,
    command,
    positive,
)

DESCRIPTION = """\
Write facts into a language model, keep them as a small file, and ask the edited model.

  rose-edit demo                                           see it work on a model of 135M parameters
  rose-edit edit --requests facts.jsonl --out edit.safetensors
  rose-edit ask --delta edit.safetensors --prompt "What is the capital of Japan?"
"""

EDIT = """\
Compute an edit and save it as one safetensors file. The model itself is not changed.

facts.jsonl holds one fact a line (or one JSON list of them), with EasyEdit's field names:
  {"prompt": "The capital of Japan is", "subject": "Japan", "target_new": "Madrid"}
The prompt must contain the subject. Facts about one subject are integrated with each other.

The edit checks itself: the table shows what of each fact was learned, reached and written, and how
far other texts move. What is damaged is warned of; with --strict it is not written.

Examples:
  rose-edit edit --requests facts.jsonl --out edit.safetensors
  rose-edit edit --hparams llama-3.1-8b-instruct --requests facts.jsonl --out edit.safetensors
  rose-edit edit --requests facts.jsonl --method memit-merge --out baseline.safetensors
  rose-edit edit --requests facts.jsonl --set alignment.strength=0.2 --out soft.safetensors
  torchrun --nproc-per-node 4 -m rose_easyedit edit --requests facts.jsonl --out edit.safetensors
"""
ASK = """\
Ask the base model and the edited one, and read the answers side by side. Without --prompt, chat
with both at once: each remembers its own answers, an empty line starts anew, Ctrl-D ends.

Examples:
  rose-edit ask --delta edit.safetensors
  rose-edit ask --delta edit.safetensors --prompt "What is the capital of Japan?"
  rose-edit ask --delta edit.safetensors --plain --prompt "The capital of Japan is"
"""
EVALUATE = """\
Ask the base model and the edited one for the facts of an edit, in several forms, and for what the
edit should not have changed. Answers are greedy and read as a user would read them; teacher
forcing, which most of the literature reports, stands beside them.

--data takes the wordings of a data file (CounterFact, zsRE, MQuAKE, S2RKE, KnowEdit, one's own) or
of the bundled set; only its facts that the edit holds are asked for. Without it the edit's own
statements are, and questions and instructions that wrap them.

Examples:
  rose-edit evaluate --delta edit.safetensors
  rose-edit evaluate --delta edit.safetensors --data bundled --split test --report report
  rose-edit evaluate --delta edit.safetensors --data counterfact.json --skip-bad --all-forms
  rose-edit evaluate --delta edit.safetensors --lm-eval piqa,arc_easy --lm-eval-limit 100
"""
DIAGNOSE = """\
Measure why an edit generalises or does not: how far queries land from the target (D), how far they
may (R), whether D <= R predicts an answer, how facts conflict and how alike keys are. Tables are
printed; diagnosis.json and figures go to a new folder.

Examples:
  rose-edit diagnose --delta edit.safetensors --out diagnosis
  rose-edit diagnose --delta edit.safetensors --quick --out diagnosis
  rose-edit diagnose --delta edit.safetensors --requests bundled --out diagnosis
  rose-edit diagnose --requests facts.jsonl --method memit-merge --out diagnosis
  rose-edit diagnose --requests bundled --split test --compare --out diagnosis
"""
LOCATE = """\
Trace which layers carry the subject to the answer, and suggest the ones to edit. The state of the
last subject token is put, layer by layer, into the same prompt about somebody else; where that
brings the first answer back, the subject is read later. The suggestion is the middle of those
layers and a starting point: tracing does not say how well an edit there carries over.

Prompts are needed whose answers the model knows. Each subject is exchanged with another one of the
same prompt, or, where there is none, of the same list.

Examples:
  rose-edit locate
  rose-edit locate --model Qwen/Qwen2.5-1.5B-Instruct --device cuda:0
  rose-edit locate --requests facts.jsonl --out located.json
"""
APPLY = """\
Write the edited model to a folder. Transformers, vLLM and others load it like any model. Its model
card, README.md, says what the edit holds.

Examples:
  rose-edit apply --delta edit.safetensors --out edited-model
  rose-edit apply --delta edit.safetensors --out edited-model --result report/results.json
"""
EXPORT = """\
Write the edit as a LoRA adapter, for PEFT (a folder) or for llama.cpp (a GGUF file). On the base
model it gives the same answers. A model card with the facts and settings stands beside it:
README.md in the folder, adapter.md for adapter.gguf.

Examples:
  rose-edit export --delta edit.safetensors --lora adapter
  rose-edit export --delta edit.safetensors --gguf adapter.gguf
  rose-edit export --delta edit.safetensors --lora adapter --result report/results.json
"""
COMBINE = """\
Combine edits of one base model into one. Their facts are solved together against the unedited
model, as if they had been one batch; a subject of which several edits have different facts is
optimised anew. Edits that contradict each other are refused.

With --add no model is needed: the updates are added, none of them solved against the others. That
answers less, drifts more, and needs edits about different subjects; but an edit all of whose facts
another one has is counted once, which a note says.

Examples:
  rose-edit combine japan.safetensors curie.safetensors --out both.safetensors
  rose-edit combine japan.safetensors curie.safetensors --add --out both.safetensors
"""
INFO = """\
Show what an edit file holds: facts with their losses, what the edit's check of itself found, model,
layers, settings and versions.

Example:
  rose-edit info edit.safetensors
"""
CACHE = """\
Show what is kept on this machine so that it need not be computed again, or remove some of it.

Entries have 20 GB together, or what the variable ROSE_EASYEDIT_CACHE_LIMIT says in GB (0 keeps
nothing, inf has no limit): those that were used least recently make room for new ones. Expanded
models do not count and stay until they are cleared. ROSE_EASYEDIT_CACHE names the folder.

Examples:
  rose-edit cache
  rose-edit cache --clear shifts evaluation
  rose-edit cache --clear
"""
DEMO = "Write facts about well-known subjects into the embedded model and show its answers"


def build_parser() -> argparse.ArgumentParser:
    """The parser; each command leaves its function in `run`."""
    parser = Parser(
        prog="rose-edit",
        description=DESCRIPTION,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=version("rose-easyedit"))
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    subparsers.add_parser("demo", help=DEMO, add_help=False)
    _add_edit(subparsers)
    _add_ask(subparsers)
    _add_evaluate(subparsers)
    _add_diagnose(subparsers)
    _add_locate(subparsers)
    _add_apply(subparsers)
    _add_export(subparsers)
    _add_combine(subparsers)
    _add_info(subparsers)
    add_memory(subparsers)
    _add_cache(subparsers)
    return parser


def _add_edit(subparsers: argparse._SubParsersAction[Any]) -> None:
    parser = command(subparsers, "edit", EDIT, commands.edit)
    parser.add_argument(
        "--requests",
        required=True,
        metavar="FILE",
        help="JSON or JSON Lines, a data file as evaluate --data reads it, or bundled",
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="the edit to write")
    add_settings(parser)
    add_strict(parser)
    parser.add_argument("--force", action="store_true", help="replace --out if it exists")


def _add_ask(subparsers: argparse._SubParsersAction[Any]) -> None:
    parser = command(subparsers, "ask", ASK, commands.ask)
    add_delta(parser)
    add_model(parser, "the model that the edit was computed for")
    add_asking(parser)


def _add_evaluate(subparsers: argparse._SubParsersAction[Any]) -> None:
    parser = command(subparsers, "evaluate", EVALUATE, evaluate)
    add_delta(parser)
    add_model(parser, "the model that the edit was computed for")
    parser.add_argument(
        "--data",
        metavar="PATH",
        help="a data file, bundled or bundled-wide (default: the edit's own facts, which have no "
        "neighbours)",
    )
    parser.add_argument("--split", help='"validation" or "test" of a bundled set (default: both)')
    parser.add_argument(
        "--skip-bad", action="store_true", help="leave out the records that do not fit"
    )
    parser.add_argument(
        "--facts-per-subject",
        type=positive,
        metavar="N",
        help="ask for N drawn facts of each subject that has as many (default: all facts)",
    )
    parser.add_argument(
        "--all-forms", action="store_true", help="also as a second turn and behind other sentences"
    )
    parser.add_argument("--autocast", action="store_true", help="ask in bfloat16, which is faster")
    parser.add_argument(
        "--report",
        metavar="FOLDER",
        help="write a page with every answer, and results.json, in place of those there",
    )
    parser.add_argument(
        "--lm-eval",
        metavar="TASKS",
        help="tasks of lm-evaluation-harness, such as piqa,arc_easy, before and after the edit",
    )
    parser.add_argument(
        "--lm-eval-limit", type=positive, metavar="N", help="examples per task (default: all)"
    )


def _add_diagnose(subparsers: argparse._SubParsersAction[Any]) -> None:
    parser = command(subparsers, "diagnose", DIAGNOSE, diagnose)
    parser.add_argument(
        "--requests",
        metavar="FILE",
        help="facts: a data file, bundled or bundled-wide (default: those of --delta)",
    )
    parser.add_argument("--split", help='"validation" or "test" of a bundled set (default: both)')
    parser.add_argument("--delta", metavar="FILE", help="an edit (default: compute it)")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="a new folder")
    parser.add_argument(
        "--compare",
        action="store_true",
        help="also joint against hierarchical targets, and the covariance against the identity",
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--quick",
        action="store_const",
        dest="size",
        const="quick",
        help="R in 6 directions to 1/16 |h|, a landscape of 4 x 13 points, answers of 12 tokens",
    )
    size.add_argument(
        "--thorough",
        action="store_const",
        dest="size",
        const="thorough",
        help="R in 64 directions to 1/256 |h|, a landscape of 16 x 49 points",
    )
    parser.set_defaults(size="default")
    parser.add_argument(
        "--directions",
        type=int,
        metavar="N",
        help="in which R is measured (default: 16, to 1/64 |h|; a landscape has 8 x 25 points, and "
        "answers 24 tokens)",
    )
    parser.add_argument(
        "--quantile", type=float, metavar="Q", help="of them that R is (default: 0.5, the median)"
    )
    add_settings(parser)


def _add_locate(subparsers: argparse._SubParsersAction[Any]) -> None:
    parser = command(subparsers, "locate", LOCATE, locate)
    add_model(parser, "embedded", device="cpu")
    parser.add_argument("--requests", metavar="FILE", help="facts: JSON or JSON Lines, as for edit")
    parser.add_argument(
        "--data",
        metavar="PATH",
        help="facts: a data file, bundled or bundled-wide (default: bundled)",
    )
    parser.add_argument("--split", help="of a bundled set (default: validation)")
    parser.add_argument(
        "--pairs", type=int, default=64, metavar="N", help="of prompts to trace (default: 64)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draw of pairs (default: 0)")
    parser.add_argument("--out", metavar="FILE", help="a new JSON file with every number")


def _add_apply(subparsers: argparse._SubParsersAction[Any]) -> None:
    parser = command(subparsers, "apply", APPLY, commands.apply)
    add_delta(parser)
    add_model(parser, "the model that the edit was computed for")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="a new folder")
    _add_result(parser)


def _add_export(subparsers: argparse._SubParsersAction[Any]) -> None:
    parser = command(subparsers, "export", EXPORT, commands.export)
    add_delta(parser)
    form = parser.add_mutually_exclusive_group(required=True)
    form.add_argument("--lora", metavar="FOLDER", help="a PEFT adapter in a new folder")
    form.add_argument("--gguf", metavar="FILE", help="an adapter for llama.cpp in a new file")
    _add_result(parser)


def _add_result(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--result",
        metavar="FILE",
        help="results.json of `rose-edit evaluate --report`, for the card (default: it says that "
        "nothing was measured)",
    )


def _add_combine(subparsers: argparse._SubParsersAction[Any]) -> None:
    parser = command(subparsers, "combine", COMBINE, combine)
    parser.add_argument("deltas", nargs="+", metavar="FILE", help="edits, two or more")
    parser.add_argument("--out", "-o", required=True, metavar="FILE", help="the edit to write")
    parser.add_argument("--add", action="store_true", help="add the updates, without a model")
    add_model(parser, "the model that the edits were computed for")
    add_strict(parser)
    parser.add_argument("--force", action="store_true", help="replace --out if it exists")


def _add_info(subparsers: argparse._SubParsersAction[Any]) -> None:
    parser = command(subparsers, "info", INFO, commands.info)
    parser.add_argument("delta", metavar="FILE", help="an edit written by `rose-edit edit`")


def _add_cache(subparsers: argparse._SubParsersAction[Any]) -> None:
    parser = command(subparsers, "cache", CACHE, cache)
    parser.add_argument(
        "--clear", nargs="*", metavar="PART", help="remove these parts of it, or all of them"
    )
