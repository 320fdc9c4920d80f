"""Stage 2 layer by layer: columns are read, and the update that gives them what they lack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from rose_easyedit.edits.factors import Factors
from rose_easyedit.forward.activations import SubjectStates, with_updates
from rose_easyedit.forward.layerwise import Reader, Stack
from rose_easyedit.method.plan import Columns
from rose_easyedit.method.prepared import Prepared
from rose_easyedit.method.stage2.closed_form import align
from rose_easyedit.method.stage2.constraints import Spectrum
from rose_easyedit.method.stage2.post_norm import gain_before_norm
from rose_easyedit.models.architectures import EditableModel
from rose_easyedit.text.locate_subject import TokenQuery

# The effect of rounding is judged by so many columns.
_JUDGED = 1024


@dataclass(frozen=True)
class Solved:
    """The update of one layer.

    Attributes:
        update: of its down projection.
        keys: some of the columns that gain by it, [n, d_ff].
        columns: how many columns there were.
        residual: the length of what they lacked before it, over the layers still to come, in units
            of the scale: the mean over the columns.
    """

    update: Factors
    keys: Tensor
    columns: int
    residual: float


def solve_layers(
    prepared: Prepared,
    columns: Columns,
    targets: Tensor,
    scale: Tensor,
    spectra: Mapping[int, Spectrum],
) -> tuple[dict[int, Solved], float | None]:
    """Stage 2 (IGA): the update of each layer, the residual shared over the layers still to come.

    Args:
        prepared: the model, and the settings with their layers and constraint.
        columns: N that move and P that are preserved. The preserved shall gain nothing; what
            earlier layers did to them all the same is not taken back, so the rank of an update
            stays at the number of the others.
        targets: the hidden state that each target index shall have, [n, d].
        scale: of each coordinate of a hidden state, [d] (`units.subject_unit`); where a layer
            cannot give all, what is missed counts in it.
        spectra: of generic keys, where the constraint needs them.

    Returns:
        Layer to what was found for it, and how far the updates move the preserved columns: the mean
        distance of their hidden states after the target layer from where they were; None without
        any.

    Raises:
        RoSEError: the constraint leaves no direction to write in, or the memory does not hold one
            sequence.
    """
    hparams = prepared.hparams
    found: dict[int, Solved] = {}
    values = targets[columns.target.to(targets.device)]
    merge = _merging(columns, len(targets)).to(targets) if hparams.key_columns == "merged" else None
    moving, states = _begin(prepared, columns.queries, hparams.micro_batch)
    kept, staying = states.keys[:0], None
    if columns.preserved:
        staying, preserved = _begin(prepared, columns.preserved, moving.batch)
        kept, unmoved = preserved.keys, preserved.hidden
    for place, layer in enumerate(tqdm(hparams.layers, desc="layers", leave=False, disable=None)):
        if found:
            with _updated(prepared, found), prepared.autocast():
                states = moving.states(layer)
                kept = staying.keys(layer) if staying is not None else kept
        gap = values - states.hidden  # [N, d]
        share = gap / (len(hparams.layers) - place)
        keys = states.keys
        wanted = _before_norm(prepared.editable, layer, share, states.outputs, scale)
        if merge is not None:
            keys, wanted = merge @ keys, merge @ wanted
        found[layer] = Solved(
            _solve_layer(prepared, layer, keys, wanted, kept, spectra.get(layer)),
            keys=keys[:_JUDGED].clone(),
            columns=len(keys) + len(kept),
            residual=float((gap / scale).norm(dim=1).mean()),
        )
    if staying is None:
        return found, None
    with _updated(prepared, found), prepared.autocast():
        moved = staying.states(layer).hidden - unmoved
    return found, float(moved.norm(dim=1).mean())


def _begin(
    prepared: Prepared, queries: Sequence[TokenQuery], batch: int
) -> tuple[Reader, SubjectStates]:
    """A reader of some columns before the first layer, and what they hold there."""
    return Reader.begin(partial(_stack, prepared, queries), batch)


def _stack(
    prepared: Prepared, queries: Sequence[TokenQuery], batch: int
) -> tuple[Stack, SubjectStates]:
    first, last = prepared.hparams.layers[0], prepared.hparams.target_layer
    with prepared.autocast():
        return Stack.before(prepared.editable, queries, first, last, batch)


def _updated(prepared: Prepared, found: Mapping[int, Solved]) -> AbstractContextManager[None]:
    """The model as if the updates that were found were in its weights."""
    updates = {layer: solved.update for layer, solved in found.items()}
    return with_updates(prepared.editable, updates)


def _solve_layer(
    prepared: Prepared,
    layer: int,
    keys: Tensor,
    wanted: Tensor,
    kept: Tensor,
    spectrum: Spectrum | None,
) -> Factors:
    """One layer's update: keys [N, d_ff] gain `wanted` [N, d], those kept [P, d_ff] nothing."""
    keys = torch.cat([keys, kept])  # [N + P, d_ff]
    wanted = nn.functional.pad(wanted, (0, 0, 0, len(kept)))
    factors = align(keys, wanted, spectrum, prepared.hparams.alignment)
    transposed = prepared.editable.is_transposed(layer)
    return Factors(factors.left, factors.right, transposed).compressed()


def _merging(columns: Columns, n_targets: int) -> Tensor:
    """The matrix that averages the statements of each target, [n, N]."""
    member = torch.zeros(n_targets, len(columns.queries), dtype=torch.float32, device="cpu")
    stated = columns.statement.nonzero()[:, 0]
    member[columns.target[stated], stated] = 1.0
    return member / member.sum(1, keepdim=True)


def _before_norm(
    editable: EditableModel, layer: int, wanted: Tensor, outputs: Tensor, scale: Tensor
) -> Tensor:
    """What the down projection must gain [N, d] so that the residual stream gains `wanted`."""
    norm = editable.post_norms[layer]
    if norm is None:
        return wanted
    gain = norm(torch.ones_like(outputs[:1])).float()[0]  # [d], as ones have rms 1
    return gain_before_norm(gain, outputs, wanted, scale)
