"""What a dashboard shows, as panels of W&B.

What is plotted are the names that `logged.log_run` logs and the settings that a run's
configuration holds under `hparams`.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from rose_easyedit.errors import RoSEError

HIERARCHY = "hparams.hierarchy.integration"
ALIGNMENT = "hparams.alignment.constraint"
SUCCESS = "evaluation/headline/faithful"
NAMED, BROKEN = "evaluation/headline/success", "evaluation/headline/broken"
OTHERS = "evaluation/locality/subject/words_kept"
LOCALITY = "evaluation/locality/all/kl"
SPECIFICITY = "evaluation/r_specificity/kept"
DEVIATION, RADIUS, CERTIFICATE = "geometry/deviation", "geometry/R/mean", "geometry/accuracy"
TABLES = ("answers", "other_facts", "locality", "facts")
FIGURES = ("deviation", "radius", "certificate", "landscape", "conflict", "keys", "spectrum")
GRID = "Hierarchy x alignment"


def wandb_reports() -> Any:
    """The report and panel classes of wandb-workspaces."""
    if find_spec("wandb_workspaces") is None:
        raise RoSEError(
            "Dashboards need wandb-workspaces, which is not installed: "
            "pip install 'rose-easyedit[dashboard]'"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # its own of pydantic
        import wandb_workspaces.reports.v2 as reports

    return reports


@dataclass(frozen=True)
class Section:
    """A part of the dashboard.

    Attributes:
        name: its heading.
        text: what is to be seen in it.
        panels: W&B panels.
    """

    name: str
    text: str
    panels: list[Any]


def make_sections() -> list[Section]:
    """The parts of the dashboard, in their order.

    Raises:
        RoSEError: wandb-workspaces is not installed.
    """
    return [_overview(), _grid(), _facts_per_subject(), _geometry(), _optimisation(), _tables()]


def _overview() -> Section:
    reports = wandb_reports()
    columns = [
        reports.ParallelCoordinatesPlotColumn(metric=metric, display_name=name)
        for name, metric in (
            ("hierarchy", reports.Config(HIERARCHY)),
            ("alignment", reports.Config(ALIGNMENT)),
            ("faithful success", reports.SummaryMetric(SUCCESS)),
            ("names the target", reports.SummaryMetric(NAMED)),
            ("broken answers", reports.SummaryMetric(BROKEN)),
            ("locality KL", reports.SummaryMetric(LOCALITY)),
            ("words of other answers kept", reports.SummaryMetric(OTHERS)),
            ("other facts kept", reports.SummaryMetric(SPECIFICITY)),
            ("update norm", reports.SummaryMetric("edit/update_norm")),
        )
    ]
    trade = reports.ScatterPlot(
        title="Faithful success against locality KL",
        x=reports.SummaryMetric(LOCALITY),
        y=reports.SummaryMetric(SUCCESS),
        layout=reports.Layout(x=0, y=10, w=12, h=10),
    )
    comparer = reports.RunComparer(diff_only=True, layout=reports.Layout(x=12, y=10, w=12, h=10))
    parallel = reports.ParallelCoordinatesPlot(
        title="Every run", columns=columns, layout=reports.Layout(x=0, y=0, w=24, h=10)
    )
    return Section(
        "Overview",
        "Each run from its settings to its results. Up and to the left is better: what was to be "
        "written is written, and nothing else has moved.",
        [parallel, trade, comparer],
    )


def _grid() -> Section:
    return Section(
        GRID,
        "The means of the runs of each hierarchy and of each alignment.",
        [*bars(HIERARCHY), *bars(ALIGNMENT, row=1)],
    )


def bars(setting: str, row: int = 0) -> list[Any]:
    """Faithful success, locality and the subjects' other answers, a bar for each value."""
    reports = wandb_reports()
    shown = {"faithful success": SUCCESS, "locality KL": LOCALITY, "other answers kept": OTHERS}
    return [
        reports.BarPlot(
            title=f"{name} by {setting.rpartition('.')[2]}",
            metrics=[reports.SummaryMetric(metric)],
            groupby=reports.Config(setting),
            groupby_aggfunc="mean",
            groupby_rangefunc="stderr",
            layout=reports.Layout(x=8 * column, y=8 * row, w=8, h=8),
        )
        for column, (name, metric) in enumerate(shown.items())
    ]


def _facts_per_subject() -> Section:
    curves = [
        _curve("facts_per_subject/faithful", "facts_per_subject", place, setting)
        for place, setting in enumerate((HIERARCHY, ALIGNMENT))
    ]
    return Section(
        "Facts per subject",
        "Faithful success by how many facts were written about the subject: where an edit of "
        "several facts breaks, it falls.",
        curves,
    )


def _geometry() -> Section:
    reports = wandb_reports()
    bars = [
        reports.BarPlot(
            title=title,
            metrics=[reports.SummaryMetric(metric)],
            groupby=reports.Config(ALIGNMENT),
            groupby_aggfunc="mean",
            layout=reports.Layout(x=8 * column, y=0, w=8, h=8),
        )
        for column, (title, metric) in enumerate(
            (
                ("D: how far queries land from the target", DEVIATION),
                ("R: how far they may", RADIUS),
                ("Agreement of D <= R with the answers", CERTIFICATE),
            )
        )
    ]
    figures = reports.MediaBrowser(
        title="Figures",
        media_keys=[f"figures/{name}" for name in FIGURES],
        num_columns=4,
        layout=reports.Layout(x=0, y=8, w=24, h=14),
    )
    return Section(
        "Geometry",
        "A query is answered where the edited model lands within the radius that the target "
        "tolerates.",
        [*bars, figures],
    )


def _optimisation() -> Section:
    names = ("fact/loss", "fact/kl", "fact/norm", "subject/loss", "subject/kl", "subject/norm")
    curves = [
        _curve(name, f"{name.partition('/')[0]}/step", place) for place, name in enumerate(names)
    ]
    layers = [
        _curve(f"layer/{name}", "layer", len(names) + place)
        for place, name in enumerate(("residual", "update_norm"))
    ]
    return Section(
        "Optimisation",
        "Both levels of the integration, and what each layer took on.",
        curves + layers,
    )


def _tables() -> Section:
    reports = wandb_reports()
    return Section(
        "Tables",
        "Every query with its answers before and after the edit.",
        [
            reports.WeavePanelSummaryTable(
                table_name=name, layout=reports.Layout(x=0, y=12 * place, w=24, h=12)
            )
            for place, name in enumerate(TABLES)
        ],
    )


def _curve(metric: str, axis: str, place: int, setting: str | None = None) -> Any:
    """A curve per run, or the mean per value of a setting; three to a row."""
    reports = wandb_reports()
    grouped = {} if setting is None else {"groupby": reports.Config(setting)}
    by = "" if setting is None else f" by {setting.rpartition('.')[2]}"
    return reports.LinePlot(
        title=metric + by,
        x=reports.Metric(axis),
        y=[reports.Metric(metric)],
        layout=reports.Layout(x=8 * (place % 3), y=8 * (place // 3), w=8, h=8),
        **grouped,
    )
