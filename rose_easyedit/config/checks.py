"""What is wrong with settings: one by one, and those of an edit together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rose_easyedit.config.rules import is_series, setting_fault
from rose_easyedit.errors import shown

if TYPE_CHECKING:
    from rose_easyedit.config.hparams import RoSEHyperParams


def setting_faults(settings: Any, prefix: str = "") -> list[str]:
    """Every setting that is not what it is declared to be, with its value and what would do.

    Args:
        settings: a group of settings; inner groups are not looked into.
        prefix: of the names.
    """
    return [
        setting_fault(settings, name, getattr(settings, name), prefix) for name in unfit(settings)
    ]


def unfit(settings: Any) -> list[str]:
    """The names of the settings of one group with another type or value than declared."""
    # here, since its import takes as long as the rest of a command's start
    from rose_easyedit.config.reader import unfit_fields

    return unfit_fields(settings)


# Settings that are compared with each other, beside the layers.
_COMPARED = frozenset({"z_layer", "model_parallel", "contexts"})


def hparams_faults(hparams: RoSEHyperParams) -> list[str]:
    """Every fault, with the setting's name, its value and what would do.

    How some go together is looked at where each of those will do.
    """
    groups = {
        "": hparams,
        "hierarchy.": hparams.hierarchy,
        "alignment.": hparams.alignment,
        "self_check.": hparams.self_check,
    }
    of_layers = layers_faults(hparams.layers)
    faults = of_layers + [
        fault for name, group in groups.items() for fault in setting_faults(group, name)
    ]
    if of_layers or _COMPARED.intersection(unfit(hparams)):
        return faults
    return faults + _combination_faults(hparams)


def layers_faults(layers: Any) -> list[str]:
    """What is neither a list of layers nor "auto"."""
    is_list = is_series(layers) and all(type(layer) is int for layer in layers)
    if is_list or layers == "auto":
        return []
    return [f"layers is {shown(layers)}; give a list of whole numbers, or auto"]


def _combination_faults(hparams: RoSEHyperParams) -> list[str]:
    faults = []
    layers = [] if hparams.layers == "auto" else list(hparams.layers)
    if hparams.layers == "auto" and hparams.z_layer is not None:
        faults.append(f"z_layer is {hparams.z_layer}, but layers is auto; leave z_layer null")
    elif hparams.layers != "auto" and not layers:
        faults.append("layers is empty; name the layers to edit, or write auto")
    elif layers != sorted(set(layers)) or layers and layers[0] < 0:
        faults.append(f"layers is {layers}; list different layers, 0 or more, in order")
    if layers and hparams.z_layer is not None and hparams.z_layer < layers[-1]:
        faults.append(
            f"z_layer is {hparams.z_layer}, before the last edited layer {layers[-1]}; "
            "leave it null or set it to that layer or a later one"
        )
    if hparams.model_parallel:
        faults.append(
            "model_parallel is true; the layers after z_layer are replayed on one device, so put "
            "the model on one device (device: cpu works for any size)"
        )
    if hparams.contexts is not None and not hparams.contexts:
        faults.append(
            'contexts is an empty list; leave it null or give prefixes ("" is the bare one)'
        )
    return faults
