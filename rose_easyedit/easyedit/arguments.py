"""What a call of EasyEdit's editor asks for: checked before it, and nothing ignored in silence."""

from __future__ import annotations

import difflib
import inspect
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rose_easyedit.errors import RoSEError
from rose_easyedit.requests import check_batches

Arguments = dict[str, Any]

# One or a list, one for each prompt.
_OF_A_PROMPT = ("target_new", "subject", "ground_truth", "rephrase_prompts", "target_neg")
# By name, prompts and answers, one of each for each prompt; what the PyPI release calls them, too.
_INPUTS = ("locality_inputs", "portability_inputs", "locality_prompts", "locality_ground_truth")
# What EasyEdit hands to other methods than RoSE.
_OF_OTHER_METHODS = ("target_neg", "loc_prompts", "train_ds")
# EasyEdit's two words for one thing: the model is restored, or the edits stay in it.
_ORIGINAL = ("keep_original_weight", "keep_original_weights")
_SEQUENTIAL = "sequential_edit"

# How EasyEdit's methods read what they take by `**kwargs`, and hand it on.
_READ = re.compile(r"""kwargs(?:\[|\.(?:pop|get)\()['"](\w+)|['"](\w+)['"] in kwargs""")
_HANDED_ON = re.compile(r"(\w+)\([^()]*\*\*kwargs")


def takes(function: Callable[..., Any], name: str) -> bool:
    """Whether a function can be given an argument of this name."""
    parameters = inspect.signature(function).parameters
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def flat(bound: inspect.BoundArguments) -> Arguments:
    """The arguments of a call by name, also those that are taken by `**kwargs`."""
    rest = [p.name for p in bound.signature.parameters.values() if p.kind is p.VAR_KEYWORD]
    found = {name: value for name, value in bound.arguments.items() if name not in rest}
    return found | {
        key: each for name in rest for key, each in bound.arguments.get(name, {}).items()
    }


def edits_stay(given: Mapping[str, Any]) -> bool:
    """Whether the model keeps its edits after the call.

    `sequential_edit=True` says so, and so does `keep_original_weight=False`; by default, whatever
    that of the host is, the model is restored.

    Raises:
        RoSEError: the two contradict each other.
    """
    said = {name: bool(given[name]) for name in (_SEQUENTIAL, *_ORIGINAL) if name in given}
    stay = {name: value == (name == _SEQUENTIAL) for name, value in said.items()}
    if len(set(stay.values())) > 1:
        words = " and ".join(f"{name}={value}" for name, value in said.items())
        raise RoSEError(
            f"{words} contradict each other: sequential_edit=True and keep_original_weight=False "
            "let the edits stay in the model, their opposites take them back; give one."
        )
    return next(iter(stay.values()), False)


def without_words_of_restoring(host_method: Callable[..., Any], given: Arguments) -> Arguments:
    """The arguments without those of `edits_stay` that the host has no parameter for."""
    parameters = inspect.signature(host_method).parameters
    words = (_SEQUENTIAL, *_ORIGINAL)
    return {name: v for name, v in given.items() if name not in words or name in parameters}


def listed(given: Arguments) -> Arguments:
    """The arguments with a list in place of each that may be one text or one for each prompt.

    EasyEdit takes the letters of a text for prompts in some of its methods.
    """
    some = ("prompts", *_OF_A_PROMPT)
    return {
        name: [value] if name in some and isinstance(value, str) else value
        for name, value in given.items()
    }


def check_requests(call: str, given: Mapping[str, Any], at_once: int | None) -> None:
    """Refuses a call whose requests cannot be written, before anything is computed.

    Args:
        call: the method's name.
        given: its arguments, as `listed` gives them.
        at_once: how many requests are one edit; None is all of them.

    Raises:
        RoSEError: with every argument that does not fit the prompts; if all do, with all faults
            of all requests, each with its index.
    """
    records = _records(call, given)
    size = at_once or max(len(records), 1)
    check_batches([records[i : i + size] for i in range(0, len(records), size)])


def warn_of_ignored(host_method: Callable[..., Any], host: type, given: Mapping[str, Any]) -> None:
    """Warns of each argument that neither RoSE nor this version of EasyEdit makes use of."""
    known = _names_read(host_method, host)
    for name, value in given.items():
        if name in _OF_OTHER_METHODS and value is not None:
            reason = "EasyEdit hands it to other methods, and RoSE has no use for it"
        elif known is not None and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            reason = f"EasyEdit's {host_method.__name__} does not read it" + (
                f"; did you mean {near[0]}?" if near else ""
            )
        else:
            continue
        warnings.warn(f"{name} is ignored: {reason}", stacklevel=3)


def _records(call: str, given: Mapping[str, Any]) -> Sequence[Any]:
    if given.get("requests") is not None:
        return list(given["requests"])
    if (dataset := given.get("ds")) is not None:
        return [dataset[place] for place in range(len(dataset))]
    prompts = given.get("prompts") or []
    if faults := list(_lengths(given, len(prompts))):
        raise RoSEError.of(f"The arguments of {call} cannot be used:", faults)
    columns = {
        "prompt": prompts,
        "subject": given.get("subject"),
        "target_new": given["target_new"],
    }
    there = {name: column for name, column in columns.items() if column is not None}
    return [dict(zip(there, row, strict=True)) for row in zip(*there.values(), strict=True)]


def _lengths(given: Mapping[str, Any], n_prompts: int) -> Iterator[str]:
    """Every argument that has not one entry for each prompt."""
    columns = [(name, given.get(name)) for name in _OF_A_PROMPT]
    for name in _INPUTS:
        inputs = given.get(name)
        for key, pair in inputs.items() if isinstance(inputs, Mapping) else ():
            columns += [(f"{name}[{key!r}][{part!r}]", pair.get(part)) for part in pair]
    for name, column in columns:
        number = 1 if isinstance(column, str) else n_prompts if column is None else len(column)
        if number != n_prompts:
            yield f"{name} has {number} entries for {n_prompts} prompts; give one for each"


def _names_read(host_method: Callable[..., Any], host: type) -> set[str] | None:
    """The arguments that a method of the host knows, by its source; None without a source."""
    names: set[str] = set()
    pending: list[Any] = [host_method]
    seen: set[Any] = set()
    while pending:
        function = pending.pop()
        if function in seen or not inspect.isfunction(function):
            continue
        seen.add(function)
        try:
            source = inspect.getsource(function)
        except OSError:
            return None
        names.update(inspect.signature(function).parameters)
        names.update(one or other for one, other in _READ.findall(source))
        for called in _HANDED_ON.findall(source):
            pending.append(getattr(host, called, function.__globals__.get(called)))
    return names
