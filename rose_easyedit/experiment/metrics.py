"""The few numbers by which runs are compared."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from rose_easyedit.evaluation.facts import SUBJECT

# Asked as a user would ask, in chat.
ASKED = ("question", "instruction")


def main_metrics(summary: Mapping[str, Any]) -> dict[str, float | None]:
    """The main numbers of an evaluation's summary.

    Returns:
        The faithful success of each form that was asked; `asked`, the mean of questions and
        instructions, where both were, and `named`, that of the answers that name the target,
        whatever they say it of; `broken` answers. Of what should not have changed `kl` (nats) and
        `top1`, of it the `neighbours_top1`, and of generic text `generic_kl`; of other queries of
        the edited subjects `subject_kl`, the answers that are still about them (`subject_kept`)
        and the `subject_words` that come back; `specificity`, the subjects' true facts that are
        kept. None for what was not measured.
    """
    forms, locality = summary["forms"], summary["locality"]
    chats = [forms[form] for form in ASKED if form in forms]
    both = len(chats) == len(ASKED)
    others = summary["r_specificity"]

    def of_kind(kind: str, name: str) -> float | None:
        return locality[kind][name] if kind in locality else None

    return {
        **{form: of["faithful"] for form, of in forms.items()},
        "asked": fmean(of["faithful"] for of in chats) if both else None,
        "named": fmean(of["success"] for of in chats) if both else None,
        "broken": summary["headline"]["broken"],
        "kl": locality["all"]["kl"],
        "top1": locality["all"]["top1"],
        "neighbours_top1": of_kind("neighbour", "top1"),
        "generic_kl": of_kind("generic", "kl"),
        "subject_kl": of_kind(SUBJECT, "kl"),
        "subject_kept": of_kind(SUBJECT, "subject_kept"),
        "subject_words": of_kind(SUBJECT, "words_kept"),
        "specificity": others and others["kept"],
    }


def objective(metrics: Mapping[str, float | None]) -> tuple[float, float]:
    """What a search maximises and minimises: `asked`, which is faithful success, and `kl`."""
    asked, kl = metrics["asked"], metrics["kl"]
    if asked is None or kl is None:
        raise ValueError(
            "both questions and instructions (asked), and prompts that should not change (kl), are "
            f"needed, so nothing can be searched: asked is {asked}, kl is {kl}"
        )
    return asked, kl
