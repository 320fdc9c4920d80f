"""Settings of the right types from what a file or a caller says, or every fault of it together."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

from rose_easyedit.config.former_names import with_present_names
from rose_easyedit.config.other_methods import RENAMED, of_another_method
from rose_easyedit.config.rules import setting_fault
from rose_easyedit.errors import RoSEError, first_line, shown
from rose_easyedit.files.reading import REFERENCE

logger = logging.getLogger(__name__)

# How like a name must be, of 1, to be what was meant.
_NEAR = 0.6

UNUSABLE = "These RoSE settings cannot be used:"

Schema = type[Any]
Groups = Mapping[str, Schema]


def typed(schema: Schema, groups: Groups, layers: Sequence[Mapping[str, Any]]) -> Any:
    """Settings from nested data, each layer on top of those before it.

    Args:
        schema: the dataclass of all settings.
        groups: those of its fields that are groups of settings.
        layers: what was given.

    Raises:
        RoSEError: with every key that there is not (and the nearest there is); if there are all,
            with every value that is not what its setting takes. A reference (`${...}`), to the
            environment of whoever reads it, say, is no value.
    """
    from omegaconf.errors import OmegaConfBaseException

    renamed = [with_present_names(layer) for layer in layers]
    for told in dict.fromkeys(line for _, lines in renamed for line in lines):
        logger.warning("%s; the former name works until the next release", told)
    layers = [layer for layer, _ in renamed]
    known = [f.name for f in fields(schema)]
    others = [fault for layer in layers if (fault := of_another_method(layer, known))]
    faults = others or [
        fault
        for layer in layers
        for fault in (*key_faults(layer, schema, groups), *_reference_faults(layer))
    ]
    if faults:
        raise RoSEError.of(UNUSABLE, faults)
    try:
        return _merged(schema, layers)
    except OmegaConfBaseException as error:
        read = [_readable(layer, schema, groups) for layer in layers]
        faults = [fault for _, unread in read for fault in unread]
        try:
            _merged(schema, [values for values, _ in read])
        except RoSEError as others_too:
            faults += others_too.faults
        raise RoSEError.of(UNUSABLE, faults or [first_line(str(error))]) from error


def _merged(schema: Schema, layers: Sequence[Mapping[str, Any]]) -> Any:
    from omegaconf import OmegaConf

    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), *map(dict, layers)))


def key_faults(values: Mapping[str, Any], schema: Schema, groups: Groups) -> list[str]:
    """Every key that is no setting, and every group that is none."""
    of_groups = {f.name: f"{name}.{f.name}" for name, of in groups.items() for f in fields(of)}
    faults = _unknown_in(values, schema, "", of_groups | RENAMED)
    for name, group_schema in groups.items():
        group = values.get(name, {})
        if isinstance(group, Mapping):
            faults += _unknown_in(group, group_schema, f"{name}.")
        elif not isinstance(group, group_schema):
            faults.append(f"{name} is {group!r}; give a group of settings (`key: value`)")
    return faults


def _unknown_in(
    values: Mapping[str, Any],
    schema: Schema,
    prefix: str,
    elsewhere: Mapping[str, str] | None = None,
) -> list[str]:
    """Every key that the schema does not have, with the one that is meant: elsewhere, or near."""
    known = [f.name for f in fields(schema)]
    named = {name: f"{prefix}{name}" for name in known} | dict(elsewhere or {})
    faults = []
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(str(key), named, n=1, cutoff=_NEAR)
            meant = named[near[0]] if near else None
            advice = f"did you mean {meant}?" if meant else f"there are {', '.join(known)}"
            faults.append(f"{prefix}{key} is not a setting; {advice}")
    return faults


def _reference_faults(values: Mapping[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        if REFERENCE in str(value):
            yield f"{name} is {shown(value)}, which refers to something else; give the value itself"


def _readable(
    values: Mapping[str, Any], schema: Schema, groups: Groups, prefix: str = ""
) -> tuple[dict[str, Any], list[str]]:
    """The values that can be what their settings are, each taken alone; and what of the others."""
    from omegaconf import OmegaConf

    of_groups = {
        name: _readable(value, groups[name], {}, f"{name}.")
        for name, value in values.items()
        if name in groups and isinstance(value, Mapping)
    }
    own = {name: value for name, value in values.items() if name not in of_groups}
    wrong = set(_unreadable(own, OmegaConf.structured(schema)))
    read, faults = {}, []
    for name, value in values.items():
        if name in of_groups:
            read[name], of_group = of_groups[name]
            faults += of_group
        elif name in wrong:
            faults.append(setting_fault(schema, name, value, prefix))
        else:
            read[name] = value
    return read, faults


def _unreadable(values: Mapping[str, Any], start: Any) -> list[str]:
    """Which values a structured configuration does not take, found by halves: a try takes long."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        OmegaConf.merge(start, dict(values))
        return []
    except OmegaConfBaseException:
        names = list(values)
        if len(names) == 1:
            return names
        parts = names[: len(names) // 2], names[len(names) // 2 :]
        return [
            wrong for part in parts for wrong in _unreadable({n: values[n] for n in part}, start)
        ]
