"""The unit of stage 1: what tells one subject from another in the hidden state.

Rates, radii and lengths are relative to it. The length of a hidden state will not do: in real
models most of it is shared by all subjects. Behind a norm (Gemma, OLMo 2) a layer can give each
coordinate little more than subjects differ in it, a few coordinates much and the others nearly
nothing; there each coordinate has a unit of its own.
"""

from __future__ import annotations

from torch import Tensor

from rose_easyedit.errors import RoSEError
from rose_easyedit.forward.activations import read_subject_states
from rose_easyedit.method.contexts import naming_form
from rose_easyedit.method.generic import generic_subjects
from rose_easyedit.method.prepared import Prepared
from rose_easyedit.method.read_once import read_once

# A subject whose hidden state is so many times the usual length is an attention sink.
_SINK = 3.0
# No coordinate has a unit below this share of the root mean square over all of them.
_LEAST = 0.1


def subject_unit(prepared: Prepared) -> Tensor:
    """The spread of h_L over generic subjects, [d], float32.

    It is that of each coordinate where the target layer has a norm behind its down projection, and
    otherwise the root mean square over the coordinates, the same for all.

    Args:
        prepared: the model, and the settings that say which layer it is and where other subjects
            than the built-in ones are; call inside `activations.frozen`.

    Raises:
        RoSEError: the model cannot tell the subjects apart, or their file cannot be read.
    """
    editable, tokenizer, hparams = prepared.editable, prepared.tokenizer, prepared.hparams
    names = generic_subjects(hparams.alignment.statistics_subjects, tokenizer.name_or_path)
    named = [naming_form(name).tokenize(tokenizer, name) for name in names]
    queries = [query for query in named if len(query.key_prefix) <= editable.context_length]
    if not queries:
        raise RoSEError(
            f"The model reads {editable.context_length} tokens, too few to name any of the generic "
            "subjects, by which an edit is scaled; name a file of shorter ones "
            "(statistics_subjects)."
        )

    def read() -> Tensor:
        with prepared.autocast():
            states = read_subject_states(
                editable,
                queries,
                key_layer=hparams.target_layer,
                hidden_layer=hparams.target_layer,
                batch=hparams.micro_batch,
            )
        return coordinate_spread(states.hidden)

    texts = [query.key_prefix for query in queries]
    spread = read_once(prepared, "subject unit", texts, read)
    if editable.post_norms[hparams.target_layer] is None:
        return spread.square().mean().sqrt().expand_as(spread)
    return spread


def coordinate_spread(hidden: Tensor) -> Tensor:
    """Standard deviation of each coordinate over the rows of usual length, [d].

    Args:
        hidden: hidden states of different subjects, [N, d].

    Raises:
        RoSEError: they are all the same.
    """
    hidden = hidden[hidden.isfinite().all(dim=1)]  # what overflows is told of when it is edited
    lengths = hidden.norm(dim=1)
    usual = hidden[lengths <= _SINK * lengths.median()] if len(hidden) else hidden
    spread = (usual - usual.mean(0)).square().mean(0).sqrt()
    root = spread.square().mean().sqrt()
    if not bool(root > 0) or not bool(root.isfinite()):
        raise RoSEError(
            "The generic subjects have all the same hidden state, so the model cannot tell them "
            "apart; name a file of subjects that it knows (statistics_subjects)."
        )
    return spread.clamp(min=_LEAST * float(root))
