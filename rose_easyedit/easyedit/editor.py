"""RoSE behind EasyEdit's BaseEditor: the only module that uses easyeditor.

`BaseEditor` is an attribute of this module that comes into being, and brings easyeditor in, when
it is first asked for.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rose_easyedit.config.hparams import RoSEHyperParams
from rose_easyedit.easyedit.arguments import (
    check_requests,
    edits_stay,
    flat,
    listed,
    takes,
    warn_of_ignored,
    without_words_of_restoring,
)
from rose_easyedit.easyedit.importing import import_easyeditor
from rose_easyedit.easyedit.tracking import track_edit, track_metrics
from rose_easyedit.errors import RoSEError
from rose_easyedit.models.loading import load_model
from rose_easyedit.requests import as_requests
from rose_easyedit.restoring import restoring

if TYPE_CHECKING:
    from torch import Tensor

    from rose_easyedit.edits.delta import EditDelta

ALG_NAME = "RoSE"

_ONE_AT_A_TIME = ("edit", "edit_requests", "generate_edit")
_IN_BATCHES = ("batch_edit", "normal_edit", "edit_dataset")
# How many requests are one edit; None is all of them.
_AT_ONCE: dict[str, Callable[[RoSEHyperParams], int | None]] = {
    **dict.fromkeys(_ONE_AT_A_TIME, lambda hparams: 1),
    **dict.fromkeys(_IN_BATCHES, lambda hparams: hparams.batch_size),
    "normal_edit": lambda hparams: None,
}
# What the PyPI release calls the same two arguments of batch_edit.
_FORMER_NAMES = {
    "locality_inputs": "locality_prompts",
    "portability_inputs": "locality_ground_truth",
}


class OriginalWeights(dict[str, "Tensor"]):
    """The edited parameters as they were, by name, in the form from which EasyEdit restores them.

    Attributes:
        deltas: the edits, in the order in which they were made.
    """

    def __init__(self, originals: Mapping[str, Tensor], deltas: Iterable[EditDelta]) -> None:
        super().__init__(originals)
        self.deltas = tuple(deltas)

    def take_along(self, later: OriginalWeights) -> None:
        """Adds what was edited after these; the earliest original of a parameter stays."""
        for name, original in later.items():
            self.setdefault(name, original)
        self.deltas += later.deltas

    @property
    def delta(self) -> EditDelta:
        """The edit.

        Raises:
            RoSEError: the call made several edits.
        """
        if len(self.deltas) != 1:
            raise RoSEError(
                f"The call made {len(self.deltas)} edits, one after the other; take one of "
                "`deltas`, or write all facts in one edit: batch_edit with a batch_size that "
                "holds them."
            )
        return self.deltas[0]


def register() -> None:
    """Makes RoSE known to easyeditor, whose own BaseEditor then takes RoSEHyperParams.

    Raises:
        RoSEError: easyeditor is not installed.
    """
    import_easyeditor()
    from easyeditor.editors.batch_editor import BatchEditor
    from easyeditor.util.alg_dict import ALG_DICT

    ALG_DICT[ALG_NAME] = apply_rose_to_model
    batchable = BatchEditor.is_batchable_method
    if not batchable(ALG_NAME):
        BatchEditor.is_batchable_method = staticmethod(
            lambda alg_name: alg_name == ALG_NAME or batchable(alg_name)
        )


def apply_rose_to_model(
    model: Any,
    tok: Any,
    requests: list[dict[str, Any]],
    hparams: RoSEHyperParams,
    copy: bool = False,
    return_orig_weights: bool = True,
    keep_original_weight: bool = False,
    train_ds: Any = None,
    **kwargs: Any,
) -> tuple[Any, OriginalWeights]:
    """Writes facts into a model, as EasyEdit calls an editing method.

    Args:
        model: a causal language model.
        tok: its tokenizer.
        requests: records with EasyEdit's field names; `subject` is needed.
        hparams: the settings.
        copy: edit a copy and leave the model alone.
        return_orig_weights: hand back what is needed to undo the edit.
        keep_original_weight: of no effect here, since whoever calls restores the model, from what
            is handed back; `BaseEditor` of this module lets the edit stay where it is false.
        train_ds: of other methods; a warning says so, as for each of `kwargs`.
        kwargs: taken so that a host may hand over more.

    Returns:
        The edited model and its `OriginalWeights`.

    Raises:
        RoSEError: faulty requests, all named; the model is not changed.
    """
    import torch

    from rose_easyedit.method.edit import compute_edit
    from rose_easyedit.models.offload import is_offloaded

    if is_offloaded(model):
        raise RoSEError(
            "EasyEdit cannot put offloaded weights back; edit such a model with "
            "rose_easyedit.edit, or load the whole of it on one device."
        )
    for name, value in {"train_ds": train_ds, **kwargs}.items():
        if value is not None:
            warnings.warn(f"{name} is ignored: RoSE has no use for it", stacklevel=2)
    delta = compute_edit(model, tok, as_requests(requests), hparams)
    track_edit(delta, hparams.tracking)
    edited = deepcopy(model) if copy else model
    originals: dict[str, torch.Tensor] = {}
    if return_orig_weights:
        originals = {name: edited.get_parameter(name).detach().clone() for name in delta.layers}
    delta.apply(edited)
    return edited, OriginalWeights(originals, [delta])


class _LoadedModel(str):
    """A model name for easyeditor that unpacks to the model and the tokenizer.

    easyeditor takes (model, tokenizer) in place of a name, and later looks for substrings of the
    name; the model type is a name in which it finds nothing by accident, unlike a path.
    """

    model: Any
    tokenizer: Any

    def __new__(cls, model: Any, tokenizer: Any) -> _LoadedModel:
        name = super().__new__(cls, model.config.model_type)
        name.model, name.tokenizer = model, tokenizer
        return name

    def __iter__(self) -> Iterator[Any]:
        return iter((self.model, self.tokenizer))


@functools.cache
def _base_editor() -> type:
    """The class, made once easyeditor is in: a base cannot come later than its subclass."""
    register()
    from easyeditor import BaseEditor as Host

    class BaseEditor(Host):
        """EasyEdit's BaseEditor, with RoSE among its methods.

        With RoSEHyperParams the model is loaded by `rose_easyedit.load_model`, so that "embedded",
        any folder and any architecture work; `model_name` may also be a (model, tokenizer) pair.
        The settings of every other method go to EasyEdit untouched.

        `edit` makes one edit per request, `batch_edit` one per `batch_size` requests, `normal_edit`
        (which takes `subject=` too) one of all. Each returns EasyEdit's metrics, the model, and the
        `OriginalWeights` as they were before the call, whose `delta` is the edit. The model is
        restored, bit for bit, also after an error or an interrupt, unless `sequential_edit=True`,
        or `keep_original_weight=False`, lets the edits stay. Faulty requests are refused together,
        with their indices, before anything is computed; a warning names each argument that nothing
        makes use of.

        `batch_edit` of the PyPI release returns the metrics of the last batch only; `deltas` has
        the edits of all of them.
        """

        __qualname__ = "BaseEditor"  # whoever looks for it, pickle too, finds it in this module

        def __init__(self, hparams: Any) -> None:
            if getattr(hparams, "alg_name", None) != ALG_NAME:
                super().__init__(hparams)
                return
            model, tokenizer = _model_of(hparams)
            super().__init__(replace(hparams, model_name=_LoadedModel(model, tokenizer)))
            self.hparams = hparams

        edit = _around(Host, Host.edit)
        edit_requests = _around(Host, Host.edit_requests)
        batch_edit = _around(Host, Host.batch_edit)
        # what one EasyEdit has and another has not: its repository's, and the PyPI release's
        if hasattr(Host, "normal_edit"):
            normal_edit = _around(Host, Host.normal_edit)
        if hasattr(Host, "generate_edit"):
            generate_edit = _around(Host, Host.generate_edit)
        if hasattr(Host, "edit_dataset"):
            edit_dataset = _around(Host, Host.edit_dataset)

    return BaseEditor


def _model_of(hparams: RoSEHyperParams) -> tuple[Any, Any]:
    named: Any = hparams.model_name
    if isinstance(named, str):
        return load_model(named, hparams.device, "float16" if hparams.fp16 else "auto")
    model, tokenizer = named
    if tokenizer.pad_token is None:  # EasyEdit's evaluation pads
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer


def _around(host: type, host_method: Callable[..., Any]) -> Callable[..., Any]:
    """An editing method of the host that gives back its `OriginalWeights` for the whole call."""
    name = host_method.__name__
    parameters = inspect.signature(host_method).parameters
    lacks = "prompts" in parameters and not takes(host_method, "subject")

    @functools.wraps(host_method)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.apply_algo is not apply_rose_to_model:  # another method, or a call within a call
            return host_method(self, *args, **kwargs)
        for now, former in _FORMER_NAMES.items():
            if now in kwargs and former in parameters:
                kwargs[former] = kwargs.pop(now)
        # what the host does not pass on; edits are given it here
        own = listed({"subject": kwargs.pop("subject")}) if lacks and "subject" in kwargs else {}
        bound = inspect.signature(host_method).bind(
            self, *args, **without_words_of_restoring(host_method, kwargs)
        )
        given = listed(flat(bound))
        del given["self"]
        stay = edits_stay(kwargs | given)
        warn_of_ignored(host_method, host, given)
        check_requests(name, given | own, _AT_ONCE[name](self.hparams))
        with _call(self, stay, name in _ONE_AT_A_TIME, own.get("subject", ())) as written:
            metrics, model, _ = host_method(self, **given)
            track_metrics(metrics, self.hparams.tracking)
        return metrics, model, written

    return method


@restoring
def _call(
    editor: Any, keep: bool, one_at_a_time: bool, subjects: Iterable[str]
) -> Iterator[OriginalWeights]:
    """Runs one call of the host: what it writes stays (`keep`) or goes, whatever the host does.

    `subjects` are those of the requests, in order, where the host does not pass them on
    (`normal_edit`).

    EasyEdit asks for batch_size 1 in single edits (its PyPI release sets it), its metrics for
    several prompts at once are right with left padding only, and they put the padding token to the
    model; all three are put back afterwards.
    """
    from rose_easyedit.forward.generation import filler

    written = OriginalWeights({}, ())
    subject = iter(subjects)

    def apply(
        model: Any, tok: Any, requests: Iterable[dict[str, Any]], *args: Any, **kwargs: Any
    ) -> tuple[Any, OriginalWeights]:
        for delta in written.deltas[-1:]:
            if keep:
                _write_again(model, delta)
            else:
                delta.release(model)  # the host has put the weights back
        named = [{"subject": next(subject, None), **r} for r in requests]
        edited, weights = apply_rose_to_model(model, tok, named, *args, **kwargs)
        written.take_along(weights)
        return edited, weights

    model, tok, hparams = editor.model, editor.tok, editor.hparams
    padding = tok.padding_side, tok.pad_token
    named = isinstance(hparams.model_name, str)
    try:
        tok.padding_side = "left"
        tok.pad_token = tok.convert_ids_to_tokens(filler(model, tok))
        editor.apply_algo = apply
        editor.hparams = replace(
            hparams,
            model_name=hparams.model_name if named else model.name_or_path,
            batch_size=1 if one_at_a_time else hparams.batch_size,
        )
        yield written
        if not keep:
            _take_back(model, written)
        elif written.deltas:
            _write_again(model, written.deltas[-1])
    except BaseException:
        _take_back(model, written)
        raise
    finally:
        tok.padding_side, tok.pad_token = padding
        editor.apply_algo = apply_rose_to_model
        editor.hparams = hparams


def _write_again(model: Any, last: EditDelta) -> None:
    """Applies the last edit again if the host has undone it.

    The PyPI release and `normal_edit` do not know `sequential_edit`. Undone for the metrics "pre"
    and written again before the next edit, each edit still stands on those before it.
    """
    if not last.is_applied(model):
        last.apply(model)


def _take_back(model: Any, written: OriginalWeights) -> None:
    """Reverts the edits that the host has not undone, last one first."""
    for delta in reversed(written.deltas):
        if delta.is_applied(model):
            delta.revert(model)
        delta.release(model)


def __getattr__(name: str) -> Any:
    if name == "BaseEditor":
        return _base_editor()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
