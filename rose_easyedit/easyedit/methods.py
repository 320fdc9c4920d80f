"""EasyEdit's own methods run by its own functions, and all that they change put back afterwards."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import io
import random
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, chdir, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any
from unittest import mock

import numpy
import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from rose_easyedit.config.hparams import RoSEHyperParams
from rose_easyedit.easyedit.importing import generators_left_as_they_were, import_easyeditor
from rose_easyedit.easyedit.restored import attributes_left_as_they_were, model_left_as_it_was
from rose_easyedit.easyedit.settings import (
    METHODS,
    EasyEditSettings,
    HostMethod,
    host_hparams,
    host_name,
)
from rose_easyedit.easyedit.statistics import layer_statistics, second_moments
from rose_easyedit.errors import RoSEError, first_line
from rose_easyedit.forward.activations import hooked
from rose_easyedit.forward.generation import filler
from rose_easyedit.method.generic import generic_lines
from rose_easyedit.method.locating.automatic import with_layers
from rose_easyedit.models.architectures import EditableModel, read_architecture
from rose_easyedit.models.lock import model_lock
from rose_easyedit.models.modes import evaluation_mode
from rose_easyedit.models.offload import is_offloaded
from rose_easyedit.requests import EditRequest
from rose_easyedit.restoring import restoring

# What EasyEdit keeps in its modules from one call to the next, whatever the model; as it begins.
_STATE: Mapping[str, Callable[[], Any]] = {
    "CONTEXT_TEMPLATES_CACHE": lambda: None,
    "COV_CACHE": dict,
    "KZ_CACHE": dict,
    "inv_mom2_cache": dict,
    "P_loaded": bool,
    "cache_c_new": bool,
    "edit_history": list,
    "merge_group_edit_history": list,
}
# What AlphaEdit and SPHERE make in their modules beside it: a projection, and the keys so far.
_MADE = ("P", "cache_c")
_OUT_OF_SCOPE_TOKENS = 2048


@restoring
def edited_by_easyedit(
    model: Any,
    tokenizer: Any,
    requests: Sequence[EditRequest],
    asked: EasyEditSettings,
    hparams: RoSEHyperParams,
) -> Iterator[None]:
    """The model with facts in it that a method of EasyEdit's has written, inside the block.

    The method is EasyEdit's function, called as its editor calls it: with all facts at once where
    it writes them so, else with one after the other, each edit on top of those before. Second
    moments are of our statistics, contexts are generated under `hparams.seed`, and nothing of an
    earlier call is left over. Afterwards the model, the tokenizer, EasyEdit's own state, the random
    generators and the working directory are as before; the model bit for bit. Of several threads
    one runs EasyEdit at a time, and another that uses the same model waits for the block's end.

    Args:
        model: a causal language model, in evaluation mode inside the block.
        tokenizer: its tokenizer.
        requests: the facts.
        asked: the method and its settings (`settings.easyedit_faults` finds none).
        hparams: the model's settings of ours, from which the others follow.

    Raises:
        RoSEError: the model cannot be edited, EasyEdit does not have the method or take its
            settings, or the method fails, in EasyEdit's own words; the model is as before.
    """
    algorithm = asked.algorithm or ""
    method = METHODS[algorithm]
    if is_offloaded(model):
        raise RoSEError(
            "EasyEdit's methods cannot edit offloaded weights; load the whole model on one device."
        )
    editable = read_architecture(model)
    hparams = with_layers(model, tokenizer, hparams)
    apply, kind = _of_easyeditor(algorithm, method)
    values = host_hparams(kind, asked, editable, hparams, len(requests))
    if not method.together:
        values.sequential_edit = True  # else a call of WISE takes the one before it back
    moments = _moments(editable, tokenizer, values, hparams, method)
    records = [_record(request, method) for request in requests]
    if method.generic:
        records = _with_generic_texts(records, tokenizer, hparams)
    calls = [records] if method.together else [[record] for record in records]
    with model_lock(model), model_left_as_it_was(model), evaluation_mode(model):
        # its modules, the directory and the output are those of all threads, whatever the model
        with model_lock(import_easyeditor()), ExitStack() as surroundings:
            _enter(surroundings, editable, tokenizer, method, moments, hparams.seed)
            for call in calls:
                _call(apply, algorithm, model, tokenizer, call, values)
        model.eval().requires_grad_(False)
        yield


def _of_easyeditor(algorithm: str, method: HostMethod) -> tuple[Callable[..., Any], Any]:
    """EasyEdit's function of a method, and the class of its settings."""
    import_easyeditor()
    known = importlib.import_module("easyeditor.util.alg_dict")
    apply = known.ALG_DICT.get(algorithm)
    kind = getattr(known, method.hparams, None)
    if apply is None or kind is None:
        raise RoSEError(
            f"The EasyEdit that is installed has no {algorithm}; it has "
            f"{', '.join(sorted(set(known.ALG_DICT) & set(METHODS)))}. Put a clone of its "
            "repository on PYTHONPATH for the others."
        )
    if inspect.ismethod(apply):  # of an object that would keep the model
        apply = getattr(type(apply.__self__)(), apply.__name__)
    return apply, kind


def _moments(
    editable: EditableModel,
    tokenizer: Any,
    values: Any,
    hparams: RoSEHyperParams,
    method: HostMethod,
) -> Mapping[str, Tensor]:
    """The second moments that a method will ask for, of the unedited model."""
    if not (hasattr(values, "mom2_update_weight") or getattr(values, "mom2_adjustment", False)):
        return {}
    if missing := [layer for layer in values.layers if layer not in range(editable.n_layers)]:
        raise RoSEError(
            f"easyedit.settings.layers has {missing}, and the model's layers are 0 to "
            f"{editable.n_layers - 1}; name some of these."
        )
    return second_moments(editable, tokenizer, values.layers, hparams, method.inverts)


def _record(request: EditRequest, method: HostMethod) -> dict[str, Any]:
    record = request.as_dict()
    if method.spaced:
        record["target_new"] = f" {request.target_new}"
    return record


def _with_generic_texts(
    records: Sequence[dict[str, Any]], tokenizer: Any, hparams: RoSEHyperParams
) -> list[dict[str, Any]]:
    """The records, each with a line of generic text that is not about it."""
    lines = generic_lines(tokenizer, hparams.alignment.statistics_text, _OUT_OF_SCOPE_TOKENS)
    texts = [tokenizer.decode(ids) for ids in lines]
    return [r | {"loc_prompt": texts[i % len(texts)]} for i, r in enumerate(records)]


def _enter(
    surroundings: ExitStack,
    editable: EditableModel,
    tokenizer: Any,
    method: HostMethod,
    moments: Mapping[str, Tensor],
    seed: int,
) -> None:
    """Makes the surroundings that EasyEdit's functions take for granted, one after the other."""
    enter, model = surroundings.enter_context, editable.model
    enter(chdir(enter(TemporaryDirectory())))  # it writes files wherever it is
    enter(redirect_stdout(io.StringIO()))
    enter(warnings.catch_warnings())
    warnings.simplefilter("ignore")  # of old calls, which are not the user's to mend
    enter(generators_left_as_they_were())
    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    enter(torch.inference_mode(False))
    enter(torch.enable_grad())
    enter(_tokenizer_as_expected(editable, tokenizer, method))
    enter(_layers_as_expected(editable))
    # it looks for families in names, and LoRA leaves the cache of keys and values turned off
    enter(attributes_left_as_they_were(model.config, getattr(model, "generation_config", None)))
    for holder, name in ((model, "name_or_path"), (model.config, "_name_or_path")):
        if hasattr(holder, name):
            enter(mock.patch.object(holder, name, host_name(editable)))
    for module in _modules_of(method):
        held = vars(module)
        for name in _STATE.keys() & held.keys():
            enter(mock.patch.object(module, name, _STATE[name]()))
        for name in _MADE if "P_loaded" in held else ():
            enter(mock.patch.object(module, name, None, create=True))
        if callable(held.get("layer_stats")):
            enter(mock.patch.object(module, "layer_stats", layer_statistics(moments)))


@restoring
def _tokenizer_as_expected(
    editable: EditableModel, tokenizer: Any, method: HostMethod
) -> Iterator[None]:
    held = tokenizer.padding_side, tokenizer.pad_token, tokenizer.unk_token
    try:
        tokenizer.padding_side = method.padding
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(filler(editable.model, tokenizer))
        # the release's FT masks it without looking whether there is one
        if tokenizer.unk_token is None:
            tokenizer.unk_token = tokenizer.pad_token
        yield
    finally:
        tokenizer.padding_side, tokenizer.pad_token, tokenizer.unk_token = held


@restoring
def _layers_as_expected(editable: EditableModel) -> Iterator[None]:
    """The layers give tuples, as they did when the release was made, and take them.

    Its MEMIT changes the first entry in place.
    """
    nethook = importlib.import_module("easyeditor.util.nethook")
    if hasattr(nethook, "get_hidden_state"):  # a clone takes both
        yield
        return

    def wrapped(_module: Any, _args: Any, output: Any) -> Any:
        return output if isinstance(output, tuple) else (output,)

    def unwrapped(_module: Any, args: tuple[Any, ...]) -> Any:
        return (args[0][0], *args[1:]) if args and isinstance(args[0], tuple) else args

    takers = [*editable.layers[1:], editable.final_norm]

    def register() -> list[RemovableHandle]:
        return [
            *(layer.register_forward_hook(wrapped) for layer in editable.layers),
            *(taker.register_forward_pre_hook(unwrapped) for taker in takers),
        ]

    with hooked(register):
        yield


def _modules_of(method: HostMethod) -> list[ModuleType]:
    package = f"easyeditor.models.{method.package}"
    names = [name for name in sys.modules if name == package or name.startswith(f"{package}.")]
    return [sys.modules[name] for name in sorted(names)]


def _call(
    apply: Callable[..., Any],
    algorithm: str,
    model: Any,
    tokenizer: Any,
    records: list[dict[str, Any]],
    values: Any,
) -> None:
    """One call of EasyEdit's function.

    What it returns is the model that it has changed, or a wrapper of it.
    """
    try:
        apply(
            model,
            tokenizer,
            records,
            values,
            copy=False,
            return_orig_weights=False,
            keep_original_weight=False,
        )
    except RoSEError:
        raise
    except Exception as error:
        about = "" if len(records) > 1 else f" at {records[0]['prompt']!r}"
        raise RoSEError(
            f"EasyEdit's {algorithm} failed{about}, with {type(error).__name__}: "
            f"{first_line(str(error))} ({_place(error)}). The model is as it was before."
        ) from error


def _place(error: BaseException) -> str:
    """Where in EasyEdit an error arose: the innermost line of its own."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "easyeditor" in Path(frame.filename).parts] or frames
    path = Path(own[-1].filename)
    return f"{'/'.join(path.parts[-2:])}, line {own[-1].lineno}"
