"""The laboratory as a whole: its model as it is shipped, whom it knows, and how well."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rose_easyedit.config.hparams import RoSEHyperParams
from rose_easyedit.evaluation.laboratory.population import Population
from rose_easyedit.evaluation.laboratory.world import Person, relations
from rose_easyedit.evaluation.native import NativeRates
from rose_easyedit.models.loading import LABORATORY, LABORATORY_FOLDER, load_model

RECORD = "laboratory.json"


@dataclass(frozen=True)
class Laboratory(Population):
    """The trained model of the invented world.

    Attributes:
        model: In evaluation mode, float32.
        tokenizer: Word-level, with a chat template.
        consistency: Per form, how often the model is right about people whom it was never asked
            about.
    """

    model: Any
    tokenizer: Any
    consistency: Mapping[str, float]

    @property
    def native(self) -> NativeRates:
        """How often the model is right about people whom it was never asked about."""
        return _rates(self.consistency)

    def hparams(self, preset: str = "rose", **overrides: Any) -> RoSEHyperParams:
        """A method's settings for this model, with generic text of its own world.

        Args:
            preset: "rose" is what is shipped for it, any other a preset on top of that.
            overrides: As `RoSEHyperParams.with_overrides`.
        """
        return RoSEHyperParams.preset(preset, "laboratory").with_overrides(**overrides)


def load_laboratory() -> Laboratory:
    """The shipped model and its world."""
    model, tokenizer = load_model(LABORATORY)
    return Laboratory(
        population().people, model, tokenizer, _record(LABORATORY_FOLDER)["consistency"]
    )


def population() -> Population:
    """The people whom the shipped model knows; nothing of the model is read."""
    return Population(tuple(Person(**person) for person in _record(LABORATORY_FOLDER)["people"]))


def laboratory_rates(folder: Path) -> NativeRates | None:
    """The native rates of the laboratory in a folder, or None if there is no laboratory."""
    if not (folder / RECORD).is_file():
        return None
    return _rates(_record(folder)["consistency"])


def _record(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    return found


def _rates(consistency: Mapping[str, float]) -> NativeRates:
    """The same in all relations: a form's rate is that over all of them."""
    return {
        (relation.name, form): share
        for relation in relations()
        for form, share in consistency.items()
    }
