"""Generic text and generic subjects: what an edit should leave alone, as token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from rose_easyedit.config.hparams import AlignmentHyperParams
from rose_easyedit.errors import RoSEError
from rose_easyedit.files.reading import read_text
from rose_easyedit.method.contexts import generic_subject_forms
from rose_easyedit.text.chat import Arguments
from rose_easyedit.text.token_ids import token_ids

_PASSAGE_TOKENS = 128
LEAST_SUBJECTS = 8
_HELD_OUT = 6  # every sixth


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
        prefixes = _subject_prefixes(tokenizer, hparams.statistics_subjects, arguments)
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
    lines = _lines(tokenizer, _statistics_text(path, tokenizer.name_or_path), n_tokens)
    if not lines:
        raise RoSEError(f"statistics_text {path!r} holds no text; give some hundred words.")
    return lines


def generic_subjects(path: str | None = None, model: str = "") -> list[str]:
    """The built-in subjects: people, places and works that most models have read of.

    Args:
        path: a file of other ones (`statistics_subjects`), of which every sixth is left out.
        model: the folder of the model, where the file may be.

    Raises:
        RoSEError: the file cannot be read, or holds fewer than `LEAST_SUBJECTS`.
    """
    if path is None:
        return _package_text("generic_subjects.txt").splitlines()
    return [name for place, name in enumerate(_own_subjects(path, model)) if place % _HELD_OUT]


def held_out_subjects(path: str | None = None, model: str = "") -> list[str]:
    """Further subjects, which count nowhere, to measure an edit's drift on; as above."""
    if path is None:
        return _package_text("held_out_subjects.txt").splitlines()
    return _own_subjects(path, model)[::_HELD_OUT]


def _own_subjects(path: str, model: str) -> list[str]:
    lines = map(str.strip, _read_text(path, model, "statistics_subjects").splitlines())
    names = list(dict.fromkeys(filter(None, lines)))
    if len(names) < LEAST_SUBJECTS:
        raise RoSEError(
            f"statistics_subjects {path!r} names {len(names)} subjects; give {LEAST_SUBJECTS} or "
            "more, one a line, or leave it null for the built-in ones."
        )
    return names


def statistics_path(text: str, model: str) -> Path:
    """Where `statistics_text` lies: as it is, or else in the model's folder, if it is there."""
    beside = Path(model) / text
    return beside if beside.is_file() and not Path(text).is_file() else Path(text)


def _statistics_text(path: str | None, model: str) -> str:
    if path is None:
        return _package_text("generic_text.txt")
    return _read_text(path, model, "statistics_text")


def _read_text(path: str, model: str, setting: str) -> str:
    """What a file holds that a setting names."""
    try:
        return read_text(statistics_path(path, model))
    except (OSError, UnicodeDecodeError) as error:
        raise RoSEError(
            f"{setting} {path!r} cannot be read ({error}); name a UTF-8 text file, or leave it "
            "null for what is built in."
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
    tokenizer: PreTrainedTokenizerBase, path: str | None, arguments: Arguments | None
) -> list[tuple[int, ...]]:
    """The generic subjects, each in the forms of a statement and of chat queries."""
    return [
        form.tokenize(tokenizer, subject).key_prefix
        for number, subject in enumerate(generic_subjects(path, tokenizer.name_or_path))
        for form in generic_subject_forms(tokenizer, subject, number, arguments)
    ]
