"""The words of a command, checked one by one: keys, choices, and what must be installed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from typing import Any

from rose_easyedit.experiment.keys import dotted_keys, nearest
from rose_easyedit.experiment.schema import ExperimentConfig

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


def word_faults(overrides: Iterable[Any], loader: Any) -> list[str]:
    """What is wrong with the words of a command, with what was most likely meant.

    Args:
        overrides: as Hydra's parser reads them.
        loader: Hydra's loader of configurations, which knows the groups.
    """
    groups = [name for name in loader.list_groups("") if name != "hydra"]
    settings = dotted_keys(ExperimentConfig)
    faults = []
    for override in overrides:
        key = override.key_or_group
        if key.startswith("hydra"):
            continue
        if key.startswith(_OPEN):
            continue
        if key not in settings and key not in groups:
            meant = nearest(key, [*groups, *settings])
            faults.append(f"{key} is not a setting; did you mean {meant}?")
        elif key in groups and not _is_group_value(override):
            faults += _choice_faults(key, override, loader)
    return faults


def _choice_faults(group: str, override: Any, loader: Any) -> Iterator[str]:
    options = _options(group, loader)
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


def _options(group: str, loader: Any) -> list[str]:
    """What a group has to choose from, that of the groups in it by `group/choice`."""
    inner = [
        f"{name}/{option}"
        for name in loader.list_groups(group)
        for option in _options(f"{group}/{name}", loader)
    ]
    return [*loader.get_group_options(group), *inner]


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
