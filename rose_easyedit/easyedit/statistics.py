"""Our statistics where EasyEdit's methods look for theirs, so that no corpus is downloaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from rose_easyedit.config.hparams import RoSEHyperParams
from rose_easyedit.errors import RoSEError
from rose_easyedit.forward.activations import frozen
from rose_easyedit.method.prepared import Prepared
from rose_easyedit.method.stage2.constraints import EIGENVALUE_FLOOR, Spectrum
from rose_easyedit.method.stage2.statistics import load_spectra
from rose_easyedit.models.architectures import EditableModel


def second_moments(
    editable: EditableModel,
    tokenizer: Any,
    layers: Sequence[int],
    hparams: RoSEHyperParams,
    invertible: bool,
) -> dict[str, Tensor]:
    """The second moment of the generic keys of some layers' down projections.

    They are of generic text alone, as MEMIT's are, and read of the unedited model.

    Args:
        editable: the model.
        tokenizer: its tokenizer.
        layers: those that are edited.
        hparams: the settings of ours: the text, and how it is read.
        invertible: whether a thousandth of the mean eigenvalue is added to all of them.

    Returns:
        Name of the module to E[k k^T], float32, [d_ff, d_ff], in main memory.

    Raises:
        RoSEError: the text cannot be read or is empty.
    """
    text = replace(hparams.alignment, subject_weight=0.0)
    prepared = Prepared.of(editable.model, tokenizer, hparams)
    with frozen(editable.model):
        spectra = load_spectra(prepared, layers, text)
    return {
        editable.weight_name(layer).removesuffix(".weight"): moment_of(spectrum, invertible).cpu()
        for layer, spectrum in spectra.items()
    }


def moment_of(spectrum: Spectrum, invertible: bool) -> Tensor:
    """C = V^T diag(l) V, [d_ff, d_ff], plus a thousandth of its mean eigenvalue if `invertible`."""
    directions = spectrum.directions
    moment = directions.T @ (spectrum.eigenvalues[:, None] * directions)
    if invertible:
        moment = moment + EIGENVALUE_FLOOR * spectrum.mean * torch.eye(
            len(moment), device=moment.device
        )
    return moment


def layer_statistics(moments: Mapping[str, Tensor]) -> Callable[..., Any]:
    """A function that stands in for EasyEdit's `layer_stats`, which would download a corpus.

    Raises:
        RoSEError: when called, if it is asked for another module than those.
    """

    def layer_stats(model: Any, tokenizer: Any, layer_name: str, *_: Any, **__: Any) -> Any:
        if layer_name not in moments:
            raise RoSEError(
                f"There are no statistics of {layer_name!r}, only of {', '.join(moments)}; let the "
                "method rewrite the down projections."
            )
        return SimpleNamespace(mom2=SimpleNamespace(moment=lambda: moments[layer_name].clone()))

    return layer_stats
