"""`layers: auto`: the layers that causal tracing suggests, found once per model and kept."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from functools import partial
from importlib import resources

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rose_easyedit.cache.entries import Cache, CacheEntry, key_of
from rose_easyedit.config.hparams import AUTO, RoSEHyperParams
from rose_easyedit.config.paths import cache_dir
from rose_easyedit.errors import RoSEError, shown
from rose_easyedit.method.locating.exchanges import Exchange, exchanges
from rose_easyedit.method.locating.location import Location, locate
from rose_easyedit.models.fingerprint import computation_fingerprint
from rose_easyedit.requests import EditRequest

logger = logging.getLogger(__name__)

# Each prompt once.
_PAIRS = 64
# The number changes when what is traced, or how layers follow from it, does.
_FORMAT = 4


def with_layers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    hparams: RoSEHyperParams,
    computation: Callable[[], str] | None = None,
) -> RoSEHyperParams:
    """The settings with their layers named, where `layers` is "auto".

    Args:
        model: a causal language model that can be edited; it is left as it is.
        tokenizer: its tokenizer.
        hparams: any settings; those that name layers are returned as they are.
        computation: gives the model's `computation_fingerprint`, where it is known or wanted
            again; None finds it.

    Raises:
        RoSEError: tracing cannot tell where this model reads its subjects, with the reason.
    """
    if hparams.layers != AUTO:
        return hparams
    cache = Cache(cache_dir() / "layers")
    of_model = computation() if computation else computation_fingerprint(model)
    key = key_of([_FORMAT, of_model])
    layers = cache.read(key, partial(_kept, model.config.get_text_config().num_hidden_layers))
    if layers is None:
        layers = _traced(model, tokenizer)
        cache.write(key, CacheEntry({}, layers))
    return hparams.with_overrides(layers=layers)


def tracing_pairs(n: int = _PAIRS) -> list[Exchange]:
    """Built-in pairs of prompts about subjects that most models have read of."""
    text = resources.files("rose_easyedit.method").joinpath("data", "tracing_prompts.json")
    prompts: dict[str, Sequence[str]] = json.loads(text.read_text("utf-8"))
    requests = [
        EditRequest(prompt.format(subject), subject, "?")
        for prompt, subjects in prompts.items()
        for subject in subjects
    ]
    return exchanges(requests, n)


def _traced(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    logger.info("layers: auto: tracing where %s reads its subjects (once)", model.name_or_path)
    location = locate(model, tokenizer, tracing_pairs())
    if not location.layers:
        raise RoSEError(f"layers is auto, but {_why_not(location)}; name the layers to edit.")
    layers = list(location.layers)
    logger.warning(
        "layers: auto: causal tracing suggests %s of %s's %d layers; an edit there was not "
        "measured on this model. Put `layers: %s` into its settings to stay with them.",
        layers,
        model.name_or_path or "the model",
        len(next(iter(location.forms.values())).restored),
        layers,
    )
    return layers


def _why_not(location: Location) -> str:
    doubts = [f"{form}: {found.doubt}" for form, found in location.forms.items() if found.doubt]
    if len(doubts) < len(location.forms):
        return "statements and chats are read in no layer in common"
    return "causal tracing cannot tell where the subject is read (" + "; ".join(doubts) + ")"


def _kept(n_layers: int, entry: CacheEntry) -> list[int]:
    """The layers of an entry, which are some that the model has."""
    layers = entry.record
    fits = all(type(layer) is int and 0 <= layer < n_layers for layer in layers)
    if not (layers and fits and layers == sorted(set(layers))):
        raise ValueError(f"the layers {shown(layers)} of {n_layers}")
    return list(layers)
