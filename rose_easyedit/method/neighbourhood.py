"""Other subjects in an edit's own prompts: what the edit disturbs first.

Their keys are nearest to those that are written. Some become columns whose hidden state shall stay
(`preserved_columns`); others, which nothing was told of, say how far it drifts (`calibration`).
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from rose_easyedit.config.hparams import RoSEHyperParams
from rose_easyedit.method.contexts import neighbour_form
from rose_easyedit.method.generic import generic_subjects, held_out_subjects
from rose_easyedit.requests import EditRequest
from rose_easyedit.text.locate_subject import TokenQuery, find_subject
from rose_easyedit.text.names import Names, fold


def preserved_queries(
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[EditRequest],
    hparams: RoSEHyperParams,
    n: int,
    context_length: int,
) -> list[TokenQuery]:
    """Built-in subjects in prompts of the requests, each text up to its subject once.

    Args:
        tokenizer: the model's tokenizer.
        requests: the facts of the edit.
        hparams: the contexts of the facts, and the seed of the drawing.
        n: how many are drawn, some of them more than once.
        context_length: most tokens that the model reads; what is longer is left out.
    """
    names = generic_subjects(hparams.alignment.statistics_subjects, tokenizer.name_or_path)
    drawn = neighbour_queries(tokenizer, requests, names, hparams, n)
    drawn = [query for query in drawn if len(query.key_prefix) <= context_length]
    return list({query.key_prefix: query for query in reversed(drawn)}.values())[::-1]


def held_out_queries(
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[EditRequest],
    hparams: RoSEHyperParams,
    n: int,
    context_length: int,
) -> list[TokenQuery]:
    """As `preserved_queries`, with subjects that no statistics and no preserved column have.

    Plain statements only: inside a chat's turn they drift a fifth as far, and would hide it.
    """
    names = held_out_subjects(hparams.alignment.statistics_subjects, tokenizer.name_or_path)
    drawn = neighbour_queries(tokenizer, requests, names, hparams, n, chat=False)
    return [query for query in dict.fromkeys(drawn) if len(query.ids) <= context_length]


def neighbour_queries(
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[EditRequest],
    names: Sequence[str],
    hparams: RoSEHyperParams,
    n: int,
    *,
    chat: bool = True,
) -> list[TokenQuery]:
    """Prompts of the requests with other subjects in them, drawn at random.

    They depend on which prompts there are, not on the order of the requests.

    Args:
        tokenizer: the model's tokenizer.
        requests: the facts of the edit.
        names: the subjects to take; those that a request is about are left out.
        hparams: the contexts of the facts, and the seed of the drawing.
        n: how many to draw.
        chat: whether half of them are in a user's turn, for tokenizers with a chat template.
    """
    subjects = neighbour_subjects(names, requests)
    frames = sorted({frame(request) for request in requests})
    draw = random.Random(hparams.seed)
    queries = []
    for number in range(n if subjects else 0):
        # Once through the subjects as plain statements, then once in a user's turn.
        times, place = divmod(number, len(subjects))
        before, after = draw.choice(frames)
        text = before + subjects[place] + after
        in_turn = chat and times % 2 == 1
        form = neighbour_form(tokenizer, text, hparams, draw.random(), in_turn=in_turn)
        queries.append(form.tokenize(tokenizer, subjects[place]))
    return queries


def neighbour_subjects(names: Sequence[str], requests: Sequence[EditRequest]) -> list[str]:
    """The names that no request is about, not even with more words or fewer."""
    subjects = {request.subject for request in requests}
    edited, all_edited = Names.of(subjects), fold("\n".join(sorted(subjects)))

    def is_within_one(name: str) -> bool:
        return fold(name) in all_edited and any(map(Names.of([name]).are_in, subjects))

    return [name for name in names if not edited.are_in(name) and not is_within_one(name)]


def frame(request: EditRequest) -> tuple[str, str]:
    """What a request's prompt says before and after its subject."""
    end = find_subject(request.prompt, request.subject)
    return request.prompt[: end - len(request.subject)], request.prompt[end:]
