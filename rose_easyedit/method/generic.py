"""Generic text and generic subjects: what an edit should leave alone, as token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from rose_easyedit.chat import Arguments
from rose_easyedit.errors import RoSEError
from rose_easyedit.hparams import AlignmentHyperParams
from rose_easyedit.method.forms import generic_subject_forms
from rose_easyedit.token_ids import token_ids

_PASSAGE_TOKENS = 128


@dataclass(frozen=True)
class Passage:
    """Token ids whose keys are counted.

    Attributes:
        ids: the tokens.
        weight: of each key that counts, in the second moment.
        last_only: whether only the last token's key counts, instead of every token's.
    """

    ids: tuple[int, ...]
    weight: float
    last_only: bool = False


def generic_passages(
    tokenizer: PreTrainedTokenizerBase,
    hparams: AlignmentHyperParams,
    arguments: Arguments | None = None,
) -> list[Passage]:
    """The passages that fix a second moment C = E_text[k k^T] + subject_weight E_subjects[k k^T].

    Args:
        tokenizer: the model's tokenizer.
        hparams: which text, how many tokens of it, and the weight of the built-in subjects.
        arguments: what the chat template is told (`chat.arguments_used`).

    Raises:
        RoSEError: the text cannot be read or is empty.
    """
    lines = generic_lines(tokenizer, hparams.statistics_text, hparams.statistics_tokens)
    per_token = 1.0 / sum(map(len, lines))
    passages = [Passage(tuple(ids), per_token) for ids in lines]
    if hparams.subject_weight > 0:
        prefixes = _subject_prefixes(tokenizer, arguments)
        per_subject = hparams.subject_weight / len(prefixes)
        passages += [Passage(ids, per_subject, last_only=True) for ids in prefixes]
    return passages


def generic_lines(
    tokenizer: PreTrainedTokenizerBase, path: str | None, n_tokens: int
) -> list[Sequence[int]]:
    """The lines of a text as token ids, cut off after `n_tokens`; None is the built-in text.

    Raises:
        RoSEError: the text cannot be read or is empty.
    """
    lines = _lines(tokenizer, _read_text(path, tokenizer.name_or_path), n_tokens)
    if not lines:
        raise RoSEError(f"statistics_text {path!r} holds no text; give some hundred words.")
    return lines


def generic_subjects() -> list[str]:
    """The built-in subjects: people, places and works that most models have read of."""
    return _package_text("generic_subjects.txt").splitlines()


def held_out_subjects() -> list[str]:
    """Further subjects, which count nowhere, to measure an edit's drift on."""
    return _package_text("held_out_subjects.txt").splitlines()


def statistics_path(text: str, model: str) -> Path:
    """Where `statistics_text` lies: as it is, or else in the model's folder, if it is there."""
    beside = Path(model) / text
    return beside if beside.is_file() and not Path(text).is_file() else Path(text)


def _read_text(path: str | None, model: str) -> str:
    if path is None:
        return _package_text("generic_text.txt")
    try:
        return statistics_path(path, model).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RoSEError(
            f"statistics_text {path!r} cannot be read ({error}); name a UTF-8 text file, or leave "
            "it null for the built-in sentences."
        ) from error


def _package_text(name: str) -> str:
    folder = resources.files("rose_easyedit.method").joinpath("data")
    return folder.joinpath(name).read_text("utf-8")


def _lines(tokenizer: PreTrainedTokenizerBase, text: str, n_tokens: int) -> list[Sequence[int]]:
    """The text line by line, long lines in parts, cut off after the number of tokens asked for."""
    lines: list[Sequence[int]] = []
    left = n_tokens
    for line in filter(None, map(str.strip, text.splitlines())):
        ids = token_ids(tokenizer, line, special=True)[: max(left, 0)]
        lines += [ids[i : i + _PASSAGE_TOKENS] for i in range(0, len(ids), _PASSAGE_TOKENS)]
        left -= len(ids)
        if left <= 0:
            break
    return lines


def _subject_prefixes(
    tokenizer: PreTrainedTokenizerBase, arguments: Arguments | None
) -> list[tuple[int, ...]]:
    """The built-in subjects, each in the forms of a statement and of chat queries."""
    return [
        form.tokenize(tokenizer, subject).key_prefix
        for number, subject in enumerate(generic_subjects())
        for form in generic_subject_forms(tokenizer, subject, number, arguments)
    ]
