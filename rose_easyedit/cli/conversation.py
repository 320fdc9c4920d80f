"""`rose-edit ask` at the keyboard: two conversations side by side, one with each model."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from typing import Any

from rose_easyedit.cli import output
from rose_easyedit.errors import RoSEError, text_fault
from rose_easyedit.files.stdout import printable

INTRODUCTION = "Ask something. An empty line starts a new conversation, Ctrl-D ends."


def conversation(
    answers: Callable[[Sequence[Any], Sequence[Any]], list[tuple[str, str]]], chat: bool
) -> None:
    """Questions from the keyboard until end of input; each model remembers its own answers.

    A question that cannot be put to the models (bytes that are no text, or a conversation that has
    become too long) is
    answered with what is wrong, and forgotten.

    Args:
        answers: of the base model to the first and of the edited one to the second of its lists.
        chat: whether turns build on each other, instead of each text standing alone.
    """
    from rich.console import Console

    console = Console(emoji=False)
    console.print(INTRODUCTION)
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # what is no text is refused by name
    before: list[dict[str, str]] = []
    after: list[dict[str, str]] = []
    while True:
        try:
            prompt = input("> ").strip()
        except EOFError:
            console.print()
            return
        if not prompt:
            before, after = [], []
            continue
        if fault := text_fault(prompt):
            output.line(console, printable(f"The question {fault}; type it anew."))
            continue
        turn = {"role": "user", "content": prompt}
        asked = [*before, turn], [*after, turn]
        try:
            ((old, new),) = answers(asked[:1], asked[1:]) if chat else answers([prompt], [prompt])
        except RoSEError as error:
            output.line(console, printable(f"{error} An empty line starts anew."))
            continue
        before = [*asked[0], {"role": "assistant", "content": old}]
        after = [*asked[1], {"role": "assistant", "content": new}]
        output.ask_report({"answers": [{"prompt": prompt, "before": old, "after": new}]}, console)
