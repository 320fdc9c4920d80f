"""What an edit says of where it comes from: typed, with a version, and read from any file's record.

No entry is certain to be there: an edit that was made elsewhere has none, and earlier versions did
not write all of them. What a record has beside those of this version is kept. The types are looked
at where a record is read, not where an edit that is made fills one in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, TypeAdapter, ValidationInfo, with_config
from typing_extensions import TypedDict

from rose_easyedit.errors import RoSEError
from rose_easyedit.files.reading import REFERENCE
from rose_easyedit.files.validation import Flag, Number, Text, Whole, read_as, unlike, validated
from rose_easyedit.requests import EditRequest

# Of what `as_dict` gives. A record without a version is of 0.1.0, which wrote none.
VERSION = 1

_NOTHING: tuple[Any, ...] = (None, [], (), {})


def _readable(request: Mapping[str, Any]) -> Mapping[str, Any]:
    EditRequest.from_mapping(request)
    return request


def _without_references(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    # `${...}` is a reference to the reader's own environment, not a value
    if REFERENCE in json.dumps(settings):
        raise RoSEError("it holds a reference (`${...}`) in place of a value")
    return settings


def _known_version(version: int) -> int:
    if not 0 <= version <= VERSION:
        raise unlike(f"a number up to {VERSION}, as this version of the package reads")
    return version


def _place_of_request(place: int, info: ValidationInfo) -> int:
    count = _count(info, "requests", place + 1)
    if not 0 <= place < count:
        raise unlike(f"the number of a request, from 0 and below {count}")
    return place


def _one_for_each(name: str) -> AfterValidator:
    """Of a list: as many as the record has requests, or groups, or none at all."""

    def check(values: Sequence[Any], info: ValidationInfo) -> Sequence[Any]:
        count = _count(info, f"{name}s", len(values))
        if len(values) not in (0, count):
            raise unlike(f"a list of {count}, one for each {name}")
        return values

    return AfterValidator(check)


def _checked_facts(facts: Sequence[Any], info: ValidationInfo) -> Sequence[Any]:
    # they are shown beside what was learned
    if {_count(info, name, len(facts)) for name in ("requests", "losses")} != {len(facts)}:
        raise unlike("a list with one for each request and its loss")
    return facts


def _count(info: ValidationInfo, name: str, unknown: int) -> int:
    """How many the record has of something, as it came; `unknown` if that is no list.

    So a fault of one entry hides none of another.
    """
    found = (info.context or {}).get(name, [])
    return len(found) if isinstance(found, list | tuple) else unknown


# What a record must hold of these, and may hold more than.
@with_config(ConfigDict(extra="allow"))
class _Fact(TypedDict):
    reached: Number | None
    least_reached: Number | None
    written: Number | None
    answered: Flag | None


@with_config(ConfigDict(extra="allow"))
class _Drift(TypedDict):
    kl: Number | None
    top1: Number
    prompts: Whole | None


@with_config(ConfigDict(extra="forbid"))
class _Drifts(TypedDict, total=False):
    generic: _Drift
    neighbours: _Drift


@with_config(ConfigDict(extra="allow"))
class _Limits(TypedDict):
    most_loss: Number
    least_reached: Number
    most_drift: Number
    most_neighbour_drift: Number


@with_config(ConfigDict(extra="allow"))
class _Replaced(TypedDict):
    subject: Text
    prompt: Text
    old: Text
    new: Text


_Request = Annotated[Mapping[str, Any], AfterValidator(_readable)]
_Settings = Annotated[Mapping[str, Any], AfterValidator(_without_references)]
_Place = Annotated[Whole, AfterValidator(_place_of_request)]
_Version = Annotated[Whole, AfterValidator(_known_version)]
_FactMeasures = Annotated[Mapping[str, Any], read_as(_Fact)]
_Change = Annotated[Mapping[str, str], read_as(_Replaced)]


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

    layer: Whole
    residual: Number
    update_norm: Number
    rounding_loss: Number
    columns: Whole | None = None


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

    facts: Annotated[Sequence[_FactMeasures], AfterValidator(_checked_facts)]
    drift: Annotated[Mapping[str, Mapping[str, Any]], read_as(_Drifts)]
    limits: Annotated[Mapping[str, Any], read_as(_Limits)]
    warnings: Sequence[Text]


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
        version: of the record that it was read from.
    """

    requests: Sequence[_Request] = field(default_factory=list)
    hparams: _Settings = field(default_factory=dict)
    architecture: Text | None = None
    dtype: Text | None = None
    groups: Sequence[Sequence[_Place]] = field(default_factory=list)
    losses: Annotated[Sequence[Number], _one_for_each("request")] = field(default_factory=list)
    steps: Annotated[Sequence[Whole], _one_for_each("group")] = field(default_factory=list)
    curves: Mapping[str, Mapping[str, Sequence[Number | None]]] = field(default_factory=dict)
    layers: Sequence[LayerReport] = field(default_factory=list)
    log: Sequence[Text] = field(default_factory=list)
    versions: Mapping[str, Text] = field(default_factory=dict)
    template_arguments: Mapping[str, Any] = field(default_factory=dict)
    disturbance: Number | None = None
    calibration: Mapping[str, Number] | None = None
    self_check: SelfCheckRecord | None = None
    replaced: Sequence[_Change] = field(default_factory=list)
    others: Mapping[str, Any] = field(default_factory=dict)
    version: _Version = VERSION

    def missing(self, names: Sequence[str]) -> list[str]:
        """Which of some entries are not on record."""
        return [name for name in names if not getattr(self, name)]

    def as_dict(self) -> dict[str, Any]:
        """Plain data, with the version; what is not on record is left out."""
        known = {each.name: getattr(self, each.name) for each in fields(self)}
        others = known.pop("others")
        known["layers"] = [asdict(layer) for layer in self.layers]
        if self.self_check is not None:
            known["self_check"] = asdict(self.self_check)
        said = {name: value for name, value in known.items() if value not in _NOTHING}
        return {**others, **said, "version": VERSION}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Provenance:
        """What plain data of this version or an earlier one says.

        Raises:
            RoSEError: with every entry that is of another type than an edit's.
        """
        names = {each.name for each in fields(cls)} - {"others"}
        entries = {name: value for name, value in record.items() if name in names}
        others = {name: value for name, value in record.items() if name not in names}
        title = "What the edit says of itself cannot be read:"
        return validated(_READER, {**entries, "others": others}, title, context=record)


_READER = TypeAdapter(Provenance)
