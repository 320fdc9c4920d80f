"""What is measured of one edit: the tolerance of its targets, and where its queries land."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
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
from rose_easyedit.geometry.suffix import unit_directions
from rose_easyedit.models.architectures import EditableModel


@dataclass(frozen=True)
class Bench:
    """What every edit of the same facts is measured with.

    Attributes:
        model: the unedited model; frozen (`activations.frozen`).
        tokenizer: its tokenizer.
        editable: its modules.
        facts: F facts.
        probe: their queries.
        settings: how to measure.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    editable: EditableModel
    facts: Sequence[Fact]
    probe: Probe
    settings: DiagnosisSettings

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
        self, targets: Tensor, hparams: RoSEHyperParams
    ) -> tuple[tuple[Radius, ...], tuple[tuple[float, ...], ...]]:
        """R of each fact, and the landscape around the target of one subject, [directions, radii].

        Args:
            targets: z_s of each fact, [F, d].
            hparams: of the edit.
        """
        layer, width, how = hparams.target_layer, targets.shape[1], self.settings
        radii, norms = radii_of_facts(
            self.editable,
            self.probe.statements,
            targets,
            unit_directions(how.directions, width, how.seed),
            layer=layer,
            max_radius=how.max_radius,
            halvings=how.halvings,
            batch=hparams.micro_batch,
        )
        chosen = [i for i, fact in enumerate(self.facts) if fact.subject == self.landscape_subject]
        losses = losses_around(
            self.editable,
            [self.probe.statements[i] for i in chosen],
            targets[chosen],
            unit_directions(how.landscape_directions, width, how.seed),
            self.landscape_radii * norms[chosen].mean(),
            layer=layer,
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
        places = self.probe.places
        wanted = targets[[place.fact for place in places]]  # [Q, d]
        before = self._hidden(hparams)
        with delta.applied(self.model):
            after = self._hidden(hparams)
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

    def _hidden(self, hparams: RoSEHyperParams) -> Tensor:
        """h_L at the subject of every query, in the model as it is now, [Q, d]."""
        states = read_subject_states(
            self.editable,
            self.probe.queries,
            key_layer=hparams.target_layer,
            hidden_layer=hparams.target_layer,
            batch=hparams.micro_batch,
        )
        return states.hidden

    def _answers(self, places: Sequence[Place], hparams: RoSEHyperParams) -> list[str]:
        answers: dict[tuple[str, bool], str] = {}
        for chat in {place.chat: None for place in places}:
            texts = list(dict.fromkeys(place.text for place in places if place.chat == chat))
            said = generate_greedy(
                self.model,
                self.tokenizer,
                texts,
                chat=chat,
                max_new_tokens=self.settings.max_new_tokens,
                template_arguments=hparams.template_arguments,
            )
            answers |= {(text, chat): answer for text, answer in zip(texts, said, strict=True)}
        return [answers[place.text, place.chat] for place in places]
