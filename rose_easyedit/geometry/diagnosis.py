"""The diagnosis of one or several edits of the same facts: everything measured, and its summary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rose_easyedit.config.hparams import RoSEHyperParams
from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.errors import RoSEError
from rose_easyedit.evaluation.facts import Fact
from rose_easyedit.forward.activations import frozen
from rose_easyedit.geometry.bench import Bench
from rose_easyedit.geometry.conflict import Conflict, conflicts_within, fact_gradients
from rose_easyedit.geometry.edits import EditGeometry, targets_of
from rose_easyedit.geometry.places import Probe, read_probe
from rose_easyedit.geometry.settings import DiagnosisSettings
from rose_easyedit.geometry.similarity import KeySimilarity, key_similarity
from rose_easyedit.method.prepared import Prepared
from rose_easyedit.method.stage2.statistics import load_spectra
from rose_easyedit.models.lock import one_at_a_time


@dataclass(frozen=True)
class Diagnosis:
    """What was measured.

    Attributes:
        settings: how.
        facts: the facts, F.
        edits: the geometry of each edit, the one under diagnosis first.
        conflicts: of every two facts of a subject.
        similarity: of the unedited model's keys at the target layer.
        landscape_subject: whose losses the edits hold.
        landscape_radii: where, in multiples of |h|.
        spectra: eigenvalues of the second moment of generic keys, of each edited layer, descending.
        log: what was left out.
    """

    settings: DiagnosisSettings
    facts: tuple[Fact, ...]
    edits: tuple[EditGeometry, ...]
    conflicts: tuple[Conflict, ...]
    similarity: KeySimilarity
    landscape_subject: str
    landscape_radii: tuple[float, ...]
    spectra: dict[int, tuple[float, ...]]
    log: tuple[str, ...]

    def summary(self) -> dict[str, Any]:
        """The totals as plain data."""
        subjects = [fact.subject for fact in self.facts]
        scores = [conflict.score for conflict in self.conflicts]
        return {
            "facts": len(subjects),
            "subjects": len(set(subjects)),
            "edits": {edit.name: edit.summary(subjects) for edit in self.edits},
            "conflict": {"pairs": len(scores), "mean": fmean(scores) if scores else None},
            "key_cosine": {"within": self.similarity.within, "across": self.similarity.across},
        }

    def as_dict(self) -> dict[str, Any]:
        """Summary and all numbers as plain data, ready for JSON."""
        return {
            "settings": self.settings.as_dict(),
            "summary": self.summary(),
            "facts": [fact.to_request().as_dict() for fact in self.facts],
            "edits": [edit.as_dict() for edit in self.edits],
            "conflicts": [conflict.as_dict() for conflict in self.conflicts],
            "key_similarity": self.similarity.as_dict(),
            "landscape": {
                "subject": self.landscape_subject,
                "radii": list(self.landscape_radii),
            },
            "spectra": {str(layer): list(values) for layer, values in self.spectra.items()},
            "log": list(self.log),
        }


@one_at_a_time
def diagnose(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    facts: Sequence[Fact],
    edits: Mapping[str, EditDelta],
    settings: DiagnosisSettings | None = None,
) -> Diagnosis:
    """Measures the geometry of edits of the same facts; the model is as before afterwards.

    Args:
        model: the unedited model.
        tokenizer: its tokenizer.
        facts: F facts, all of them written by each edit.
        edits: by name, the one under diagnosis first; its settings say which layer is read and
            in which contexts.
        settings: how to measure.

    Raises:
        RoSEError: there is no fact or no edit, an edit has no targets or lacks one of the facts,
            or a subject cannot be read.
    """
    given = (("fact", facts), ("edit", edits))
    if faults := [f"there is no {name}; give at least one" for name, of in given if not of]:
        raise RoSEError.of("There is nothing to diagnose:", faults)
    settings = settings or DiagnosisSettings()
    hparams = [RoSEHyperParams.from_dict(delta.provenance.hparams) for delta in edits.values()]
    targets = [targets_of(delta, facts) for delta in edits.values()]
    prepared = Prepared.of(model, tokenizer, hparams[0])
    precision = prepared.autocast
    with frozen(model):
        probe = read_probe(prepared, facts)
        subjects = [fact.subject for fact in facts]
        gradients = _gradients(prepared, probe, subjects, hparams[0])
        spectra = load_spectra(prepared, hparams[0].layers, hparams[0].alignment)
        benches: dict[int, Bench] = {}
        measured: list[EditGeometry] = []
        for (name, delta), own, values in zip(edits.items(), hparams, targets, strict=True):
            layer = own.target_layer
            if layer not in benches:
                benches[layer] = Bench.of(model, tokenizer, facts, probe, settings, own, precision)
            bench = benches[layer]
            # tolerance is a matter of the targets alone, which edits may share
            twin = next(
                (m for m, z in zip(measured, targets, strict=False) if z.equal(values)), None
            )
            radii, losses = (twin.radii, twin.losses) if twin else bench.tolerance(values)
            queries = bench.landings(delta, values, radii, own)
            measured.append(EditGeometry(name, queries, radii, losses))
    return Diagnosis(
        settings=settings,
        facts=tuple(facts),
        edits=tuple(measured),
        conflicts=tuple(conflicts_within(gradients, subjects)),
        similarity=_similarity(probe, subjects),
        landscape_subject=bench.landscape_subject,
        landscape_radii=tuple(bench.landscape_radii.tolist()),
        spectra={layer: tuple(s.eigenvalues.tolist()) for layer, s in spectra.items()},
        log=tuple(probe.log),
    )


def _gradients(
    prepared: Prepared, probe: Probe, subjects: Sequence[str], hparams: RoSEHyperParams
) -> Tensor:
    """Of each fact's loss, [F, d]; 0 of a fact that is alone with its subject: none conflicts."""
    n_facts = Counter(subjects)
    return fact_gradients(
        prepared.editable,
        [
            contexts if n_facts[subject] > 1 else []
            for contexts, subject in zip(probe.contexts, subjects, strict=True)
        ],
        layer=hparams.target_layer,
        batch=hparams.micro_batch,
        precision=prepared.autocast,
    )


def _similarity(probe: Probe, subjects: Sequence[str]) -> KeySimilarity:
    return key_similarity(
        probe.keys,
        [subjects[place.fact] for place in probe.places],
        [place.form for place in probe.places],
        [place.query.key_prefix for place in probe.places],
    )
