"""How far an edit moves what comes next after texts that it is not about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from rose_easyedit.edits.factors import Factors
from rose_easyedit.forward.activations import SubjectStates, with_updates
from rose_easyedit.forward.layerwise import Reader, Stack
from rose_easyedit.models.architectures import EditableModel
from rose_easyedit.text.locate_subject import TokenQuery


class NextTokens:
    """The token after each of some texts, without an edit and under several ones."""

    def __init__(
        self, editable: EditableModel, texts: Sequence[Sequence[int]], first: int, batch: int
    ) -> None:
        """Reads the texts with the weights as they are.

        Args:
            editable: the unedited model; call inside `frozen`, as the methods.
            texts: Q of them as token ids; at least one.
            first: the first layer that the edits change.
            batch: sequences at once; fewer where the memory does not hold them.

        Raises:
            RoSEError: the memory does not hold one sequence.
        """
        self._editable, self._first = editable, first
        whole = [TokenQuery(tuple(ids), len(ids) - 1, 0) for ids in texts]
        start = partial(Stack.before, editable, whole, first, editable.n_layers - 1)
        self._reader, unedited = Reader.begin(start, batch)
        self._before = self._log_probabilities(unedited)  # [Q, vocabulary]

    def drift(self, updates: Mapping[int, Factors]) -> tuple[Tensor, Tensor]:
        """What updates (layer to update) do to the next token.

        Returns:
            KL(before || after) of each text, nats, [Q]; and whether the likeliest token is the same
            one, [Q].
        """
        with with_updates(self._editable, updates):
            after = self._log_probabilities(self._reader.states(self._first))
        moved = torch.nn.functional.kl_div(after, self._before, reduction="none", log_target=True)
        return moved.sum(-1), after.argmax(-1) == self._before.argmax(-1)

    @torch.no_grad()
    def _log_probabilities(self, states: SubjectStates) -> Tensor:
        hidden = states.hidden.to(self._editable.model.dtype)
        return self._editable.log_probabilities(hidden)
