"""EditDelta: an edit as an object, small, revertible, and bound to its base model."""

from __future__ import annotations

import re
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rose_easyedit.edits.applied import AppliedEdit
from rose_easyedit.edits.factors import Factors
from rose_easyedit.edits.file import EditRecord, read_edit, write_edit
from rose_easyedit.edits.provenance import Provenance
from rose_easyedit.errors import RoSEError
from rose_easyedit.models.fingerprint import weights_fingerprint
from rose_easyedit.models.lock import model_lock
from rose_easyedit.models.offload import is_on_disk, stored_weight
from rose_easyedit.restoring import restoring, uninterrupted

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# What weights may be stored as, number by number; quantised ones need their scales as well.
_IN_PLACE = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@dataclass(eq=False, repr=False)
class EditDelta:
    """The update of each edited weight, and where it came from.

    Attributes:
        layers: weight name, as in the model's state dict, to its low-rank update.
        base: SHA-256 of the edited weights before the edit.
        provenance: what it says of itself; plain data of it are read (`Provenance.from_dict`).
        targets: z_s, the hidden state after the target layer that each group of requests was to
            get, [n, d]; the groups are those of `provenance.groups`, in order. They say how far
            a query lands from what was meant (`geometry`); None if the edit is not of that kind.
    """

    layers: dict[str, Factors]
    base: str
    provenance: Provenance = field(default_factory=Provenance)
    targets: Tensor | None = None
    _records: weakref.WeakKeyDictionary[Any, AppliedEdit] = field(
        default_factory=weakref.WeakKeyDictionary, init=False, repr=False
    )

    def __post_init__(self) -> None:
        # an edit that was made elsewhere may bring plain data
        if not isinstance(self.provenance, Provenance):
            self.provenance = Provenance.from_dict(self.provenance)

    def __repr__(self) -> str:
        """One line: facts, subjects, layers, size and base."""
        requests = self.provenance.requests
        about = {request.get("subject") for request in requests}
        numbers = [re.findall(r"\d+", name) for name in self.layers]
        layers = ", ".join(found[0] if found else "?" for found in numbers)
        return (
            f"EditDelta(facts: {len(requests)}, subjects: {len(about)}, layers: {layers}, "
            f"numbers: {self.n_parameters:,}, base: {self.base[:12]})"
        )

    @property
    def n_parameters(self) -> int:
        """Numbers that the edit holds."""
        return sum(f.left.numel() + f.right.numel() for f in self.layers.values())

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the update itself, without what is on record of it."""
        parts = {f"{name}.left": factors.left for name, factors in self.layers.items()}
        parts |= {f"{name}.right": factors.right for name, factors in self.layers.items()}
        return weights_fingerprint(parts.items())

    def is_of(self, model: PreTrainedModel) -> bool:
        """Whether a model is the edit's base: its weights to be edited are that, bit for bit.

        Raises:
            RoSEError: the model has no such weights, or they cannot be edited.
        """
        return weights_fingerprint(self._weights_of(model).items()) == self.base

    def is_applied(self, model: PreTrainedModel) -> bool:
        """Whether this object has edited that model, and nobody has put its weights back."""
        if model not in self._records:
            return False
        return not self._records[model].is_undone(self._weights_of(model))

    def apply(self, model: PreTrainedModel, *, verify: bool = True) -> None:
        """Adds the edit to the model's weights, computed in float64, rounded to their type.

        Args:
            model: the base model.
            verify: refuse any model whose edited weights are not, bit for bit, those of the
                base. Without it only names and shapes must fit (the same model in another
                precision, say).

        Raises:
            RoSEError: the edit is applied already, or this is not its base; nothing is changed.
        """
        with model_lock(model):
            self._apply(model, verify)

    def _apply(self, model: PreTrainedModel, verify: bool) -> None:
        if self.is_applied(model):
            raise RoSEError("This edit is applied to this model already; revert it first.")
        weights = self._weights_of(model)
        if verify and not self.is_of(model):
            raise RoSEError(
                f"The weights {', '.join(weights)} of this model are not those that this edit was "
                "computed for: it is another model, another precision, or edited already. Load "
                "the base model, or pass verify=False to apply it all the same."
            )
        edited = {
            name: (weight.double() + self.layers[name].dense().to(weight.device)).to(weight.dtype)
            for name, weight in weights.items()
        }
        bad = [name for name, weight in edited.items() if not bool(weight.isfinite().all())]
        if bad:
            raise RoSEError(
                f"The edited weights {', '.join(bad)} are not finite; the edit is damaged."
            )
        originals = {name: weight.clone() for name, weight in weights.items()}
        digests = {name: weights_fingerprint([(name, weight)]) for name, weight in edited.items()}
        try:
            self._records[model] = AppliedEdit(originals, digests)
            for name, weight in weights.items():
                weight.copy_(edited[name])
        except BaseException:
            uninterrupted(lambda: self._restore(model))
            raise

    def revert(self, model: PreTrainedModel) -> None:
        """Puts the weights back as `apply` found them, bit for bit.

        Raises:
            RoSEError: this object has not edited that model, or its weights have changed since
                (by a later edit, say); nothing is changed.
        """
        with model_lock(model):
            self._revert(model)

    def _revert(self, model: PreTrainedModel) -> None:
        if not self.is_applied(model):
            raise RoSEError(
                "This edit is not applied to this model by this object, so its original weights "
                "are not at hand; reload the base model."
            )
        weights, record = self._weights_of(model), self._records[model]
        changed = [
            name
            for name, weight in weights.items()
            if not record.is_edited(name, weight) and not record.is_original(name, weight)
        ]
        if changed:
            raise RoSEError(
                f"The weights {', '.join(changed)} have changed since this edit was applied, and "
                "putting them back would lose that change: revert later edits first, the last "
                "one first, or reload the base model."
            )
        uninterrupted(lambda: self._restore(model))

    def release(self, model: PreTrainedModel) -> None:
        """Lets go of the copy of the original weights, where another hand has put them back.

        `apply` keeps that copy for `revert`, which lets go of it too. An edit that is applied
        keeps it.
        """
        if model in self._records and not self.is_applied(model):
            del self._records[model]

    @restoring
    def applied(self, model: PreTrainedModel, *, verify: bool = True) -> Iterator[PreTrainedModel]:
        """The edited model inside the block, the base model again after it.

        An interrupt is raised once the weights are back. Other threads that would use the model
        through this package wait for the end of the block.
        """
        with model_lock(model):
            before = self._records.get(model)
            try:
                self.apply(model, verify=verify)
                yield model
            finally:
                # not where `apply` has refused, or has put the weights back itself
                if self._records.get(model) is not before:
                    self.revert(model)

    def _restore(self, model: PreTrainedModel) -> None:
        """Puts the weights back, if they were changed; begun again, it ends alike."""
        record = self._records.get(model)
        if record is not None:
            weights = self._weights_of(model)
            for name, original in record.originals.items():
                weights[name].copy_(original)
            del self._records[model]

    def save(self, path: str | Path, *, replace: bool = True) -> Path:
        """Writes one safetensors file, its provenance in the header; whole or not at all.

        Args:
            path: of the file.
            replace: a file of that name; otherwise it is refused.

        Raises:
            RoSEError: there is a file of that name, which is not to be replaced.
        """
        return write_edit(Path(path), self.as_record(), replace=replace)

    @classmethod
    def load(cls, path: str | Path) -> EditDelta:
        """Reads what `save` wrote.

        Raises:
            RoSEError: there is no such file, it is damaged, or it is no edit.
        """
        return cls.from_record(read_edit(Path(path)))

    def as_record(self) -> EditRecord:
        """What a file holds of it."""
        return EditRecord(self.layers, self.base, self.provenance.as_dict(), self.targets)

    @classmethod
    def from_record(cls, record: EditRecord) -> EditDelta:
        """The edit of a record that was read.

        Raises:
            RoSEError: what it says of itself cannot be read.
        """
        provenance = Provenance.from_dict(record.provenance)
        return cls(record.layers, record.base, provenance, record.targets)

    def _weights_of(self, model: PreTrainedModel) -> Mapping[str, Tensor]:
        """The weights that the edit changes, without gradients, checked by name and shape."""
        parameters = dict(model.named_parameters())
        faults = []
        for name, factors in self.layers.items():
            shape = (factors.left.shape[0], factors.right.shape[1])
            wanted = shape[::-1] if factors.transposed else shape
            if name not in parameters:
                faults.append(f"{name}: the model has no such weight{_if_quantised(model)}")
            # before its shape, which a quantised weight has another one of
            elif parameters[name].dtype not in _IN_PLACE:
                faults.append(f"{name}: {_not_in_place(parameters[name])}")
            elif tuple(parameters[name].shape) != wanted:
                faults.append(
                    f"{name}: shape {tuple(parameters[name].shape)}, the edit has {wanted}"
                )
            elif is_on_disk(model, name):
                faults.append(
                    f"{name}: offloaded to disk, where the files may be the model's own; apply "
                    "the edit to a model whose edited layers are in memory, or use "
                    "save_peft_lora beside it"
                )
            elif stored_weight(model, name).is_meta:
                faults.append(f"{name}: {_not_in_place(parameters[name])}")
        if faults:
            raise RoSEError.of("This edit does not fit the model:", faults)
        return {name: stored_weight(model, name) for name in self.layers}


def _not_in_place(weight: Tensor) -> str:
    return (
        f"{weight.dtype} on {weight.device} cannot be edited in place; use save_peft_lora beside it"
    )


def _if_quantised(model: PreTrainedModel) -> str:
    """What to do about a weight that a quantised model does not have; empty for any other."""
    if not getattr(model, "quantization_method", None):
        return ""
    return " under that name, since it is quantised; use save_peft_lora beside it"
