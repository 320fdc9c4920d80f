"""Which values of the settings make sense, one by one and together."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from operator import ge
from typing import TYPE_CHECKING, Any

from rose_easyedit.config.types import is_series, type_faults
from rose_easyedit.errors import shown

if TYPE_CHECKING:
    from rose_easyedit.config.hparams import RoSEHyperParams

INTEGRATIONS = ("hierarchical", "joint", "independent")
CONSTRAINTS = (
    "protected",
    "identity",
    "shrinkage",
    "covariance",
    "null_space",
)
KEY_COLUMNS = ("per_query", "merged")
PRECISIONS = ("auto", "bfloat16", "weights")
TRACKING = ("auto", "none")
ON_FAILURE = ("refuse", "leave_out")
ON_DAMAGE = ("warn", "refuse")

# How many there are of each in method/contexts.py.
MOST_FORMS = {
    "n_contexts": 8,
    "chat_contexts": 4,
    "answered_queries": 2,
    "restatements": 4,
    "query_formats": 6,
    "kept_queries": 5,
}


def settings_faults(hparams: RoSEHyperParams) -> list[str]:
    """Every fault, with the setting's name, its value and what would do.

    Values are looked at where all are of the right type, so that they can be compared.
    """
    faults = [
        *layers_faults(hparams.layers),
        *type_faults(hparams),
        *type_faults(hparams.hierarchy, "hierarchy."),
        *type_faults(hparams.alignment, "alignment."),
        *type_faults(hparams.self_check, "self_check."),
    ]
    return faults or [*_value_faults(hparams), *_combination_faults(hparams)]


def layers_faults(layers: Any) -> list[str]:
    """What is neither a list of layers nor "auto"."""
    is_list = is_series(layers) and all(type(layer) is int for layer in layers)
    if is_list or layers == "auto":
        return []
    return [f"layers is {shown(layers)}; give a list of whole numbers, or auto"]


def _value_faults(hparams: RoSEHyperParams) -> list[str]:
    hierarchy, alignment, check = hparams.hierarchy, hparams.alignment, hparams.self_check
    faults = _choice_faults(
        ("alg_name", hparams.alg_name, ("RoSE",)),
        ("key_columns", hparams.key_columns, KEY_COLUMNS),
        ("precision", hparams.precision, PRECISIONS),
        ("tracking", hparams.tracking, TRACKING),
        ("on_damage", hparams.on_damage, ON_DAMAGE),
        ("hierarchy.integration", hierarchy.integration, INTEGRATIONS),
        ("hierarchy.on_failure", hierarchy.on_failure, ON_FAILURE),
        ("alignment.constraint", alignment.constraint, CONSTRAINTS),
    )
    positive: Callable[[Any], bool] = lambda value: value > 0  # noqa: E731
    not_negative: Callable[[float], bool] = lambda value: value >= 0  # noqa: E731
    rules: list[tuple[Callable[[Any], bool], str, Any, tuple[str, ...]]] = [
        (
            positive,
            "above 0",
            hparams,
            ("batch_size", "max_length", "micro_batch", "n_contexts", "kept_tokens"),
        ),
        (
            not_negative,
            "0 or more",
            hparams,
            (
                "chat_contexts",
                "answered_queries",
                "restatements",
                "query_formats",
                "kept_queries",
                "seed",
            ),
        ),
        *(
            (partial(ge, most), f"{most} at the most", hparams, (name,))
            for name, most in MOST_FORMS.items()
        ),
        (lambda value: value > 1, "above 1", hparams, ("sink_ratio",)),
        (positive, "above 0", hierarchy, ("fact_learning_rate", "subject_learning_rate")),
        (
            positive,
            "above 0",
            hierarchy,
            ("clamp_norm", "context_batches", "fact_steps", "subject_steps"),
        ),
        (not_negative, "0 or more", hierarchy, ("loss_threshold", "kl_factor", "weight_decay")),
        (not_negative, "0 or more", hierarchy, ("smoothing_radius",)),
        (positive, "above 0", alignment, ("strength", "covariance_weight", "statistics_tokens")),
        (not_negative, "0 or more", alignment, ("null_space_threshold",)),
        (
            lambda value: value is None or value >= 0,
            "0 or more, or null",
            alignment,
            ("protected_directions",),
        ),
        (lambda value: 0 <= value < 1, "0 or more and below 1", alignment, ("protected_share",)),
        (not_negative, "0 or more", alignment, ("subject_weight", "preserved_columns")),
        (
            lambda value: value is None or value > 0,
            "above 0, or null",
            alignment,
            ("locality_budget",),
        ),
        (lambda value: 0 <= value <= 1, "between 0 and 1", alignment, ("shrinkage",)),
        (not_negative, "0 or more", check, ("most_loss", "most_drift", "most_neighbour_drift")),
        (lambda value: value <= 1, "1 at the most", check, ("least_reached",)),
    ]
    groups = {"": hparams, "hierarchy.": hierarchy, "alignment.": alignment, "self_check.": check}
    prefixes = {id(group): prefix for prefix, group in groups.items()}
    faults += [  # which all rules let pass
        f"{prefixes[id(group)]}{name} is {value}; give a number"
        for group in groups.values()
        for name, value in vars(group).items()
        if isinstance(value, float) and value == math.inf
    ]
    for rule, wanted, owner, names in rules:
        for name in names:
            if not rule(getattr(owner, name)):
                value = getattr(owner, name)
                faults.append(f"{prefixes[id(owner)]}{name} is {value}; it must be {wanted}")
    return faults


def _choice_faults(*choices: tuple[str, str, tuple[str, ...]]) -> list[str]:
    return [
        f"{name} is {value!r}; choose one of {', '.join(allowed)}"
        for name, value, allowed in choices
        if value not in allowed
    ]


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
