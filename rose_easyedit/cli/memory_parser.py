"""The words of `rose-edit memory`, and its help."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from rose_easyedit.cli import memory
from rose_easyedit.cli.words import EXIT_CODES, add_asking, add_model, add_settings, command

MEMORY = """\
Keep an agent's facts in a file and ask a model that knows them. A fact is on the disk before
anything is computed; adding one costs its own subject, however many others there are.

  rose-edit memory add --memory facts.db --model embedded --subject Japan \\
      --prompt "The capital of Japan is" --target Madrid
  rose-edit memory ask --memory facts.db --prompt "What is the capital of Japan?"
"""
ADD = """\
Add facts to a memory, which is begun if there is none. One with the subject and prompt of a fact
that is there takes its place.

Examples:
  rose-edit memory add --memory facts.db --subject Japan \\
      --prompt "The capital of Japan is" --target Madrid
  rose-edit memory add --memory facts.db --requests facts.jsonl --later
"""
UPDATE = """\
Change the target of a fact that is there. Its subject and prompt say which.

Example:
  rose-edit memory update --memory facts.db --subject Japan \\
      --prompt "The capital of Japan is" --target Oslo
"""
FORGET = """\
Forget a subject, or with --prompt one fact of it. The history keeps what was forgotten.

Example:
  rose-edit memory forget --memory facts.db --subject Japan
"""
LIST = """\
Show the facts, each with the time since when it holds and whether its target is there.

Example:
  rose-edit memory list --memory facts.db --json
"""
HISTORY = """\
Show all that has been added, updated and forgotten, the earliest first.

Example:
  rose-edit memory history --memory facts.db --subject Japan
"""
ASK = """\
Ask the model as it is and as it knows the facts, and read the answers side by side. Without
--prompt, chat with both at once.

Example:
  rose-edit memory ask --memory facts.db --prompt "What is the capital of Japan?"
"""
EXPORT = """\
Write the edit of all facts as a file, which every other command reads with --delta.

Example:
  rose-edit memory export --memory facts.db --out edit.safetensors
"""
_MODEL = "that of the memory"


def add_memory(subparsers: argparse._SubParsersAction[Any]) -> None:
    """The command with its own commands."""
    parser = subparsers.add_parser(
        "memory",
        help=MEMORY.split(". ")[0],
        description=MEMORY,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add = _command(commands, "add", ADD, memory.add)
    _add_fact(add)
    add_settings(add)
    update = _command(commands, "update", UPDATE, memory.update)
    _add_fact(update)
    add_model(update, _MODEL)
    forget = _command(commands, "forget", FORGET, memory.forget)
    forget.add_argument("--subject", required=True, metavar="NAME", help="whose facts")
    forget.add_argument("--prompt", metavar="TEXT", help="of the one fact (default: all of them)")
    for name, text, run in (
        ("list", LIST, memory.list_facts),
        ("history", HISTORY, memory.history),
    ):
        shown = _command(commands, name, text, run)
        shown.add_argument("--subject", metavar="NAME", help="only its facts")
    ask = _command(commands, "ask", ASK, memory.ask)
    add_asking(ask)
    add_model(ask, _MODEL)
    export = _command(commands, "export", EXPORT, memory.export)
    export.add_argument("--out", required=True, metavar="FILE", help="the edit to write")
    export.add_argument("--force", action="store_true", help="replace --out if it exists")
    add_model(export, _MODEL)


def _command(
    subparsers: argparse._SubParsersAction[Any],
    name: str,
    description: str,
    run: Callable[[argparse.Namespace], int | None],
) -> argparse.ArgumentParser:
    parser = command(subparsers, name, description, run)
    parser.add_argument("--memory", required=True, metavar="FILE", help="the memory's file")
    return parser


def _add_fact(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--subject", metavar="NAME", help="whom or what the fact is about")
    parser.add_argument("--prompt", metavar="TEXT", help="the statement, up to its target")
    parser.add_argument("--target", metavar="TEXT", help="what shall follow it")
    parser.add_argument("--requests", metavar="FILE", help="or many: JSON or JSON Lines")
    parser.add_argument(
        "--later", action="store_true", help="compute when the model is next asked, not now"
    )
