"""The entry point of `rose-edit`: dispatch, exit codes, and what a failure prints."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Sequence

from rose_easyedit.cli.launched import check_command, process
from rose_easyedit.cli.parser import build_parser
from rose_easyedit.cli.words import DONE, FAILED, INTERRUPTED, WRONG_INPUT
from rose_easyedit.errors import DamageError, DiskError, RoSEError
from rose_easyedit.files.stdout import printable, printable_message, reader_may_stop


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the words after `rose-edit`; those of the process if None.

    Returns:
        0 done, 1 the work failed, 2 the input was wrong, 3 done but the edit is damaged, 130
        interrupted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        check_command(words)
        if words[:1] == ["demo"]:
            from rose_easyedit.cli.demo import main as demo

            with reader_may_stop():
                return demo(words[1:]) or DONE
            return DONE
        arguments = build_parser().parse_args(words)
        with reader_may_stop():
            return arguments.run(arguments) or DONE
        return DONE
    except KeyboardInterrupt as stop:
        told = ["Interrupted; no file was left half written.", *map(str, stop.args)]
        return _report(" ".join(told), INTERRUPTED, words)
    except (DamageError, DiskError) as error:
        return _report(str(error), FAILED, words)
    except RoSEError as error:
        return _report(str(error), WRONG_INPUT, words)
    except OSError as error:
        return _report(str(error), FAILED, words)
    except Exception as error:  # a defect, or the machine's limits: the trace belongs in a report
        print(printable(traceback.format_exc()), end="", file=sys.stderr)
        return _report(f"{type(error).__name__}: {error}", FAILED, words)


def _report(message: str, code: int, words: Sequence[str]) -> int:
    rank, count = process()
    name = "rose-edit" if count == 1 else f"rose-edit (rank {rank} of {count})"
    print(f"{name}: {printable_message(message)}", file=sys.stderr)
    if "--json" in words and rank == 0:
        print(json.dumps({"error": printable_message(message), "exit_code": code}))
    return code
