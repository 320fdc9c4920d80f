"""`rose-edit ask` at the keyboard: two conversations side by side, one with each model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rose_easyedit.cli import output

INTRODUCTION = "Ask something. An empty line starts a new conversation, Ctrl-D ends."


def conversation(
    answers: Callable[[Sequence[Any], Sequence[Any]], list[tuple[str, str]]], chat: bool
) -> None:
    """Questions from the keyboard until end of input; each model remembers its own answers.

    Args:
        answers: of the base model to the first and of the edited one to the second of its lists.
        chat: whether turns build on each other, instead of each text standing alone.
    """
    from rich.console import Console

    console = Console(emoji=False)
    console.print(INTRODUCTION)
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
        turn = {"role": "user", "content": prompt}
        before, after = [*before, turn], [*after, turn]
        ((old, new),) = answers([before], [after]) if chat else answers([prompt], [prompt])
        before.append({"role": "assistant", "content": old})
        after.append({"role": "assistant", "content": new})
        output.ask_report({"answers": [{"prompt": prompt, "before": old, "after": new}]}, console)
