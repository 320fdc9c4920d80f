"""The whole algorithm: requests in, an EditDelta out, the model untouched."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rose_easyedit.architectures import EditableModel, read_architecture
from rose_easyedit.delta import EditDelta
from rose_easyedit.errors import RoSEError
from rose_easyedit.factors import Factors
from rose_easyedit.fingerprint import weights_fingerprint
from rose_easyedit.hparams import RoSEHyperParams
from rose_easyedit.method.activations import frozen, with_updates
from rose_easyedit.method.alignment import align
from rose_easyedit.method.calibration import calibrate
from rose_easyedit.method.constraints import Spectrum
from rose_easyedit.method.foreign import held_out_queries, preserved_queries
from rose_easyedit.method.known import GroupKey, Known
from rose_easyedit.method.plan import STAY, Columns, make_columns
from rose_easyedit.method.precision import precision_context
from rose_easyedit.method.ranks import Ranks
from rose_easyedit.method.shift_store import ShiftStore
from rose_easyedit.method.stack import Stack
from rose_easyedit.method.statistics import load_spectra
from rose_easyedit.method.targets import Targets, check_layers, compute_targets
from rose_easyedit.offload import stored_weight
from rose_easyedit.requests import EditRequest

# The mean drift of so many prompts has an error of a tenth.
_CALIBRATION_PROMPTS = 160


def compute_edit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Iterable[EditRequest | Mapping[str, Any]],
    hparams: RoSEHyperParams,
    store: ShiftStore | None = None,
    known: Mapping[GroupKey, Known] | None = None,
    ranks: Ranks | None = None,
) -> EditDelta:
    """Computes the edit that writes some facts, without changing the model.

    Args:
        model: a causal language model of a known architecture that computes on one device.
        tokenizer: its tokenizer, which is left as it is.
        requests: the facts; those about one subject are integrated into one value.
        hparams: the method's settings.
        store: where the results of stage 1 are kept and found again; None computes them anew.
        known: targets found before, with this model and these settings, that are taken as they
            are.
        ranks: the processes that share stage 1 (`Ranks.of_process_group`); each is called with the
            same arguments and is given the edit. None: this one alone.

    Returns:
        The edit: apply it, save it, or export it.

    Raises:
        RoSEError: faulty requests or settings, or a model that cannot be edited; with all faults
            found and before anything is computed, where that can be known.
    """
    targets = compute_targets(model, tokenizer, requests, hparams, store, known, ranks)
    return solve_edit(model, tokenizer, targets, hparams)


def solve_edit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    targets: Targets,
    hparams: RoSEHyperParams,
) -> EditDelta:
    """Stage 2: the edit that gives the subjects their targets, without changing the model.

    Args:
        model: the model that the targets were computed for.
        tokenizer: its tokenizer.
        targets: from `compute_targets`, with settings that differ in `alignment` and
            `key_columns` at the most.
        hparams: the method's settings.

    Raises:
        RoSEError: the constraint leaves no direction to write in, or its text cannot be read.
    """
    editable = read_architecture(model)
    # Columns to preserve must leave directions to write in.
    most = 2 * editable.key_width(hparams.layers[0]) // 3
    n_preserved = min(hparams.alignment.preserved_columns, most)
    preserved = preserved_queries(tokenizer, targets.plan.requests, hparams, n_preserved)
    columns = make_columns(targets.plan, targets.per_fact, preserved)
    with frozen(model):
        spectra = (
            load_spectra(
                editable,
                tokenizer,
                hparams.layers,
                hparams.alignment,
                precision=hparams.precision,
            )
            if hparams.alignment.needs_statistics
            else {}
        )
        updates, report = solve_layers(editable, columns, targets.values, spectra, hparams)
        updates, calibration = _calibrated(editable, tokenizer, targets, updates, hparams)
    names = {layer: editable.weight_name(layer) for layer in updates}
    return EditDelta(
        layers={names[layer]: update for layer, update in updates.items()},
        base=base_fingerprint(model, hparams),
        provenance=_provenance(model, targets, hparams, report) | calibration,
        targets=targets.values.float().cpu(),
    )


def base_fingerprint(model: PreTrainedModel, hparams: RoSEHyperParams) -> str:
    """What an edit with these settings will say of its base: SHA-256 of the weights to be edited.

    Raises:
        RoSEError: the model cannot be edited, or lacks one of the layers.
    """
    editable = read_architecture(model)
    check_layers(editable, hparams)
    names = map(editable.weight_name, hparams.layers)
    return weights_fingerprint((name, stored_weight(model, name)) for name in names)


def solve_layers(
    editable: EditableModel,
    columns: Columns,
    targets: Tensor,
    spectra: Mapping[int, Spectrum],
    hparams: RoSEHyperParams,
) -> tuple[dict[int, Factors], list[dict[str, float]]]:
    """Stage 2 (IGA): the update of each layer, the residual shared over the layers still to come.

    Args:
        editable: the model.
        columns: N key columns. Those to preserve shall gain nothing; what earlier layers did to
            them all the same is not taken back, so the rank of an update stays at the number of
            the others.
        targets: the hidden state that each target index shall have, [n, d].
        spectra: of generic keys, where the constraint needs them.
        hparams: layers and constraint.

    Returns:
        Layer to update, and per layer the residual before it, how far the preserved columns are
        from where they were, the update's norm and the share of its effect that is lost to the
        rounding of the weights.
    """
    updates: dict[int, Factors] = {}
    report = []
    target = columns.target.to(targets.device)
    moving = target != STAY
    unmoved = None
    merge = _merging(columns, len(targets)).to(targets) if hparams.key_columns == "merged" else None
    n_layers = len(hparams.layers)
    autocast = precision_context(hparams.precision, editable.model)
    with autocast():
        stack = Stack.before(
            editable,
            columns.queries,
            hparams.layers[0],
            hparams.target_layer,
            batch=hparams.micro_batch,
        )
    for place, layer in enumerate(tqdm(hparams.layers, desc="layers", leave=False, disable=None)):
        with with_updates(editable, updates), autocast():
            stack = stack.advanced(layer)
            states = stack.read()
        unmoved = states.hidden[~moving] if unmoved is None else unmoved
        gap = torch.where(moving[:, None], targets[target] - states.hidden, 0.0)  # [N, d]
        wanted = _before_norm(editable, layer, gap / (n_layers - place), states.outputs)
        keys = states.keys
        if merge is not None:
            keys, wanted = merge @ keys, merge @ wanted
        factors = align(keys, wanted, spectra.get(layer), hparams.alignment)
        update = Factors(factors.left, factors.right, editable.is_transposed(layer)).compressed()
        updates[layer] = update
        weight = editable.weight(layer)
        report.append(
            {
                "layer": layer,
                "columns": len(keys),
                "residual": float(gap[moving].norm(dim=1).mean()),
                "disturbance": float((states.hidden[~moving] - unmoved).norm(dim=1).sum())
                / max(1, len(unmoved)),
                "update_norm": float(update.dense().norm()),
                "rounding_loss": _rounding_loss(weight, update, keys),
            }
        )
    return updates, report


def _calibrated(
    editable: EditableModel,
    tokenizer: PreTrainedTokenizerBase,
    targets: Targets,
    updates: dict[int, Factors],
    hparams: RoSEHyperParams,
) -> tuple[dict[int, Factors], dict[str, Any]]:
    """The updates within the locality budget, if there is one, and what the edit says of it."""
    budget = hparams.alignment.locality_budget
    if budget is None:
        return updates, {}
    queries = held_out_queries(tokenizer, targets.plan.requests, hparams, _CALIBRATION_PROMPTS)
    if not queries:
        raise RoSEError(
            f"locality_budget is {budget}, but the edit is about all the subjects that drift is "
            "measured on; set it to null."
        )
    updates, found = calibrate(editable, queries, updates, budget, batch=hparams.micro_batch)
    return updates, {"calibration": asdict(found)}


def _merging(columns: Columns, n_targets: int) -> Tensor:
    """The matrix that averages the statements of each target, and leaves what is preserved."""
    n_columns = len(columns.target)
    member = torch.zeros(n_targets, n_columns)
    stated = columns.statement.nonzero()[:, 0]
    member[columns.target[stated], stated] = 1.0
    staying = torch.eye(n_columns)[columns.target == STAY]
    return torch.cat([member / member.sum(1, keepdim=True), staying])


def _before_norm(editable: EditableModel, layer: int, wanted: Tensor, outputs: Tensor) -> Tensor:
    """What the down projection must gain [N, d] so that the residual stream gains `wanted`.

    Families with a norm behind the down projection add gain * v / rms(v); to first order the
    output v must then gain wanted * rms(v) / gain.
    """
    norm = editable.post_norms[layer]
    if norm is None:
        return wanted
    gain = norm(torch.ones_like(outputs[:1])).float()  # [1, d], as ones have rms 1
    rms = outputs.square().mean(1, keepdim=True).sqrt()  # [N, 1]
    floor = gain.square().mean() * 1e-3
    return wanted * rms * gain / (gain.square() + floor)


@torch.no_grad()
def _rounding_loss(weight: Tensor, update: Factors, keys: Tensor) -> float:
    """Relative error of an update's effect on its keys [N, d_ff] as the weight's type stores it."""
    exact = update.dense()
    stored = (weight.double() + exact).to(weight.dtype).double() - weight.double()
    if update.transposed:
        exact, stored = exact.T, stored.T
    effect = keys.double() @ exact.T
    return float((keys.double() @ stored.T - effect).norm() / effect.norm().clamp(min=1e-30))


def _provenance(
    model: PreTrainedModel,
    targets: Targets,
    hparams: RoSEHyperParams,
    report: list[dict[str, float]],
) -> dict[str, Any]:
    requests, groups = targets.plan.requests, targets.groups
    losses = [0.0] * len(requests)
    for indices, values in zip(groups, targets.shifts.losses, strict=True):
        for index, value in zip(indices, values, strict=True):
            losses[index] = value
    return {
        "requests": [request.as_dict() for request in requests],
        "hparams": hparams.as_dict(),
        "architecture": model.config.get_text_config().model_type,
        "dtype": str(model.dtype).removeprefix("torch."),
        "groups": groups,
        "losses": losses,
        "steps": targets.shifts.steps,
        "curves": targets.shifts.curves,
        "layers": report,
        "log": targets.log,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("rose-easyedit", "torch", "transformers")},
        },
    }
