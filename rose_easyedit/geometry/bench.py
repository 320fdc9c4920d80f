"""What is measured of one edit: the tolerance of its targets, and where its queries land."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rose_easyedit.config.hparams import RoSEHyperParams
from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.evaluation.facts import Fact
from rose_easyedit.evaluation.metrics import contains_target
from rose_easyedit.forward.activations import read_subject_states
from rose_easyedit.forward.generation import generate_greedy
from rose_easyedit.geometry.edits import QueryGeometry, deviations
from rose_easyedit.geometry.landscape import losses_around
from rose_easyedit.geometry.places import Place, Probe
from rose_easyedit.geometry.radius import Radius, radii_of_facts, summarise
from rose_easyedit.geometry.settings import DiagnosisSettings
from rose_easyedit.geometry.suffix import Precision, Suffixes, unit_directions
from rose_easyedit.models.architectures import EditableModel, read_architecture


@dataclass(frozen=True)
class Bench:
    """What every edit of the same facts that has one target layer is measured with.

    Attributes:
        model: the unedited model; frozen (`activations.frozen`).
        tokenizer: its tokenizer.
        editable: its modules.
        facts: F facts.
        places: Q queries about them.
        hidden: h_L at the subject of each query in the unedited model, [Q, d].
        suffixes: the layers behind the facts' statements.
        settings: how to measure.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    editable: EditableModel
    facts: Sequence[Fact]
    places: Sequence[Place]
    hidden: Tensor
    suffixes: Suffixes
    settings: DiagnosisSettings

    @classmethod
    def of(
        cls,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        facts: Sequence[Fact],
        probe: Probe,
        settings: DiagnosisSettings,
        hparams: RoSEHyperParams,
        precision: Precision,
    ) -> Bench:
        """Reads the unedited model at the target layer of an edit's settings.

        Args:
            model: the unedited model; call inside `activations.frozen`.
            tokenizer: its tokenizer.
            facts: F facts.
            probe: their queries, read at this layer or at another.
            settings: how to measure.
            hparams: of an edit.
            precision: from `precision_context`, of the unedited model.
        """
        editable, layer, batch = read_architecture(model), hparams.target_layer, hparams.micro_batch
        same = layer == probe.layer
        hidden = probe.hidden if same else hidden_at(editable, probe.places, layer, batch)
        suffixes = Suffixes.of(
            editable, probe.statements, layer=layer, batch=batch, precision=precision
        )
        return cls(model, tokenizer, editable, facts, probe.places, hidden, suffixes, settings)

    @property
    def landscape_subject(self) -> str:
        """The subject with most facts, the first of them."""
        subjects = [fact.subject for fact in self.facts]
        return max(subjects, key=subjects.count)

    @property
    def landscape_radii(self) -> Tensor:
        """In multiples of |h|, the target itself in the middle."""
        extent, points = self.settings.landscape_extent, self.settings.landscape_points
        return torch.linspace(-extent, extent, 2 * points + 1, dtype=torch.float32, device="cpu")

    def tolerance(
        self, targets: Tensor
    ) -> tuple[tuple[Radius, ...], tuple[tuple[float, ...], ...]]:
        """R of each fact, and the landscape around the target of one subject, [directions, radii].

        Args:
            targets: z_s of each fact, [F, d].
        """
        width, how, norms = targets.shape[1], self.settings, self.suffixes.norms
        radii = radii_of_facts(
            self.suffixes,
            targets,
            unit_directions(how.directions, width, how.seed),
            max_radius=how.max_radius,
            halvings=how.halvings,
        )
        of_subject = [fact.subject == self.landscape_subject for fact in self.facts]
        chosen = torch.tensor(of_subject, device="cpu").nonzero()[:, 0]
        losses = losses_around(
            self.suffixes,
            chosen,
            targets.cpu()[chosen],
            unit_directions(how.landscape_directions, width, how.seed),
            self.landscape_radii * norms[chosen].mean(),
        )
        summary = summarise(radii, norms, quantile=how.quantile, max_radius=how.max_radius)
        return tuple(summary), tuple(map(tuple, losses.tolist()))

    def landings(
        self,
        delta: EditDelta,
        targets: Tensor,
        radii: Sequence[Radius],
        hparams: RoSEHyperParams,
    ) -> tuple[QueryGeometry, ...]:
        """Where each query lands in the edited model, and what it answers.

        Args:
            delta: the edit.
            targets: z_s of each fact, [F, d].
            radii: R of each fact, F.
            hparams: of the edit.

        Raises:
            RoSEError: the model is not the edit's base.
        """
        places = self.places
        wanted = targets[[place.fact for place in places]]  # [Q, d]
        before, layer = self.hidden, hparams.target_layer
        with delta.applied(self.model):
            after = hidden_at(self.editable, places, layer, hparams.micro_batch)
            answers = self._answers(places, hparams)
        numbers = zip(
            deviations(after, wanted).tolist(),
            deviations(before, wanted).tolist(),
            wanted.norm(dim=1).tolist(),
            before.norm(dim=1).tolist(),
            strict=True,
        )
        return tuple(
            QueryGeometry(
                place.fact,
                place.form,
                place.text,
                *row,
                radius=radii[place.fact].radius,
                answer=answer,
                answered=contains_target(answer, fact.target_new, fact.target_aliases),
            )
            for place, row, answer in zip(places, numbers, answers, strict=True)
            for fact in [self.facts[place.fact]]
        )

    def _answers(self, places: Sequence[Place], hparams: RoSEHyperParams) -> list[str]:
        answers: dict[tuple[str, bool], str] = {}
        asked = list(dict.fromkeys((place.text, place.chat) for place in places))
        with tqdm(total=len(asked), desc="answers", unit="query", leave=False, disable=None) as bar:
            for in_chat in {place.chat: None for place in places}:
                texts = [text for text, chat in asked if chat == in_chat]
                said = generate_greedy(
                    self.model,
                    self.tokenizer,
                    texts,
                    chat=in_chat,
                    max_new_tokens=self.settings.max_new_tokens,
                    template_arguments=hparams.template_arguments,
                    progress=bar.update,
                )
                answers |= zip(((text, in_chat) for text in texts), said, strict=True)
        return [answers[place.text, place.chat] for place in places]


def hidden_at(editable: EditableModel, places: Sequence[Place], layer: int, batch: int) -> Tensor:
    """h_L at the subject of each of Q queries, in the model as it is now, [Q, d]."""
    queries = [place.query for place in places]
    states = read_subject_states(
        editable, queries, key_layer=layer, hidden_layer=layer, batch=batch
    )
    return states.hidden
