"""The whole algorithm: requests in, an EditDelta out, the model untouched."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rose_easyedit.config.hparams import RoSEHyperParams
from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.edits.factors import Factors
from rose_easyedit.edits.provenance import LayerReport, Provenance
from rose_easyedit.errors import DamageError, RoSEError, first_line
from rose_easyedit.forward.activations import frozen
from rose_easyedit.method.neighbourhood import held_out_queries, preserved_queries
from rose_easyedit.method.plan import Columns, make_columns
from rose_easyedit.method.prepared import Prepared
from rose_easyedit.method.stage1.cached_targets import CachedTarget, GroupKey
from rose_easyedit.method.stage1.ranks import Ranks
from rose_easyedit.method.stage1.store import ShiftStore
from rose_easyedit.method.stage1.targets import Targets, find_targets
from rose_easyedit.method.stage2.calibration import calibrate
from rose_easyedit.method.stage2.constraints import CONSTRAINTS, Spectrum
from rose_easyedit.method.stage2.layers import Solved, solve_layers
from rose_easyedit.method.stage2.statistics import load_spectra
from rose_easyedit.method.verification import self_check
from rose_easyedit.models.architectures import EditableModel
from rose_easyedit.models.lock import one_at_a_time
from rose_easyedit.requests import EditRequest, as_requests
from rose_easyedit.text.chat import arguments_used
from rose_easyedit.text.token_ids import check_ids

# The mean drift of so many prompts has an error of a tenth.
_CALIBRATION_PROMPTS = 160


@one_at_a_time
def compute_edit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Iterable[EditRequest | Mapping[str, Any]],
    hparams: RoSEHyperParams,
    store: ShiftStore | None = None,
    cached: Mapping[GroupKey, CachedTarget] | None = None,
    ranks: Ranks | None = None,
) -> EditDelta:
    """Computes the edit that writes some facts, without changing the model.

    Args:
        model: a causal language model of a known architecture that computes on one device.
        tokenizer: its tokenizer, which is left as it is.
        requests: the facts; those about one subject are integrated into one value.
        hparams: the method's settings.
        store: where the results of stage 1 are kept and found again; None computes them anew.
        cached: targets found before, with this model and these settings, that are taken as they
            are.
        ranks: the processes that share stage 1 (`Ranks.of_process_group`); each is called with the
            same arguments and is given the edit. None: this one alone.

    Returns:
        The edit: apply it, save it, or export it.

    Raises:
        RoSEError: faulty requests or settings, or a model that cannot be edited; with all faults
            found and before anything is computed, where that can be known.
    """
    facts = as_requests(requests)
    prepared = Prepared.of(model, tokenizer, hparams)
    return solve_targets(prepared, find_targets(prepared, facts, store, cached, ranks))


@one_at_a_time
def solve_edit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    targets: Targets,
    hparams: RoSEHyperParams,
    *,
    check: bool = True,
) -> EditDelta:
    """Stage 2: the edit that gives the subjects their targets, without changing the model.

    Args:
        model: the model that the targets were computed for.
        tokenizer: its tokenizer.
        targets: from `compute_targets`, with settings that differ in `alignment` and
            `key_columns` at the most.
        hparams: the method's settings.
        check: whether the edit is measured, judged, and says what was found (`self_check`).

    Raises:
        DamageError: the updates are not finite, or the edit is damaged and the settings refuse
            that.
        RoSEError: the constraint leaves no direction to write in, or its text cannot be read.
    """
    return solve_targets(Prepared.of(model, tokenizer, hparams), targets, check=check)


def solve_targets(prepared: Prepared, targets: Targets, *, check: bool = True) -> EditDelta:
    """As `solve_edit`, of what is prepared for an edit."""
    columns = _columns(prepared, targets)
    with frozen(prepared.model):
        spectra = _spectra(prepared)
        solved, disturbance = _solved(prepared, columns, targets, spectra)
        updates = {layer: found.update for layer, found in solved.items()}
        updates, calibration = _calibrated(prepared, targets, updates)
        report = [
            _report(prepared.editable, layer, solved[layer], update)
            for layer, update in updates.items()
        ]
        checked = self_check(prepared, targets, updates) if check else None
    return EditDelta(
        layers={prepared.editable.weight_name(n): update for n, update in updates.items()},
        base=prepared.base,
        provenance=replace(
            _provenance(prepared, targets),
            layers=report,
            disturbance=disturbance,
            calibration=calibration,
            self_check=checked,
        ),
        targets=targets.values.float().cpu(),
    )


def _columns(prepared: Prepared, targets: Targets) -> Columns:
    """Where the targets are written, and the places near them that shall stay."""
    editable, tokenizer, hparams = prepared.editable, prepared.tokenizer, prepared.hparams
    # Columns to preserve must leave directions to write in.
    most = 2 * editable.key_width(hparams.layers[0]) // 3
    n_preserved = min(hparams.alignment.preserved_columns, most)
    requests = targets.plan.requests
    preserved = preserved_queries(
        tokenizer, requests, hparams, n_preserved, editable.context_length
    )
    check_ids(prepared.model, (query.ids for query in preserved))
    return make_columns(targets.plan, targets.per_fact, preserved)


def _spectra(prepared: Prepared) -> Mapping[int, Spectrum]:
    """The spectra of generic keys, as many directions as the constraint needs; none if it does not.

    Raises:
        RoSEError: as `load_spectra`.
    """
    layers, alignment = prepared.hparams.layers, prepared.hparams.alignment
    if not alignment.needs_statistics:
        return {}
    width = prepared.editable.key_width(layers[0])
    leading = CONSTRAINTS[alignment.constraint].leading(alignment, width)
    return load_spectra(prepared, layers, alignment, leading=leading)


def _solved(
    prepared: Prepared, columns: Columns, targets: Targets, spectra: Mapping[int, Spectrum]
) -> tuple[dict[int, Solved], float | None]:
    """As `solve_layers`.

    Raises:
        DamageError: an update is not finite, or its equations have no solution.
    """
    advice = (
        "nothing can be written; lower the learning rates and hierarchy.clamp_norm, raise "
        "alignment.strength, or use precision: weights"
    )
    try:
        found = solve_layers(prepared, columns, targets.values, targets.unit, spectra)
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
        reason = first_line(str(error))
        raise DamageError(f"The updates cannot be solved for ({reason}), so {advice}.") from error
    bad = [n for n, solved in found[0].items() if not solved.update.is_finite]
    if bad:
        layers = ", ".join(map(str, bad))
        raise DamageError(f"The updates of the layers {layers} are not finite, so {advice}.")
    return found


def _calibrated(
    prepared: Prepared, targets: Targets, updates: dict[int, Factors]
) -> tuple[dict[int, Factors], dict[str, float] | None]:
    """The updates within the locality budget, if there is one, and what the edit says of it."""
    editable, hparams = prepared.editable, prepared.hparams
    budget = hparams.alignment.locality_budget
    if budget is None:
        return updates, None
    queries = held_out_queries(
        prepared.tokenizer,
        targets.plan.requests,
        hparams,
        _CALIBRATION_PROMPTS,
        editable.context_length,
    )
    if not queries:
        raise RoSEError(
            f"locality_budget is {budget}, but the edit is about all the subjects that drift is "
            "measured on, or its prompts leave no room for them; set it to null."
        )
    check_ids(editable.model, (query.ids for query in queries))
    updates, found = calibrate(editable, queries, updates, budget, batch=hparams.micro_batch)
    return updates, asdict(found)


def _report(editable: EditableModel, layer: int, solved: Solved, update: Factors) -> LayerReport:
    """What an edit says of one of its layers: the update's norm and its loss by rounding, too."""
    return LayerReport(
        layer=layer,
        columns=solved.columns,
        residual=solved.residual,
        update_norm=float(update.dense().norm()),
        rounding_loss=_rounding_loss(editable.weight(layer), update, solved.keys),
    )


@torch.no_grad()
def _rounding_loss(weight: Tensor, update: Factors, keys: Tensor) -> float:
    """Relative error of an update's effect on its keys [N, d_ff] as the weight's type stores it."""
    weight = weight.to(keys.device)  # from where the model keeps it, which may be elsewhere
    exact = update.dense()
    stored = (weight.double() + exact).to(weight.dtype).double() - weight.double()
    if update.transposed:
        exact, stored = exact.T, stored.T
    effect = keys.double() @ exact.T
    return float((keys.double() @ stored.T - effect).norm() / effect.norm().clamp(min=1e-30))


def _provenance(prepared: Prepared, targets: Targets) -> Provenance:
    """What is on record of an edit before it is solved for."""
    model, hparams = prepared.model, prepared.hparams
    return Provenance(
        requests=[request.as_dict() for request in targets.plan.requests],
        hparams=hparams.as_dict(),
        architecture=model.config.get_text_config().model_type,
        dtype=str(model.dtype).removeprefix("torch."),
        groups=targets.groups,
        losses=targets.losses,
        steps=targets.shifts.steps,
        curves=targets.shifts.curves,
        log=targets.log,
        versions={
            "python": platform.python_version(),
            **{name: version(name) for name in ("rose-easyedit", "torch", "transformers")},
        },
        template_arguments=arguments_used(prepared.tokenizer, hparams.template_arguments),
    )
