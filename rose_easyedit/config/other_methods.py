"""Settings of EasyEdit's other methods: told apart from RoSE's, and what of them RoSE has."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

# What ROME, MEMIT and their kin call it, and what RoSE does.
RENAMED = {
    "v_lr": "hierarchy.fact_learning_rate",
    "v_num_grad_steps": "hierarchy.fact_steps",
    "v_weight_decay": "hierarchy.weight_decay",
    "clamp_norm_factor": "hierarchy.clamp_norm",
    "mom2_update_weight": "alignment.covariance_weight",
    "nullspace_threshold": "alignment.null_space_threshold",
    "mom2_n_samples": "alignment.statistics_tokens",
}
_MARKS = {
    *RENAMED,
    *("v_loss_layer", "mom2_adjustment", "mom2_dataset", "mom2_dtype", "stats_dir", "fact_token"),
    *("rewrite_module_tmp", "layer_module_tmp", "mlp_module_tmp", "attn_module_tmp"),
    *("ln_f_module", "lm_head_module", "layer_selection", "context_template_length_params"),
}
_PRESETS = {"MEMIT": "memit", "AlphaEdit": "alphaedit"}
_LEAST = 3  # so many are no slip


def of_another_method(values: Mapping[str, Any], known: Collection[str]) -> str | None:
    """What to do with the settings of another method; None where these are no such settings.

    Args:
        values: what was given.
        known: RoSE's own settings.
    """
    method, unknown = values.get("alg_name", "RoSE"), [name for name in values if name not in known]
    named = method != "RoSE" and bool(unknown)
    if not named and len(_MARKS.intersection(unknown)) < _LEAST:
        return None
    whose = f"EasyEdit's {method}" if named else "ROME or MEMIT, as EasyEdit has them"
    shared = [f"{name}: {values[name]}" for name in ("model_name", "layers") if name in values]
    preset = _PRESETS.get(str(method)) if named else "memit"
    advice = f"take {' and '.join(shared)} into a file of RoSE's" if shared else "write RoSE's own"
    here = (
        f', or ask for that method as it is here (RoSEHyperParams.preset("{preset}"), '
        f"--method {preset})"
        if preset
        else ""
    )
    are = "is a setting" if len(unknown) == 1 else "are settings"
    return (
        f"{', '.join(map(str, unknown[:4]))}{', ...' if len(unknown) > 4 else ''} {are} of "
        f"{whose}, in other units than RoSE's; {advice}{here}"
    )
