"""The words of a command, checked one by one: keys, choices, and what must be installed."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from os.path import abspath
from typing import Any

from rose_easyedit.errors import RoSEError, first_line, shown
from rose_easyedit.experiment.keys import dotted_keys, nearest
from rose_easyedit.experiment.schema import ExperimentConfig

CANNOT_BE_RUN = "This experiment cannot be run:"
# Choice to the module that it needs, and the extra that brings it.
_PLUGINS = {
    ("launcher", "joblib"): ("hydra_plugins.hydra_joblib_launcher", "joblib"),
    ("launcher", "submitit_local"): ("hydra_plugins.hydra_submitit_launcher", "submitit"),
    ("launcher", "submitit_slurm"): ("hydra_plugins.hydra_submitit_launcher", "submitit"),
    ("launcher", "ray"): ("hydra_plugins.hydra_ray_launcher", "ray"),
    ("sweeper", "optuna"): ("hydra_plugins.hydra_optuna_sweeper", "optuna"),
    ("experiment", "pareto"): ("hydra_plugins.hydra_optuna_sweeper", "optuna"),
}

# Names below it are EasyEdit's, which differ from method to method; Hydra knows those of a method.
_OPEN = "easyedit.settings."


@contextmanager
def told_in_words(
    words: Sequence[str], loader: Any, config_dir: str | None = None
) -> Iterator[None]:
    """Makes an error of Hydra's one that names the faulty words, and what was most likely meant.

    Args:
        words: the overrides that are composed inside the block.
        loader: Hydra's loader of configurations, which knows the groups.
        config_dir: a folder with more groups, which it does not know.

    Raises:
        RoSEError: the words cannot be used.
    """
    from hydra.errors import HydraException, SearchPathException
    from omegaconf.errors import OmegaConfBaseException

    try:
        yield
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        if isinstance(error, SearchPathException):  # what else is wrong cannot be known
            raise RoSEError(f"{CANNOT_BE_RUN} {_first_words(error)}") from error
        more = [] if config_dir is None else [f'hydra.searchpath=["file://{abspath(config_dir)}"]']
        overrides, faults = _parsed([*words, *more], loader)
        faults = [*faults, *word_faults(overrides, loader)]
        if "--multirun" in str(error):
            several = [str(of.input_line) for of in overrides if of.is_sweep_override()]
            faults += [f"{word} gives several values; add -m to run each" for word in several]
        if faults:
            raise RoSEError.of(CANNOT_BE_RUN, faults) from error
        raise RoSEError(f"{CANNOT_BE_RUN} {_first_words(error)}") from error
    # which Hydra takes, and we do not
    if faults := word_faults(_parsed(words, loader)[0], loader):
        raise RoSEError.of(CANNOT_BE_RUN, faults)


def _parsed(words: Sequence[str], loader: Any) -> tuple[list[Any], list[str]]:
    """The words that Hydra can read, and why it cannot read the others."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import OverrideParseException

    parser = OverridesParser.create(config_loader=loader)
    overrides, faults = [], []
    for word in words:
        try:
            overrides += parser.parse_overrides([word])
        except OverrideParseException:
            key, _, value = word.partition("=")
            quoted = shlex.quote(f'{key}="{value}"')
            faults.append(
                f"{shown(word)} cannot be read; a value with = : , ( ) [ ] {{ }} or a quote in it "
                f"stands in quotes of its own: {quoted}"
            )
    return overrides, faults


def _first_words(error: BaseException) -> str:
    """An error of Hydra's and what caused it, without lists of search paths."""
    causes = [error] if error.__cause__ is None else [error, error.__cause__]
    return ": ".join(first_line(str(cause)).rstrip(".:") for cause in causes)


def word_faults(overrides: Iterable[Any], loader: Any) -> list[str]:
    """What is wrong with the words of a command, with what was most likely meant.

    Args:
        overrides: as Hydra's parser reads them.
        loader: Hydra's loader of configurations, which knows the groups.
    """
    overrides = list(overrides)
    settings = dotted_keys(ExperimentConfig)
    searched = [str(of.input_line) for of in overrides if of.key_or_group == "hydra.searchpath"]
    faults: list[str] = []
    for override in overrides:
        key = override.key_or_group
        if key.startswith(("hydra", _OPEN)):
            continue
        options = _options(key, loader, searched)
        if options and not _is_group_value(override):
            faults += _choice_faults(key, override, options)
        elif not options and key not in settings:
            groups = [name for name in loader.list_groups("") if name != "hydra"]
            meant = nearest(key, [*groups, *settings])
            faults.append(f"{key} is not a setting; did you mean {meant}?")
    return faults


def _choice_faults(group: str, override: Any, options: Sequence[str]) -> Iterator[str]:
    for choice in _choices(override):
        if choice == "null":
            yield f"{group}=null chooses nothing; leave it out, or choose of {', '.join(options)}"
        elif choice not in options:
            yield (
                f"{group}={choice} does not exist; did you mean {group}="
                f"{nearest(str(choice), options)}? (There are {', '.join(options)}.)"
            )
        elif (group, choice) in _PLUGINS:
            module, extra = _PLUGINS[group, choice]
            if not _installed(module):
                yield f"{group}={choice} needs an extra: pip install 'rose-easyedit[{extra}]'"


def _options(group: str, loader: Any, searched: list[str]) -> list[str]:
    """What a group has to choose from, that of the groups in it by `group/choice`.

    Args:
        group: its name; of what is none there are no options.
        loader: Hydra's.
        searched: the word that names more folders, if there is one.
    """
    inner = [
        f"{name}/{option}"
        for name in loader.list_groups(group)
        for option in _options(f"{group}/{name}", loader, searched)
    ]
    return [*loader.get_group_options(group, overrides=searched), *inner]


def _choices(override: Any) -> Sequence[str]:
    if override.is_delete():
        return []
    if override.is_discrete_sweep():
        return list(override.sweep_string_iterator())
    return [] if override.is_sweep_override() else [override.get_value_element_as_str()]


def _is_group_value(override: Any) -> bool:
    """`data={subjects: 3}` sets values of a group, and chooses none."""
    return isinstance(override.value(), dict)


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
