"""A parser of command lines that says what was probably meant."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

_NO_COMMAND = re.compile(r"argument COMMAND: invalid choice: '(.*?)' \(choose from (.*)\)")


class Parser(argparse.ArgumentParser):
    """As argparse's, whose errors name the nearest command and the nearest option."""

    _words: Sequence[str] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's, but that a command refuses what it does not know itself."""
        self._words = list(args or ())
        namespace, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return namespace, unknown

    def error(self, message: str) -> NoReturn:
        """As argparse's, with what was probably meant."""
        if found := _NO_COMMAND.match(message):
            message += _meant(found[1], re.findall(r"'(.*?)'", found[2]))
        else:
            options = [word.partition("=")[0] for word in self._words if word.startswith("--")]
            for option in options:
                if not any(name.startswith(option) for name in self._option_string_actions):
                    message += _meant(option, self._option_string_actions)
        super().error(message)


def _meant(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]} for {word}?" if near else ""
