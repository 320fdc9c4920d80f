"""An edit's rivals: the same facts and settings, with one thing changed."""

from __future__ import annotations

from dataclasses import replace

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rose_easyedit.config.hparams import RoSEHyperParams
from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.geometry.edits import values_of
from rose_easyedit.method.edit import solve_edit
from rose_easyedit.method.stage1.shifts import Shifts
from rose_easyedit.method.stage1.targets import compute_targets


def edit_name(hparams: RoSEHyperParams) -> str:
    """What tells an edit from its rivals: how targets were found, and under which constraint."""
    return f"{hparams.hierarchy.integration}, {hparams.alignment.constraint}"


def rivals(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, delta: EditDelta
) -> dict[str, EditDelta]:
    """The edit with targets found the other way, and with its own targets otherwise constrained.

    Hierarchical integration's rival is the joint one, and the other way round; the identity's is
    the covariance. It costs one more stage 1.

    Args:
        model: the unedited model; not changed.
        tokenizer: its tokenizer.
        delta: the edit, with its targets.

    Returns:
        The two rivals, by name.
    """
    own = RoSEHyperParams.from_dict(delta.provenance.hparams)
    integration = "hierarchical" if own.hierarchy.integration == "joint" else "joint"
    constraint = "protected" if own.alignment.constraint == "covariance" else "covariance"
    other_targets = own.with_overrides(hierarchy={"integration": integration})
    other_constraint = own.with_overrides(alignment={"constraint": constraint})
    found = compute_targets(model, tokenizer, delta.provenance.requests, other_targets)
    values = values_of(delta).to(found.values.device)
    groups, losses = delta.provenance.groups, delta.provenance.losses
    steps = list(delta.provenance.steps)
    shifts = Shifts(values, [[losses[i] for i in group] for group in groups], steps)
    kept = replace(
        found,
        values=values,
        per_fact=own.hierarchy.integration == "independent",
        shifts=shifts,
    )
    return {
        edit_name(other_targets): solve_edit(model, tokenizer, found, other_targets, check=False),
        edit_name(other_constraint): solve_edit(
            model, tokenizer, kept, other_constraint, check=False
        ),
    }
