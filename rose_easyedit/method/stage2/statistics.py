"""The spectrum of generic keys: which directions of a layer's keys ordinary text uses.

A few hundred tokens fix the massive outlier directions; those below, whose eigenvalues are
close to each other, take thousands, and the whole second moment a few times d_ff.
The spectrum is kept on disk under a key made of everything that changes it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from rose_easyedit.cache.entries import Cache, CacheEntry, key_of
from rose_easyedit.config.hparams import AlignmentHyperParams
from rose_easyedit.config.paths import cache_dir
from rose_easyedit.forward.activations import read_keys
from rose_easyedit.forward.batches import batches
from rose_easyedit.forward.oom import is_out_of_memory, within_memory
from rose_easyedit.method.generic import Passage, generic_passages
from rose_easyedit.method.prepared import Prepared
from rose_easyedit.method.read_once import reading_of
from rose_easyedit.method.stage2.constraints import Spectrum
from rose_easyedit.models.architectures import EditableModel
from rose_easyedit.text.token_ids import check_ids

logger = logging.getLogger(__name__)

_BATCH = 32
# With fewer generic keys than this a direction, the last of the leading directions are noise.
_KEYS_PER_DIRECTION = 2
# The number changes when what is kept does.
_FORMAT = "rose_easyedit.statistics/2"
# The rows of an entry that are found whole without reading the others: a model of 8 billion weights
# has 500 MB of them a layer.
_FIRST = 512


def load_spectra(
    prepared: Prepared,
    layers: Sequence[int],
    hparams: AlignmentHyperParams,
    folder: Path | None = None,
    leading: int | None = None,
) -> dict[int, Spectrum]:
    """The spectrum of each layer, from disk where a whole and matching file is there.

    Args:
        prepared: the model, and the precision in which it reads; call inside `activations.frozen`.
        layers: whose keys are read.
        hparams: the text and how many tokens of it.
        folder: where the files are; None takes the user's cache folder.
        leading: how many directions are wanted, those of the largest eigenvalues; None is all.

    Raises:
        RoSEError: the text cannot be read or is empty, or the memory does not hold one passage.
    """
    editable = prepared.editable
    arguments = prepared.hparams.template_arguments
    passages = generic_passages(prepared.tokenizer, hparams, arguments)
    check_ids(prepared.model, (passage.ids for passage in passages))
    if leading is not None:
        _warn_of_few_keys(passages, leading)
    cache = Cache(folder or cache_dir() / "statistics")
    keys = _keys(prepared, passages, layers)
    rows = _FIRST if leading is not None and leading <= _FIRST else None
    stored = {
        layer: cache.read(key, partial(_spectrum, editable.key_width(layer)), rows=rows)
        for layer, key in keys.items()
    }
    spectra = {layer: kept.first(leading) for layer, kept in stored.items() if kept is not None}
    missing = [layer for layer in layers if layer not in spectra]
    if missing:
        with prepared.autocast():
            found, _ = within_memory(partial(_collect, editable, passages, missing), _BATCH)
        for layer in missing:
            spectrum = spectrum_on(editable.device, found.pop(layer))
            spectra[layer] = spectrum.first(leading)
            cache.write(keys[layer], _entry(spectrum), rows=_FIRST)
    device = editable.device
    return {
        layer: Spectrum(spectrum.eigenvalues.to(device), spectrum.directions.to(device))
        for layer, spectrum in spectra.items()
    }


def _warn_of_few_keys(passages: Sequence[Passage], leading: int) -> None:
    """Says so where the passages have too few keys to tell the leading directions by."""
    n_keys = sum(1 if passage.last_only else len(passage.ids) for passage in passages)
    if leading * _KEYS_PER_DIRECTION > n_keys:
        logger.warning(
            "%d directions shall be protected, and the generic text has %d keys to tell them by, "
            "fewer than %d each; give more text (statistics_text, statistics_tokens) or protect "
            "fewer (protected_share)",
            leading,
            n_keys,
            _KEYS_PER_DIRECTION,
        )


def _keys(prepared: Prepared, passages: Sequence[Passage], layers: Sequence[int]) -> dict[int, str]:
    """The key of each layer's entry, of everything that its spectrum depends on."""
    texts = [(passage.ids, passage.weight, passage.last_only) for passage in passages]
    of_all = key_of([_FORMAT, *reading_of(prepared), texts])
    return {layer: key_of([of_all, layer]) for layer in layers}


def spectrum_of(keys: Tensor) -> Spectrum:
    """Eigenvalues and eigenvectors of K^T K for keys K [T, d_ff], from its smaller side."""
    keys = keys.double()
    n_tokens, width = keys.shape
    if n_tokens < width:
        values, vectors = torch.linalg.eigh(keys @ keys.T)  # [T], [T, T]
        directions = torch.nn.functional.normalize(vectors.T @ keys, dim=1)  # [T, d_ff]
    else:
        values, vectors = torch.linalg.eigh(keys.T @ keys)  # [d_ff], [d_ff, d_ff]
        directions = vectors.T
    values, directions = values.flip(0), directions.flip(0)
    real = values > values[0] * 1e-12
    return Spectrum(values[real].float(), directions[real].float().contiguous())


def spectrum_on(device: torch.device, keys: Tensor) -> Spectrum:
    """A spectrum found where the model computes, or by the CPU if that has no room for it."""
    try:
        found = spectrum_of(keys.to(device))
    except RuntimeError as error:
        if device.type == "cpu" or not is_out_of_memory(error):
            raise
        logger.warning("%s has no room for a spectrum, which the CPU finds, more slowly", device)
        return spectrum_of(keys)
    return Spectrum(found.eigenvalues.cpu(), found.directions.cpu())


def _collect(
    editable: EditableModel, passages: Sequence[Passage], layers: Sequence[int], batch_size: int
) -> dict[int, Tensor]:
    """Keys of each layer, each times the square root of its weight: layer to [T, d_ff]."""
    parts: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    with tqdm(total=len(passages), desc="statistics", leave=False, disable=None) as bar:
        for last_only in (False, True):
            chosen = [passage for passage in passages if passage.last_only == last_only]
            weights = torch.tensor(
                [passage.weight for passage in chosen], dtype=torch.float32, device=editable.device
            )
            rows = [passage.ids for passage in chosen]
            for batch in batches(rows, batch_size, editable.device, share=last_only):
                wanted = batch.mask.bool()
                if last_only:
                    wanted = wanted & (batch.mask.cumsum(1) == batch.mask.sum(1, keepdim=True))
                roots = weights[batch.indices].sqrt()[wanted.nonzero()[:, 0], None]
                for layer, keys in read_keys(editable, batch, wanted, layers).items():
                    parts[layer].append((keys * roots).cpu())
                bar.update(len(batch.indices))
    return {layer: torch.cat(keys) for layer, keys in parts.items()}


def _entry(spectrum: Spectrum) -> CacheEntry:
    return CacheEntry({"eigenvalues": spectrum.eigenvalues, "directions": spectrum.directions})


def _spectrum(width: int, entry: CacheEntry) -> Spectrum:
    """The spectrum of an entry, of keys that are so wide."""
    found = Spectrum(entry.tensors["eigenvalues"], entry.tensors["directions"])
    if not _is_spectrum(found, width):
        raise ValueError("it is no spectrum of such keys")
    return found


def _is_spectrum(found: Spectrum, width: int) -> bool:
    values, directions = found.eigenvalues, found.directions
    return (
        values.dtype == directions.dtype == torch.float32
        and values.dim() == 1
        and directions.shape in ((len(values), width), (min(len(values), _FIRST), width))
        and bool(values.isfinite().all() and directions.isfinite().all())
    )
