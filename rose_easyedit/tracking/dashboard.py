"""`rose-dashboard`: a W&B workspace and a report for the runs of a project.

Both show the same sections.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from rose_easyedit.config.hparams import INTEGRATIONS
from rose_easyedit.errors import RoSEError
from rose_easyedit.files.stdout import reader_may_stop
from rose_easyedit.tracking.dashboard_sections import (
    ALIGNMENT,
    BROKEN,
    GRID,
    HIERARCHY,
    LOCALITY,
    NAMED,
    OTHERS,
    SPECIFICITY,
    SUCCESS,
    bars,
    make_sections,
    wandb_reports,
)
from rose_easyedit.tracking.wandb_run import wandb_error

DESCRIPTION = """\
Make a W&B workspace and a report for the runs of a project. With --dry-run nothing is sent.

Examples:
  rose-dashboard --entity me --dry-run > dashboard.json
  rose-dashboard --entity me --project rose-easyedit
"""
TITLE = "RoSE: alignment and hierarchy"
FINISHED = "State = 'finished'"


def make_workspace(entity: str, project: str) -> Any:
    """A `wandb_workspaces` Workspace of all sections; nothing is sent before its `save`."""
    parts = make_sections()
    import wandb_workspaces.workspaces as workspaces

    sections = [
        workspaces.Section(name=section.name, panels=section.panels, is_open=True)
        for section in parts
    ]
    pinned = (SUCCESS, NAMED, BROKEN, OTHERS, LOCALITY, SPECIFICITY)
    columns = [f"summary:{name}" for name in pinned]
    settings = workspaces.RunsetSettings(filters=FINISHED, pinned_columns=columns)
    return workspaces.Workspace(
        entity=entity, project=project, name=TITLE, sections=sections, runset_settings=settings
    )


def make_report(entity: str, project: str) -> Any:
    """A `wandb_workspaces` Report of all sections; nothing is sent before its `save`.

    Its grid has a row per hierarchy, which a workspace with its one set of runs cannot have.
    """
    reports = wandb_reports()

    def runs(name: str, filters: str = FINISHED) -> Any:
        # without a project of its own it takes the report's, which need not be looked up
        return reports.Runset(name=name, filters=filters)

    blocks: list[Any] = [reports.TableOfContents()]
    for section in make_sections():
        blocks += [reports.H1(section.name), reports.P(section.text)]
        blocks.append(reports.PanelGrid(runsets=[runs("finished")], panels=section.panels))
        if section.name == GRID:
            for integration in INTEGRATIONS:
                chosen = runs(
                    integration, f"{FINISHED} and Config('{HIERARCHY}') = '{integration}'"
                )
                blocks.append(reports.H2(integration))
                blocks.append(reports.PanelGrid(runsets=[chosen], panels=bars(ALIGNMENT)))
    description = "Runs of rose-experiment: what is written, what is kept, and why."
    return reports.Report(
        entity=entity,
        project=project,
        title=TITLE,
        description=description,
        blocks=blocks,
        width="fluid",
    )


def specification(entity: str, project: str) -> dict[str, Any]:
    """The workspace and the report as W&B stores them, as plain data; no network is touched."""
    made = {
        "workspace": make_workspace(entity, project),
        "report": make_report(entity, project),
    }
    return {
        name: view._to_model().model_dump(mode="json", by_alias=True, exclude_none=True)
        for name, view in made.items()
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command `rose-dashboard`.

    Args:
        arguments: the words after `rose-dashboard`; those of the process if None.

    Returns:
        0 done, 1 W&B could not be asked or has refused it.
    """
    parser = argparse.ArgumentParser(
        prog="rose-dashboard",
        description=DESCRIPTION,
        epilog="Exit codes: 0 done, 1 W&B was not reached or refused, 2 the words were wrong.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--entity", required=True, type=_named, help="user or team at W&B")
    parser.add_argument(
        "--project", default="rose-easyedit", type=_named, help="(default: %(default)s)"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print what would be made, as JSON, and send nothing"
    )
    chosen = parser.parse_args(arguments)
    try:
        with reader_may_stop():
            if chosen.dry_run:
                print(json.dumps(specification(chosen.entity, chosen.project), indent=1))
            else:
                for address in _send(chosen.entity, chosen.project):
                    print(address)
    except (RoSEError, OSError) as error:
        print(f"rose-dashboard: {error}", file=sys.stderr)
        return 1
    return 0


def _named(text: str) -> str:
    """A name that is not empty, for argparse."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty; give a name at W&B")
    return text


def _send(entity: str, project: str) -> Iterator[str]:
    """Makes both at W&B; their addresses.

    Raises:
        RoSEError: it cannot be reached, or refuses.
    """
    for make in (make_workspace, make_report):
        try:
            view = make(entity, project).save()
        except (wandb_error(), OSError) as error:  # not logged in, no such project, no network
            raise RoSEError(
                f"W&B has refused it ({error}); log in with `wandb login`, or look at what would "
                "be made with --dry-run."
            ) from error
        yield view.url
