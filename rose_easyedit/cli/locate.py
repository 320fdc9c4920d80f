"""`rose-edit locate`: which layers to edit, as far as causal tracing tells."""

from __future__ import annotations

import json
import time
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rose_easyedit.cli import output
from rose_easyedit.cli.places import check_place, named
from rose_easyedit.errors import RoSEError
from rose_easyedit.evaluation.selection import BUNDLED, LABORATORY, read_facts
from rose_easyedit.files.amounts import counted

if TYPE_CHECKING:
    from rose_easyedit.requests import EditRequest

_BAR = 20


def locate(arguments: Namespace) -> None:
    """Traces where the subject is read, and suggests layers."""
    from rose_easyedit.files.writing import write_whole
    from rose_easyedit.method.locating.exchanges import exchanges

    out = None if arguments.out is None else _new_file(arguments.out)
    source, requests = _requests(arguments)
    pairs = exchanges(requests, arguments.pairs, arguments.seed)

    from tqdm import tqdm

    from rose_easyedit.method.contexts import reading_forms
    from rose_easyedit.method.locating import location
    from rose_easyedit.models.loading import EMBEDDED, load_model

    name = arguments.model or EMBEDDED
    model, tokenizer = load_model(name, arguments.device or "cpu", arguments.dtype or "auto")
    start = time.perf_counter()
    total = len(pairs) * len(reading_forms(tokenizer, ""))
    with tqdm(total=total, desc="tracing", unit="pair", disable=None, leave=False) as bar:
        found = location.locate(model, tokenizer, pairs, progress=bar.update)
    report = {
        "model": name,
        "data": source,
        "seed": arguments.seed,
        "seconds": round(time.perf_counter() - start, 2),
        **found.as_dict(),
    }
    if out is not None:
        text = json.dumps(report, ensure_ascii=False, indent=1)
        write_whole(out, f"{text}\n".encode())
        report["out"] = str(out)
    output.show(report, arguments.json, locate_report)


def _requests(arguments: Namespace) -> tuple[str, list[EditRequest]]:
    """Where the prompts are from, and the prompts."""
    from rose_easyedit.cli.facts import named_requests

    if arguments.requests and arguments.data:
        raise RoSEError("--requests and --data both name facts; leave one of them out.")
    data = arguments.data or (LABORATORY if arguments.model == LABORATORY else "bundled")
    if arguments.split and (arguments.requests or data not in BUNDLED):
        raise RoSEError(
            f"--split {arguments.split} is one of a bundled set; add --data {' or '.join(BUNDLED)}."
        )
    if arguments.requests:
        return arguments.requests, named_requests(arguments.requests)
    # Layers are a setting, and settings are not chosen on the facts that report them.
    split = (arguments.split or "validation") if data in BUNDLED else None
    facts, _ = read_facts(data, split)
    return data if split is None else f"{data}, {split}", [fact.to_request() for fact in facts]


def _new_file(text: str) -> Path:
    path = named(text, "--out", "a new file, such as located.json")
    if path.exists():
        raise RoSEError(f"--out {text} exists; name a new file.")
    check_place(path)
    return path


def locate_report(report: output.Report, console: Any) -> None:
    """Shares as bars, layer by layer; what cannot be told; lines for a settings file."""
    _print_shares(report, console)
    lines = [
        f"{form}: the answer depends on the subject in {found['telling']} of "
        f"{counted(found['pairs'], 'pair')} and loses {found['lost']:.2f} of its probability there"
        for form, found in report["forms"].items()
        if not found["doubt"]
    ]
    lines += [
        f"{form}: cannot tell, since {found['doubt']}"
        for form, found in report["forms"].items()
        if found["doubt"]
    ]
    lines.append(f"{report['model']}, {report['data']}: {report['seconds']:.1f} s")
    if "out" in report:
        lines.append(f"numbers -> {report['out']}")
    lines += _suggestion(report)
    for line in lines:
        output.line(console, line)


def _suggestion(report: output.Report) -> list[str]:
    if not report["layers"]:
        told = any(not found["doubt"] for found in report["forms"].values())
        reason = "the forms have no such layer in common" if told else "tracing cannot tell"
        return ["", f"No layers are suggested: {reason}."]
    plateau = report["plateau"]
    return [
        "",
        f"# The middle of layers {plateau[0]} to {plateau[-1]}, which carry the subject until it "
        "is read.",
        "# A starting point: whether an edit there carries over has to be measured.",
        f"layers: {list(report['layers'])}",
        f"z_layer: {report['z_layer']}",
    ]


def _print_shares(report: output.Report, console: Any) -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    shown = {form: found for form, found in report["forms"].items() if found["restored"]}
    if not shown:
        return
    title = "Share of the answer that the last subject token's state after a layer restores"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1))
    table.add_column("layer", justify="right")
    for form in shown:
        table.add_column(escape(form), no_wrap=True)
    table.add_column("")
    n_layers = len(next(iter(shown.values()))["restored"])
    for layer in range(n_layers):
        cells = [_bar(found["restored"][layer]) for found in shown.values()]
        mark = "edit" if layer in report["layers"] else "." if layer in report["plateau"] else ""
        table.add_row(str(layer), *cells, mark)
    console.print(table)


def _bar(share: float) -> str:
    length = round(_BAR * min(max(share, 0.0), 1.0))
    return f"{share:5.2f} {'#' * length:<{_BAR}}"
