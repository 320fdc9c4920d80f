"""Words that several commands of `rose-edit` share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

DONE, FAILED, WRONG_INPUT, WARNED, INTERRUPTED = 0, 1, 2, 3, 130
EXIT_CODES = (
    "Exit codes: 0 done, 1 the work failed (its place cannot be written, say), 2 the input was\n"
    "wrong, 3 done but the edit is damaged (a warning says how), 130 interrupted."
)


def positive(text: str) -> int:
    """A whole number from 1 on, for argparse."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def command(
    subparsers: argparse._SubParsersAction[Any],
    name: str,
    description: str,
    run: Callable[[argparse.Namespace], int | None],
) -> argparse.ArgumentParser:
    """A command with its help; its function is left in `run`."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name,
        help=description.replace("\n", " ").split(". ")[0].rstrip(". "),
        description=description,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="report as one JSON object")
    parser.set_defaults(run=run)
    return parser


def add_settings(parser: argparse.ArgumentParser) -> None:
    """The settings of an edit, and its model."""
    parser.add_argument(
        "--hparams",
        metavar="NAME",
        help="settings: a YAML file or a shipped name (default: those of --model)",
    )
    add_model(parser, "the model of the settings, else embedded")
    parser.add_argument(
        "--method",
        help="rose (default), rose-paper, memit-merge, memit or alphaedit",
    )
    parser.add_argument("--seed", type=int, help="of every random choice")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any other setting, for instance hierarchy.subject_steps=30; may be repeated",
    )


def add_strict(parser: argparse.ArgumentParser) -> None:
    """Whether a damaged edit is written."""
    parser.add_argument(
        "--strict", action="store_true", help="write no edit that its own check finds damaged"
    )


def add_delta(parser: argparse.ArgumentParser) -> None:
    """An edit that is there."""
    parser.add_argument("--delta", required=True, metavar="FILE", help="the edit")


def add_model(
    parser: argparse.ArgumentParser, default: str, device: str = "as the settings say"
) -> None:
    """A model, and how it is loaded."""
    parser.add_argument(
        "--model",
        metavar="NAME",
        help=f'"embedded", "gemma-3-270m", a folder, a GGUF file, or a name on the hub '
        f"(default: {default})",
    )
    parser.add_argument("--device", help=f'"cpu", "cuda:0" (default: {device})')
    parser.add_argument(
        "--dtype", help="auto, float32, bfloat16 or float16 (default: as the checkpoint has it)"
    )


def add_asking(parser: argparse.ArgumentParser) -> None:
    """What is asked, and how."""
    parser.add_argument(
        "--prompt", action="append", metavar="TEXT", help="ask this and end; may be repeated"
    )
    parser.add_argument(
        "--plain", action="store_true", help="go on with the text instead of answering a chat turn"
    )
    parser.add_argument(
        "--max-new-tokens",
        type=positive,
        default=64,
        metavar="N",
        help="longest answer (default: 64)",
    )
