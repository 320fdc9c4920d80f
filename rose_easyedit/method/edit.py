"""The whole algorithm: requests in, an EditDelta out, the model untouched."""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rose_easyedit.architectures import EditableModel, read_architecture
from rose_easyedit.delta import EditDelta, Factors
from rose_easyedit.errors import RoSEError
from rose_easyedit.fingerprint import weights_fingerprint
from rose_easyedit.hparams import RoSEHyperParams
from rose_easyedit.method.activations import frozen, read_subject_states, with_updates
from rose_easyedit.method.alignment import Spectrum, align
from rose_easyedit.method.integration import Group, Level, Setting, Shifts, optimise
from rose_easyedit.method.plan import Columns, Plan, make_columns, make_plan, without_sinks
from rose_easyedit.method.precision import precision_context
from rose_easyedit.method.statistics import load_spectra
from rose_easyedit.requests import EditRequest, as_requests

logger = logging.getLogger(__name__)


def compute_edit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Iterable[EditRequest | Mapping[str, Any]],
    hparams: RoSEHyperParams,
) -> EditDelta:
    """Computes the edit that writes some facts, without changing the model.

    Args:
        model: a causal language model of a known architecture, on one device.
        tokenizer: its tokenizer, which is left as it is.
        requests: the facts; those about one subject are integrated into one value.
        hparams: the method's settings.

    Returns:
        The edit: apply it, save it, or export it.

    Raises:
        RoSEError: faulty requests or settings, or a model that cannot be edited; with all faults
            found and before anything is computed, where that can be known.
    """
    facts = as_requests(requests)
    hparams.check()
    editable = read_architecture(model)
    _check_layers(editable, hparams)
    plan = make_plan(tokenizer, facts, hparams, _context_length(model))
    with frozen(model):
        hidden, plan, log = _base_hidden(editable, plan, hparams)
        shifts = integrate(editable, plan, hparams)
        columns = make_columns(plan, hparams.hierarchy.integration == "independent")
        targets = hidden + shifts.deltas.to(hidden)  # z_s = h_L(s) + delta_s
        spectra = (
            load_spectra(editable, tokenizer, hparams.layers, hparams.alignment)
            if hparams.alignment.needs_statistics
            else {}
        )
        updates, report = solve_layers(editable, columns, targets, spectra, hparams)
    for line in log:
        logger.warning("%s", line)
    names = {layer: editable.weight_name(layer) for layer in updates}
    return EditDelta(
        layers={names[layer]: update for layer, update in updates.items()},
        base=weights_fingerprint((name, model.get_parameter(name)) for name in names.values()),
        provenance=_provenance(model, facts, hparams, plan, shifts, report, log),
    )


def integrate(editable: EditableModel, plan: Plan, hparams: RoSEHyperParams) -> Shifts:
    """Stage 1 (HKI): the shift of each subject, or of each fact with `independent`, [n, d]."""
    hierarchy = hparams.hierarchy
    subjects = list(plan.subjects.items())
    width = editable.model.config.get_text_config().hidden_size
    device = editable.device
    fact_groups = [
        Group(f"{r.subject}\n{r.prompt}", (tuple(queries),), plan.essences[r.subject])
        for r, queries in zip(plan.requests, plan.statements, strict=True)
    ]
    subject_groups = [
        Group(subject, tuple(tuple(plan.statements[i]) for i in indices), plan.essences[subject])
        for subject, indices in subjects
    ]
    fact_level = Level(hierarchy.fact_steps, hierarchy.fact_learning_rate)
    subject_level = Level(
        hierarchy.subject_steps, hierarchy.subject_learning_rate, hierarchy.smoothing_radius
    )

    def run(groups: list[Group], start: Tensor, level: Level, name: str) -> Shifts:
        total = len(groups) * level.steps
        with tqdm(total=total, desc=name, unit="step", leave=False, disable=None) as bar:
            setting = Setting(
                editable=editable,
                layer=hparams.target_layer,
                hparams=hierarchy,
                micro_batch=hparams.micro_batch,
                seed=hparams.seed,
                autocast=precision_context(hparams.precision, device),
                on_step=bar.update,
            )
            return optimise(setting, groups, start, level)

    if hierarchy.integration == "joint":
        start = torch.zeros(len(subjects), width, device=device)
        return run(subject_groups, start, subject_level, "subjects")
    facts = run(
        fact_groups, torch.zeros(len(fact_groups), width, device=device), fact_level, "facts"
    )
    if hierarchy.integration == "independent":
        return facts
    means = torch.stack([facts.deltas[indices].mean(0) for _, indices in subjects])
    return run(subject_groups, means, subject_level, "subjects")


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
        columns: N key columns.
        targets: the hidden state that each target index shall have, [n, d].
        spectra: of generic keys, where the constraint needs them.
        hparams: layers and constraint.

    Returns:
        Layer to update, and per layer the residual before it, the update's norm and the share of
        its effect that is lost to the rounding of the weights.
    """
    updates: dict[int, Factors] = {}
    report = []
    target = columns.target.to(targets.device)
    merge = _merging(columns, len(targets), hparams.key_columns == "merged").to(targets)
    for left_to_come, layer in zip(range(len(hparams.layers), 0, -1), hparams.layers, strict=True):
        with with_updates(editable, updates):
            states = read_subject_states(
                editable,
                columns.queries,
                key_layer=layer,
                hidden_layer=hparams.target_layer,
                batch=4 * hparams.micro_batch,
            )
        gap = targets[target] - states.hidden  # [N, d]
        wanted = _before_norm(editable, layer, gap / left_to_come, states.outputs)
        keys = merge @ states.keys
        factors = align(keys, merge @ wanted, spectra.get(layer), hparams.alignment)
        update = Factors(factors.left, factors.right, editable.is_transposed(layer)).compressed()
        updates[layer] = update
        weight = editable.weight(layer)
        report.append(
            {
                "layer": layer,
                "residual": float(gap.norm(dim=1).mean()),
                "update_norm": float(update.dense().norm()),
                "rounding_loss": _rounding_loss(weight, update, keys),
            }
        )
    return updates, report


def _base_hidden(
    editable: EditableModel, plan: Plan, hparams: RoSEHyperParams
) -> tuple[Tensor, Plan, list[str]]:
    """h_L of each target [n, d], averaged over its usable statements, and the usable plan."""
    queries = plan.queries
    states = read_subject_states(
        editable,
        # The essence prompts bring ordinary words, without which a batch of bare one-token
        # subjects would have a median made of sinks.
        [*queries, *plan.essences.values()],
        key_layer=hparams.layers[0],
        hidden_layer=hparams.target_layer,
        batch=4 * hparams.micro_batch,
    )
    plan, rows, log = without_sinks(
        plan, states.hidden[: len(queries)], states.median_norm, hparams.sink_ratio
    )
    n_statements = [len(queries) for queries in plan.statements]
    of_statements = states.hidden[rows[: sum(n_statements)]].split(n_statements)
    hidden = torch.stack([group.mean(0) for group in of_statements])
    if hparams.hierarchy.integration != "independent":
        hidden = torch.stack([hidden[indices].mean(0) for indices in plan.subjects.values()])
    return hidden, plan, log


def _merging(columns: Columns, n_targets: int, merged: bool) -> Tensor:
    """The matrix that turns columns into the rows to solve for: the identity, or averages."""
    if not merged:
        return torch.eye(len(columns.target))
    member = torch.zeros(n_targets, len(columns.target))
    member[columns.target, torch.arange(len(columns.target))] = columns.statement.float()
    return member / member.sum(1, keepdim=True)


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


def _check_layers(editable: EditableModel, hparams: RoSEHyperParams) -> None:
    last = max([*hparams.layers, hparams.target_layer])
    if last >= editable.n_layers:
        raise RoSEError(
            f"Layer {last} is asked for, but the model has {editable.n_layers} layers "
            f"(0 to {editable.n_layers - 1}); set layers and z_layer within them."
        )


def _context_length(model: PreTrainedModel) -> int:
    config = model.config.get_text_config()
    return int(getattr(config, "max_position_embeddings", None) or 10**9)


def _provenance(
    model: PreTrainedModel,
    facts: list[EditRequest],
    hparams: RoSEHyperParams,
    plan: Plan,
    shifts: Shifts,
    report: list[dict[str, float]],
    log: list[str],
) -> dict[str, Any]:
    losses: list[float] = [0.0] * len(facts)
    groups = (
        [[index] for index in range(len(facts))]
        if hparams.hierarchy.integration == "independent"
        else list(plan.subjects.values())
    )
    for indices, values in zip(groups, shifts.losses, strict=True):
        for index, value in zip(indices, values, strict=True):
            losses[index] = value
    return {
        "requests": [fact.as_dict() for fact in facts],
        "hparams": hparams.as_dict(),
        "architecture": model.config.get_text_config().model_type,
        "dtype": str(model.dtype).removeprefix("torch."),
        "losses": losses,
        "steps": shifts.steps,
        "layers": report,
        "log": log,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("rose-easyedit", "torch", "transformers")},
        },
    }
