"""What an edit says of where it comes from: typed, with a version, and read from any file's record.

No entry is certain to be there: an edit that was made elsewhere has none, and earlier versions did
not write all of them. What a record has beside those of this version is kept.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from rose_easyedit.errors import RoSEError, shown
from rose_easyedit.requests import EditRequest

# Of what `as_dict` gives. A record without a version is of 0.1.0, which wrote none.
VERSION = 1

_MAPPINGS = ("hparams", "versions", "curves", "template_arguments", "calibration")
_TEXTS = ("architecture", "dtype")
_NOTHING: tuple[Any, ...] = (None, [], (), {})
_OF_LAYER = ("layer", "residual", "update_norm", "rounding_loss")
_OF_FACT = ("reached", "least_reached", "written", "answered")
_OF_DRIFT = ("kl", "top1", "prompts")
_LIMITS = ("most_loss", "least_reached", "most_drift", "most_neighbour_drift")
_REPLACED = ("subject", "prompt", "old", "new")


@dataclass(frozen=True)
class LayerReport:
    """What an edit says of one of its layers.

    Attributes:
        layer: its number.
        residual: the length of what the columns lacked before it, over the layers still to come, in
            units of the scale.
        update_norm: of the update.
        rounding_loss: relative error of the update's effect as the weight's type stores it.
        columns: how many there were; None where an earlier version did not say.
    """

    layer: int
    residual: float
    update_norm: float
    rounding_loss: float
    columns: int | None = None


@dataclass(frozen=True)
class SelfCheckRecord:
    """What an edit's check of itself found when it was made.

    Attributes:
        facts: of each request, the measures of `self_check.CheckedFact`; None in place of a number
            that is not finite.
        drift: of "generic" texts and of "neighbours", the measures of `self_check.Drift`.
        limits: what was no damage (`SelfCheckHyperParams`).
        warnings: a text for each sort of damage.
    """

    facts: Sequence[Mapping[str, Any]]
    drift: Mapping[str, Mapping[str, Any]]
    limits: Mapping[str, Any]
    warnings: Sequence[str]


@dataclass(frozen=True)
class Provenance:
    """What an edit says of itself; None, or empty, where it does not.

    Attributes:
        requests: the facts, as plain data (`EditRequest.as_dict`).
        hparams: the settings, as plain data.
        architecture: the family of the base model.
        dtype: of its weights.
        groups: the requests that share each target, by index.
        losses: the last loss of each request in stage 1, nats per target token.
        steps: that each group took.
        curves: of each level of the optimisation (`trajectory.curve_of`).
        layers: what was found of each edited layer.
        log: what was left out or changed, for the reader.
        versions: of Python, this package, torch and transformers.
        template_arguments: what the chat template was told.
        disturbance: how far the updates move the preserved columns; None without any.
        calibration: what a locality budget did (`calibration.Calibration`).
        self_check: what the edit's check of itself found.
        replaced: facts whose targets have changed since the edit was begun, with both.
        others: entries of the record that this version does not know.
    """

    requests: Sequence[Mapping[str, Any]] = field(default_factory=list)
    hparams: Mapping[str, Any] = field(default_factory=dict)
    architecture: str | None = None
    dtype: str | None = None
    groups: Sequence[Sequence[int]] = field(default_factory=list)
    losses: Sequence[float] = field(default_factory=list)
    steps: Sequence[int] = field(default_factory=list)
    curves: Mapping[str, Mapping[str, Sequence[float | None]]] = field(default_factory=dict)
    layers: Sequence[LayerReport] = field(default_factory=list)
    log: Sequence[str] = field(default_factory=list)
    versions: Mapping[str, str] = field(default_factory=dict)
    template_arguments: Mapping[str, Any] = field(default_factory=dict)
    disturbance: float | None = None
    calibration: Mapping[str, float] | None = None
    self_check: SelfCheckRecord | None = None
    replaced: Sequence[Mapping[str, str]] = field(default_factory=list)
    others: Mapping[str, Any] = field(default_factory=dict)

    def missing(self, names: Sequence[str]) -> list[str]:
        """Which of some entries are not on record."""
        return [name for name in names if not getattr(self, name)]

    def as_dict(self) -> dict[str, Any]:
        """Plain data, with the version; what is not on record is left out."""
        known = {name: getattr(self, name) for name in _names(Provenance) if name != "others"}
        known["layers"] = [asdict(layer) for layer in self.layers]
        if self.self_check is not None:
            known["self_check"] = asdict(self.self_check)
        said = {name: value for name, value in known.items() if value not in _NOTHING}
        return {**self.others, **said, "version": VERSION}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Provenance:
        """What plain data of this version or an earlier one says.

        Raises:
            RoSEError: with every entry that is of another type than an edit's.
        """
        if faults := provenance_faults(record):
            raise RoSEError.of("What the edit says of itself cannot be read:", faults)
        names = [name for name in _names(cls) if name != "others"]
        known = _only(record, names)
        known["layers"] = [
            LayerReport(**_only(e, _names(LayerReport))) for e in record.get("layers", [])
        ]
        if checked := record.get("self_check"):
            known["self_check"] = SelfCheckRecord(**_only(checked, _names(SelfCheckRecord)))
        others = {n: value for n, value in record.items() if n not in (*names, "version")}
        return cls(**known, others=others)


def _names(kind: type[Any]) -> list[str]:
    return [each.name for each in fields(kind)]


def _only(record: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: record[name] for name in names if name in record}


def provenance_faults(record: Mapping[str, Any]) -> list[str]:
    """Every entry of a record that is of another type than an edit's; all may be missing."""
    faults: list[str] = []
    version = record.get("version", 0)
    known = isinstance(version, int) and 0 <= version <= VERSION
    faults += _fault(
        record, "version", known, f"a number up to {VERSION}, as this version of the package reads"
    )
    for name in _MAPPINGS:
        faults += _fault(record, name, isinstance(record.get(name, {}), dict), "a mapping")
    for name in _TEXTS:
        faults += _fault(record, name, isinstance(record.get(name, ""), str), "text")
    disturbance = record.get("disturbance")
    faults += _fault(
        record, "disturbance", isinstance(disturbance, (int, float, type(None))), "a number"
    )
    faults += _fault(record, "log", _is_list(record.get("log", []), str), "a list of texts")
    layers = record.get("layers", [])
    right = _is_list(layers, dict) and all(
        _has_numbers(layer, _OF_LAYER) and None not in map(layer.get, _OF_LAYER) for layer in layers
    )
    faults += _fault(record, "layers", right, f"a list of mappings with {', '.join(_OF_LAYER)}")
    replaced = record.get("replaced", [])
    right = _is_list(replaced, dict) and all(
        isinstance(change.get(name), str) for change in replaced for name in _REPLACED
    )
    faults += _fault(record, "replaced", right, f"a list of mappings with {', '.join(_REPLACED)}")
    # `${...}` is a reference to the reader's own environment, not a value
    if "${" in json.dumps(record.get("hparams", {})):
        faults.append("hparams holds a reference (`${...}`) in place of a value")
    return faults + _faults_of_requests(record)


def _faults_of_requests(record: Mapping[str, Any]) -> list[str]:
    """What is wrong with the requests, and with what is said of each of them."""
    faults: list[str] = []
    requests = record.get("requests", [])
    if not _is_list(requests, dict):
        faults += _fault(record, "requests", False, "a list of mappings")
        return faults
    for index, request in enumerate(requests):
        try:
            EditRequest.from_mapping(request)
        except RoSEError as error:
            faults.append(f"request {index}: {error}")
    losses = record.get("losses", [])
    right = _is_list(losses, (int, float, type(None))) and len(losses) in (0, len(requests))
    right = right and not any(isinstance(loss, int) and abs(loss) > 10**9 for loss in losses)
    faults += _fault(record, "losses", right, f"{len(requests)} numbers, one for each request")
    n_losses = len(losses) if isinstance(losses, list) else 0
    faults += _self_check_faults(record.get("self_check"), len(requests), n_losses)
    groups = record.get("groups", [])
    right = _is_list(groups, list) and all(_are_places(group, len(requests)) for group in groups)
    faults += _fault(record, "groups", right, f"lists of request numbers below {len(requests)}")
    steps = record.get("steps", [])
    right = _is_list(steps, int) and isinstance(groups, list) and len(steps) in (0, len(groups))
    faults += _fault(record, "steps", right, "whole numbers, one for each group")
    return faults


def _fault(record: Mapping[str, Any], name: str, right: bool, wanted: str) -> list[str]:
    return [] if right else [f"{name} is {shown(record[name])}, not {wanted}"]


def _self_check_faults(checked: Any, n_requests: int, n_losses: int) -> list[str]:
    """What is wrong with what an edit says that its check of itself found, if it says so."""
    if checked is None:
        return []
    right = isinstance(checked, dict) and _is_list(checked.get("warnings"), str)
    if right:
        facts, drift, limits = (checked.get(name) for name in ("facts", "drift", "limits"))
        right = (
            _is_list(facts, dict)
            and len(facts) == n_requests == n_losses
            and all(_has_numbers(fact, _OF_FACT) for fact in facts)
            and isinstance(drift, dict)
            and drift.keys() <= {"generic", "neighbours"}
            and all(_has_numbers(found, _OF_DRIFT) for found in drift.values())
            and all(found["top1"] is not None for found in drift.values())
            and _has_numbers(limits, _LIMITS)
            and None not in limits.values()
        )
    return [] if right else [f"self_check is {shown(checked)}, not what an edit says of itself"]


def _has_numbers(value: Any, names: Sequence[str]) -> bool:
    """Whether a value is a mapping with numbers, or None, of these names."""
    return isinstance(value, dict) and all(
        name in value
        and isinstance(value[name], (int, float, type(None)))
        and not (isinstance(value[name], int) and abs(value[name]) > 10**9)
        for name in names
    )


def _is_list(value: Any, of: type | tuple[type, ...]) -> bool:
    return isinstance(value, list) and all(isinstance(item, of) for item in value)


def _are_places(group: Any, count: int) -> bool:
    return _is_list(group, int) and all(0 <= index < count for index in group)
