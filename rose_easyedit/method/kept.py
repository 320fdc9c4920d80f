"""What an edit keeps of its own subjects: what the model says of them that no fact replaces.

A shift that makes a target likely can do so by making the subject another one, which already has
that target: "The capital of Spain is Madrid." So the unedited model is asked about each subject, in
words that name no relation, and the distribution of its answers is held while the shift is found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rose_easyedit.config.hparams import RoSEHyperParams
from rose_easyedit.forward.generation import continue_greedily
from rose_easyedit.method.contexts import kept_forms
from rose_easyedit.requests import EditRequest, group_by_subject
from rose_easyedit.text.locate_subject import TokenQuery
from rose_easyedit.text.names import Names
from rose_easyedit.text.token_ids import token_ids

_BATCH = 32
# Of what the model says behind a statement, so much is what the fact replaces.
_OLD_ANSWER_TOKENS = 3


def kept_queries(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[EditRequest],
    hparams: RoSEHyperParams,
) -> dict[str, list[TokenQuery]]:
    """Per subject, the queries whose answers shall stay, with the unedited model's own answers.

    An answer ends before it says what a fact about its subject replaces; a query that would be
    answered with nothing else is left out, but for the first.

    Args:
        model: the unedited model; greedy, so the same each time.
        tokenizer: its tokenizer.
        requests: the facts.
        hparams: how many queries, and how many tokens of each answer.
    """
    subjects = group_by_subject(requests)
    asked = [
        (subject, form) for subject in subjects for form in kept_forms(tokenizer, subject, hparams)
    ]
    unsaid = [request.prompt for request in requests if not request.ground_truth]
    rows = [token_ids(tokenizer, prompt, special=True) for prompt in unsaid]
    rows += [token_ids(tokenizer, form.text, special=form.special) for _, form in asked]
    n_tokens = max(hparams.kept_tokens, _OLD_ANSWER_TOKENS)
    told = continue_greedily(model, tokenizer, rows, max_new_tokens=n_tokens, batch_size=_BATCH)
    replaced = _replaced(requests, _decoded(tokenizer, told[: len(unsaid)], _OLD_ANSWER_TOKENS))
    answers = _decoded(tokenizer, told[len(unsaid) :], hparams.kept_tokens)
    kept: dict[str, list[TokenQuery]] = {subject: [] for subject in subjects}
    for (subject, form), answer in zip(asked, answers, strict=True):
        text = _before(answer, replaced[subject])
        if text.strip() or not kept[subject]:
            kept[subject].append(form.tokenize(tokenizer, subject, text.strip()))
    return kept


def _decoded(
    tokenizer: PreTrainedTokenizerBase, told: Sequence[Sequence[int]], n_tokens: int
) -> list[str]:
    """The first tokens of what the model has said."""
    return [str(tokenizer.decode(row[:n_tokens], skip_special_tokens=True)) for row in told]


def _replaced(requests: Sequence[EditRequest], told: Sequence[str]) -> Mapping[str, Names]:
    """Per subject, what its facts replace: as the requests say, or else as the model goes on.

    Args:
        requests: the facts.
        told: what the model says behind the statements of those that do not say it.
    """
    unsaid = iter(told)
    names: dict[str, list[str]] = {request.subject: [] for request in requests}
    for request in requests:
        names[request.subject].append(request.ground_truth or _old_answer(next(unsaid)))
    return {subject: Names.of(of_subject) for subject, of_subject in names.items()}


def _old_answer(continuation: str) -> str:
    """What is said behind a statement, up to the end of a line."""
    return continuation.strip().partition("\n")[0].strip(" .,;:!?\"'")


def _before(answer: str, names: Names) -> str:
    """An answer up to the first of some names, whole where it has none."""
    text = ""
    for piece, is_name in names.split(answer):
        if is_name:
            break
        text += piece
    return text
