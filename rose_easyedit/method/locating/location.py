"""Where to edit a model: the layers between which the last subject token says who is spoken of.

A suggestion and not a verdict. Tracing finds where a subject is *read*; that an edit written there
also generalises has to be measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rose_easyedit.forward.activations import frozen
from rose_easyedit.method.contexts import reading_forms
from rose_easyedit.method.locating.exchanges import Exchange
from rose_easyedit.method.locating.tracing import Trace, trace_subject
from rose_easyedit.models.architectures import read_architecture
from rose_easyedit.models.lock import one_at_a_time
from rose_easyedit.text.locate_subject import TokenQuery
from rose_easyedit.text.token_ids import check_ids

# A pair tells something if the answer's probability is so much lower with the other subject; fewer
# such pairs than this are anecdotes.
LEAST_LOST = 0.1
LEAST_PAIRS = 8
# A layer below this share does not carry the subject, whatever the others do.
LEAST_RESTORED = 0.5
# A plateau is where the share is at least so much of the largest, or of all that was lost: a state
# that brings back more than was lost carries the subject no better.
OF_THE_LARGEST = 0.9
MOST_LAYERS = 5

_BATCH = 64  # each reads the head once for all of its pairs
_ENDS_WITH_SUBJECT = "every prompt ends with its subject, so there is no later token to read it"


@dataclass(frozen=True)
class FormTrace:
    """What tracing found in one form.

    Attributes:
        pairs: pairs that were traced.
        telling: those of them whose answer depends on the subject, and is more than the subject's
            name again; only these count below.
        lost: mean probability that the answer loses with the other subject, 0 without such a pair.
        restored: share of it that the state after each layer brings back, n_layers; empty
            without such a pair.
        plateau: the layers that carry the subject until it fades; empty if that cannot be told.
        doubt: why it cannot be told, in words; empty if it can.
    """

    pairs: int
    telling: int
    lost: float
    restored: tuple[float, ...]
    plateau: tuple[int, ...]
    doubt: str


@dataclass(frozen=True)
class Location:
    """Where tracing finds the subject, and what that suggests.

    Attributes:
        forms: by form, "statement" and, for a chat model, "chat".
        plateau: the layers on the plateau of every form that can be told; empty if none can, or
            if they have none in common.
        layers: suggested layers to edit, as `RoSEHyperParams.layers`; empty without a plateau.
        z_layer: suggested layer of the target; None without a plateau.
    """

    forms: Mapping[str, FormTrace]
    plateau: tuple[int, ...]
    layers: tuple[int, ...]
    z_layer: int | None

    def as_dict(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


@one_at_a_time
def locate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[Exchange],
    progress: Callable[[int], object] | None = None,
) -> Location:
    """Traces the last subject token, form by form, and suggests layers; the model is unchanged.

    Args:
        model: a causal language model that can be edited.
        tokenizer: its tokenizer.
        pairs: from `exchanges`.
        progress: called with the number of pairs finished in a form after each batch.
    """
    editable = read_architecture(model)
    forms = {}
    for form, asked in _asked(tokenizer, pairs).items():
        if not asked:
            forms[form] = FormTrace(0, 0, 0.0, (), (), _ENDS_WITH_SUBJECT)
            continue
        check_ids(model, (query.ids for _, queries in asked for query in queries))
        subjects = [pair.subject for pair, _ in asked]

        def telling(answers: Tensor, lost: Tensor, subjects: Sequence[str] = subjects) -> Tensor:
            return _telling(lost, _repeated(tokenizer, answers, subjects))

        with frozen(model):
            trace = trace_subject(
                editable,
                [queries for _, queries in asked],
                batch=_BATCH,
                progress=progress,
                telling=telling,
            )
        forms[form] = form_trace(trace, _repeated(tokenizer, trace.answers, subjects))
    return suggest(forms, bounded=any(norm is not None for norm in editable.post_norms))


def form_trace(trace: Trace, repeats: Sequence[bool]) -> FormTrace:
    """Shares and plateau of the pairs that tell something, or why there is no plateau.

    Args:
        trace: of n pairs; of those that tell nothing the layers are not read.
        repeats: whether the answer is only the subject's name again, n.
    """
    lost = trace.clean - trace.exchanged
    telling = _telling(lost, repeats)
    n_telling = int(telling.sum())
    restored: tuple[float, ...] = ()
    if n_telling:
        fields = (trace.answers, trace.clean, trace.exchanged, trace.patched)
        restored = tuple(Trace(*(field[telling] for field in fields)).restored.tolist())
    doubt = ""
    if n_telling < LEAST_PAIRS:
        doubt = (
            f"the answer depends on the subject in {n_telling} of {len(lost)} pairs, and fewer "
            f"than {LEAST_PAIRS} tell nothing; give facts that the model knows, or more pairs"
        )
    elif max(restored) < LEAST_RESTORED:
        doubt = (
            f"no layer brings back half of what is lost ({max(restored):.2f} at the most), so the "
            "subject is not read at its last token alone"
        )
    return FormTrace(
        pairs=len(lost),
        telling=n_telling,
        lost=float(lost[telling].mean()) if n_telling else 0.0,
        restored=restored,
        plateau=() if doubt else _plateau(restored),
        doubt=doubt,
    )


def suggest(forms: Mapping[str, FormTrace], *, bounded: bool = False) -> Location:
    """The middle of the plateau that all forms share.

    A value set before the plateau is not yet all that is known of the subject, one set after it
    comes too late to be read. Within it tracing prefers no layer, so the middle is suggested: at
    most five layers (the whole of a shorter plateau), the target at the last of them. Where a norm
    bounds what each layer can give, every layer before those is wanted as well: their sum has to
    reach the target.

    Args:
        forms: what tracing found in each form.
        bounded: whether there are norms behind the down projections.
    """
    plateaus = [set(form.plateau) for form in forms.values() if not form.doubt]
    shared = tuple(sorted(set.intersection(*plateaus))) if plateaus else ()
    first = max(0, len(shared) - MOST_LAYERS) // 2
    layers = shared[first : first + MOST_LAYERS]
    if bounded and layers:
        layers = tuple(range(layers[-1] + 1))
    return Location(forms, shared, layers, layers[-1] if layers else None)


def _plateau(restored: Sequence[float]) -> tuple[int, ...]:
    """The run of layers around the largest share that are nearly as large, and not below half."""
    least = max(LEAST_RESTORED, OF_THE_LARGEST * min(1.0, max(restored)))
    first = last = max(range(len(restored)), key=restored.__getitem__)
    while first > 0 and restored[first - 1] >= least:
        first -= 1
    while last + 1 < len(restored) and restored[last + 1] >= least:
        last += 1
    return tuple(range(first, last + 1))


def _asked(
    tokenizer: PreTrainedTokenizerBase, pairs: Sequence[Exchange]
) -> dict[str, list[tuple[Exchange, tuple[TokenQuery, TokenQuery]]]]:
    """By form, the pairs with their token ids.

    A subject that ends the text is left out: its state is the answer's own, up to the last layer.
    """
    by_form: dict[str, list[tuple[Exchange, tuple[TokenQuery, TokenQuery]]]] = {}
    for pair in pairs:
        others = reading_forms(tokenizer, pair.other_prompt)
        for name, form in reading_forms(tokenizer, pair.prompt).items():
            asked = by_form.setdefault(name, [])
            own = form.tokenize(tokenizer, pair.subject)
            other = others[name].tokenize(tokenizer, pair.other)
            if own.subject < len(own.ids) - 1 and other.subject < len(other.ids) - 1:
                asked.append((pair, (own, other)))
    return by_form


def _telling(lost: Tensor, repeats: Sequence[bool]) -> Tensor:
    """Which of n pairs count, bool [n]."""
    return (lost >= LEAST_LOST) & ~torch.tensor(repeats, dtype=torch.bool, device="cpu")


def _repeated(
    tokenizer: PreTrainedTokenizerBase, answers: Tensor, subjects: Sequence[str]
) -> list[bool]:
    """Whether each of n answers is only its subject's name again, n."""
    texts = tokenizer.batch_decode(answers[:, None])
    return [_repeats(text, subject) for text, subject in zip(texts, subjects, strict=True)]


def _repeats(answer: str, subject: str) -> bool:
    """Whether an answer begins the subject's name again, which is copied and not recalled."""
    begun = answer.strip()
    return begun != "" and any(word.startswith(begun) for word in subject.split())
