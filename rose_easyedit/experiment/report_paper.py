"""The tables of a study of same-subject editing, in the order of arXiv 2603.15518.

They are of sweeps whose runs have measured the geometry of their edits: conditions, such as
methods, are compared over what is swept beside them, the facts per subject and the seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from statistics import fmean, stdev

from rose_easyedit.evaluation.facts import FORMS
from rose_easyedit.experiment.report_data import Sweep
from rose_easyedit.experiment.report_figures import INK, SOFT, Chart, Figure, axis, layout, safe
from rose_easyedit.experiment.report_geometry import RunGeometry
from rose_easyedit.experiment.report_settings import brief, setting, swept_keys, values_of
from rose_easyedit.experiment.summary_table import RunRow

FACTS, SEED = "data.facts_per_subject", "seed"
# Of Student's distribution, what 95% lie within, by the number of runs; of more, that of many.
_T = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}
_MANY = 1.96


@dataclass(frozen=True)
class PaperTable:
    """A table of the study.

    Attributes:
        title: what it answers.
        head: its columns.
        rows: its cells.
        chart: a picture of it; None if it has none.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    chart: Chart | None = None


@dataclass(frozen=True)
class _Mean:
    """The mean over runs, with how far it may be off: half of its 95% interval."""

    value: float
    off: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> _Mean:
        n = len(values)
        spread = stdev(values) * _T.get(n, _MANY) / n**0.5 if n > 1 else None
        return cls(fmean(values), spread)

    def text(self, digits: int) -> str:
        """The mean, and after \u00b1 how far it may be off."""
        off = "" if self.off is None else f" \u00b1 {self.off:.{digits}f}"
        return f"{self.value:.{digits}f}{off}"


_Read = Callable[[RunRow], float | None]


@dataclass(frozen=True)
class _Study:
    """The runs of a sweep that have a geometry, by what they compare."""

    sweep: Sweep
    rows: Sequence[RunRow]
    keys: Sequence[str]

    @property
    def conditions(self) -> list[tuple[str, ...]]:
        return list(dict.fromkeys(map(self.condition, self.rows)))

    @property
    def counts(self) -> list[str]:
        """How many facts a subject got, where that was swept."""
        return values_of(self.rows, FACTS) if FACTS in swept_keys(self.rows) else []

    @property
    def most(self) -> list[RunRow]:
        """The runs with the most facts of a subject, where a method is tried."""
        counts = self.counts
        return [row for row in self.rows if not counts or setting(row, FACTS) == counts[-1]]

    def condition(self, row: RunRow) -> tuple[str, ...]:
        return tuple(setting(row, key) for key in self.keys)

    def name(self, condition: tuple[str, ...]) -> str:
        return ", ".join(map(brief, condition)) or "all runs"

    def geometry(self, row: RunRow) -> RunGeometry:
        found = self.sweep.run(row).geometry
        assert found is not None
        return found

    def geometric(self, read: Callable[[RunGeometry], float | None]) -> _Read:
        """Reads a number of the geometry of a run's own edit."""
        return lambda row: read(self.geometry(row))

    def mean(self, rows: Sequence[RunRow], of: _Read) -> _Mean | None:
        values = [value for row in rows if (value := of(row)) is not None]
        return _Mean.of(values) if values else None

    def by_condition(
        self, rows: Sequence[RunRow], reads: Sequence[_Read]
    ) -> dict[str, list[_Mean | None]]:
        """Name of each condition to the mean of each number over its runs."""
        return {
            self.name(condition): [
                self.mean([row for row in rows if self.condition(row) == condition], read)
                for read in reads
            ]
            for condition in self.conditions
        }


def paper_tables(sweep: Sweep) -> list[PaperTable]:
    """The tables of a study, none if no run has measured its geometry."""
    rows = [row for row in sweep.done if sweep.run(row).geometry is not None]
    if not rows:
        return []
    keys = [key for key in swept_keys(rows) if key not in (FACTS, SEED)]
    study = _Study(sweep, rows, keys)
    tables = [_success(study), _distances(study), _conflict(study), _by_count(study)]
    return [table for table in tables if table.rows]


def _success(study: _Study) -> PaperTable:
    """Faithful success in every form, at the most facts per subject."""
    forms = [form for form in FORMS if any(form in row.metrics for row in study.most)]
    found = study.by_condition(study.most, [_metric(name) for name in (*forms, "kl")])
    most = f", {study.counts[-1]} facts per subject" if study.counts else ""
    rows = [
        [name, *(_text(mean, 2) for mean in means[:-1]), _text(means[-1], 3)]
        for name, means in found.items()
    ]
    chart = _bars(
        f"Faithful success by query form{most}",
        forms,
        {name: means[:-1] for name, means in found.items()},
        axis("faithful success (%)", tickformat=".0%", rangemode="tozero"),
    )
    head = ["", *forms, "KL of other prompts (nats)"]
    return PaperTable(f"1. Which query forms are answered{most}", head, rows, chart)


def _distances(study: _Study) -> PaperTable:
    """D against R: how far queries land from the target, and how far they may."""
    forms = list(dict.fromkeys(form for row in study.most for form in study.geometry(row).forms))
    reads = [
        *(study.geometric(_deviation_of(form)) for form in forms),
        study.geometric(lambda of: of.deviation),
        study.geometric(lambda of: of.radius),
        study.geometric(lambda of: of.accuracy),
    ]
    found = study.by_condition(study.most, reads)
    rows = [[name, *map(_text, means, [2] * len(means))] for name, means in found.items()]
    named = [*(f"D of {form}s" for form in forms), "D", "R"]
    chart = _bars(
        "Deviation D of queries, and the radius R that targets tolerate",
        named,
        {name: means[:-1] for name, means in found.items()},
        axis("distance in the hidden state", rangemode="tozero"),
    )
    head = ["", *named, "D <= R tells the answers"]
    return PaperTable("2. How far queries land (D), and how far they may (R)", head, rows, chart)


def _conflict(study: _Study) -> PaperTable:
    """Figures 3 and 4 of the paper: of the unedited model, the same whatever the method."""
    values = study.counts or [""]
    rows = []
    for value in values:
        chosen = [row for row in study.rows if not value or setting(row, FACTS) == value]
        conflict = study.mean(chosen, study.geometric(lambda of: of.conflict))
        within = study.mean(chosen, study.geometric(lambda of: of.within))
        across = study.mean(chosen, study.geometric(lambda of: of.across))
        rows.append([value or "all", *(_text(mean, 2) for mean in (conflict, within, across))])
    head = ["facts per subject", "conflict of facts", "keys within a subject", "keys across"]
    return PaperTable("3. Facts of a subject in conflict, and keys that are alike", head, rows)


def _by_count(study: _Study) -> PaperTable:
    """Success and damage by how many facts a subject got."""
    rows = []
    for condition in study.conditions:
        for value in study.counts:
            chosen = [
                row
                for row in study.rows
                if study.condition(row) == condition and setting(row, FACTS) == value
            ]
            reads = [
                _metric("asked"),
                _metric("statement"),
                study.geometric(lambda of: of.deviation),
                study.geometric(lambda of: of.radius),
                _metric("kl"),
            ]
            means = [study.mean(chosen, read) for read in reads]
            digits = (2, 2, 2, 2, 3)
            rows.append([study.name(condition), value, *map(_text, means, digits)])
    head = ["", "facts per subject", "questions and instructions", "statements", "D", "R", "KL"]
    return PaperTable("4. More facts about a subject", head, rows)


def _bars(
    title: str, groups: Sequence[str], found: Mapping[str, Sequence[_Mean | None]], y: Figure
) -> Chart:
    """A group of bars for each name, a bar for each condition, with its interval."""
    traces = [
        {
            "type": "bar",
            "uid": f"bar{number}",
            "name": safe(name),
            "x": list(map(safe, groups)),
            "y": [mean and mean.value for mean in means],
            "error_y": {
                "type": "data",
                "array": [mean.off if mean else None for mean in means],
                "color": INK,
            },
            "marker": {"color": f"var(--c{number % 7})", "line": {"color": SOFT, "width": 1}},
            "hovertemplate": f"{safe(name)}, %{{x}}: %{{y:.3f}}<extra></extra>",
        }
        for number, (name, means) in zip(count(), found.items(), strict=False)
    ]
    figure = {"data": traces, "layout": layout(axis(""), y, barmode="group")}
    return Chart(title, figure, height=400, least_width=560)


def _metric(name: str) -> _Read:
    """Reads a main metric of a run."""
    return lambda row: row.metrics.get(name)


def _deviation_of(form: str) -> Callable[[RunGeometry], float | None]:
    return lambda of: of.forms.get(form)


def _text(mean: _Mean | None, digits: int) -> str:
    return "" if mean is None else mean.text(digits)
