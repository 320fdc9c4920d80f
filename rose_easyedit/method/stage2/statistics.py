"""The spectrum of generic keys: which directions of a layer's keys ordinary text uses.

A few hundred tokens fix the massive outlier directions; those below, whose eigenvalues are
close to each other, take thousands, and the whole second moment a few times d_ff.
The spectrum is kept on disk under a key made of everything that changes it.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from rose_easyedit.config.hparams import AlignmentHyperParams
from rose_easyedit.config.paths import cache_dir
from rose_easyedit.files.writing import write_whole
from rose_easyedit.forward.activations import read_keys
from rose_easyedit.forward.batches import batches
from rose_easyedit.forward.oom import is_out_of_memory, within_memory
from rose_easyedit.method.generic import Passage, generic_passages
from rose_easyedit.method.stage2.constraints import Spectrum
from rose_easyedit.models.architectures import EditableModel
from rose_easyedit.models.fingerprint import computation_fingerprint
from rose_easyedit.models.precision import computing_dtype, precision_context
from rose_easyedit.text.chat import Arguments
from rose_easyedit.text.token_ids import check_ids

logger = logging.getLogger(__name__)

_BATCH = 32
# With fewer generic keys than this a direction, the last of the leading directions are noise.
_KEYS_PER_DIRECTION = 2
# The rows of a file that are found whole without reading the others: a model of 8 billion weights
# has 500 MB of them a layer.
_FIRST = 512


def load_spectra(
    editable: EditableModel,
    tokenizer: PreTrainedTokenizerBase,
    layers: Sequence[int],
    hparams: AlignmentHyperParams,
    folder: Path | None = None,
    precision: str = "weights",
    leading: int | None = None,
    arguments: Arguments | None = None,
) -> dict[int, Spectrum]:
    """The spectrum of each layer, from disk where a whole and matching file is there.

    Args:
        editable: the model; call inside `activations.frozen`.
        tokenizer: its tokenizer.
        layers: the edited layers.
        hparams: the text and how many tokens of it.
        folder: where the files are; None takes the user's cache folder.
        precision: in which the model reads the text, as `precision_context` has it.
        leading: how many directions are wanted, those of the largest eigenvalues; None is all.
        arguments: what the chat template is told (`chat.arguments_used`).

    Raises:
        RoSEError: the text cannot be read or is empty, or the memory does not hold one passage.
    """
    passages = generic_passages(tokenizer, hparams, arguments)
    check_ids(editable.model, (passage.ids for passage in passages))
    n_keys = sum(1 if passage.last_only else len(passage.ids) for passage in passages)
    if leading is not None and leading * _KEYS_PER_DIRECTION > n_keys:
        logger.warning(
            "%d directions shall be protected, and the generic text has %d keys to tell them by, "
            "fewer than %d each; give more text (statistics_text, statistics_tokens) or protect "
            "fewer (protected_share)",
            leading,
            n_keys,
            _KEYS_PER_DIRECTION,
        )
    folder = folder or cache_dir() / "statistics"
    base = computation_fingerprint(editable.model)
    read_in = computing_dtype(precision, editable.model)
    # which sum in another order
    computed_by = f"{editable.device.type}:{torch.get_num_threads()}"
    keys = {layer: _key(f"{base}:{read_in}:{computed_by}:{layer}", passages) for layer in layers}
    paths = {layer: folder / f"{key}.safetensors" for layer, key in keys.items()}
    stored = {
        layer: _load(path, leading, editable.key_width(layer)) for layer, path in paths.items()
    }
    spectra = {layer: spectrum for layer, spectrum in stored.items() if spectrum is not None}
    missing = [layer for layer in layers if layer not in spectra]
    if missing:
        with precision_context(precision, editable.model)():
            found, _ = within_memory(partial(_collect, editable, passages, missing), _BATCH)
        for layer in missing:
            spectrum = spectrum_on(editable.device, found.pop(layer))
            spectra[layer] = spectrum.first(leading)
            try:
                _save(paths[layer], spectrum)
            except OSError as error:
                logger.warning("statistics are not kept for the next edit: %s", error)
    device = editable.device
    return {
        layer: Spectrum(spectrum.eigenvalues.to(device), spectrum.directions.to(device))
        for layer, spectrum in spectra.items()
    }


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


def _key(of_layer: str, passages: Sequence[Passage]) -> str:
    text = json.dumps([(p.ids, p.weight, p.last_only) for p in passages])
    return hashlib.sha256(f"{of_layer}:{text}".encode()).hexdigest()[:32]


def _load(path: Path, leading: int | None, width: int) -> Spectrum | None:
    """What is kept of a layer whose keys are so wide; None if nothing is, or it is damaged."""
    first = leading is not None and leading <= _FIRST
    try:
        # a slice is made on the default device, unlike a whole tensor
        if not path.is_file():
            return None
        with safe_open(path, framework="pt") as file, torch.device("cpu"):
            directions = file.get_slice("directions")
            read = directions[:_FIRST] if first else directions[:]
            # copies: what is checked is used, whatever becomes of the file
            spectrum = Spectrum(file.get_tensor("eigenvalues").clone(), read.clone())
            digest = file.metadata()["sha256"].split()[1 if first else 0]
        whole = _is_spectrum(spectrum, width) and digest == _digest(path.stem, spectrum)
    # RuntimeError: a type of number that PyTorch does not compute with
    except (OSError, SafetensorError, KeyError, IndexError, TypeError, RuntimeError):
        return None
    return spectrum.first(leading) if whole else None


def _is_spectrum(found: Spectrum, width: int) -> bool:
    values, directions = found.eigenvalues, found.directions
    return (
        values.dtype == directions.dtype == torch.float32
        and values.dim() == 1
        and directions.shape in ((len(values), width), (min(len(values), _FIRST), width))
        and bool(values.isfinite().all() and directions.isfinite().all())
    )


def _save(path: Path, spectrum: Spectrum) -> None:
    first = Spectrum(spectrum.eigenvalues, spectrum.directions[:_FIRST])
    # one entry: several have no order
    digests = f"{_digest(path.stem, spectrum)} {_digest(path.stem, first)}"
    tensors = {"eigenvalues": spectrum.eigenvalues, "directions": spectrum.directions}
    write_whole(path, save(tensors, metadata={"sha256": digests}))


def _digest(key: str, spectrum: Spectrum) -> str:
    """Of a spectrum that is filed under a key: no entry stands for another one."""
    digest = hashlib.sha256(key.encode())
    digest.update(spectrum.eigenvalues.numpy().tobytes())
    digest.update(spectrum.directions.numpy().tobytes())
    return digest.hexdigest()
