"""The few numbers by which runs are compared."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

# Asked as a user would ask, in chat.
ASKED = ("question", "instruction")


def main_metrics(summary: Mapping[str, Any]) -> dict[str, float | None]:
    """The main numbers of an evaluation's summary.

    Returns:
        The success of each form that was asked; `asked`, the mean of questions and instructions,
        where both were; of what should not have changed `kl` (nats) and `top1`, and of generic
        text `generic_kl`; `specificity`, the subjects' other facts that are kept. None for what
        was not measured.
    """
    forms, locality = summary["forms"], summary["locality"]
    asked = [forms[form]["success"] for form in ASKED if form in forms]
    others = summary["r_specificity"]
    return {
        **{form: of["success"] for form, of in forms.items()},
        "asked": fmean(asked) if len(asked) == len(ASKED) else None,
        "kl": locality["all"]["kl"],
        "top1": locality["all"]["top1"],
        "generic_kl": locality["generic"]["kl"] if "generic" in locality else None,
        "specificity": others and others["kept"],
    }


def objective(metrics: Mapping[str, float | None]) -> tuple[float, float]:
    """What a search maximises and minimises: `asked`, and `kl`."""
    asked, kl = metrics["asked"], metrics["kl"]
    if asked is None or kl is None:
        raise ValueError(
            "both questions and instructions (asked), and prompts that should not change (kl), are "
            f"needed, so nothing can be searched: asked is {asked}, kl is {kl}"
        )
    return asked, kl
