"""The subject's last token and the target's tokens, for every kind of tokenizer and script."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tokenizers import KINDS, build_tokenizer, ending_texts

from rose_easyedit.errors import RoSEError
from rose_easyedit.evaluation.teacher_forcing import with_target
from rose_easyedit.text.locate_subject import TokenQuery, find_subject, tokenize
from rose_easyedit.text.token_ids import continuation_ids, token_ids

TOKENIZERS = {kind: build_tokenizer(kind) for kind in KINDS}


@pytest.fixture(params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> Any:
    """Each kind of tokenizer in turn."""
    return TOKENIZERS[request.param]


def decoded(tokenizer: Any, ids: tuple[int, ...]) -> str:
    text = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return str(text).removeprefix(" ")


TEXTS = [
    ("Marie Curie was born in", "Marie Curie"),  # at the start
    ("The mother tongue of Albert Einstein is", "Albert Einstein"),  # in the middle
    ("He is a citizen of Rome", "Rome"),  # at the end
    ("Paris is Paris and", "Paris"),  # twice
    ("Romeo and Juliet lived in Rome with Romeo", "Rome"),  # also inside a longer word
    (
        "The author of \u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd is",
        "\u05e9\u05dc\u05d5\u05dd",
    ),
    (
        "\u0645\u062f\u064a\u0646\u0629 \u0627\u0644\u0642\u0627\u0647\u0631\u0629 \u0641\u064a",
        "\u0627\u0644\u0642\u0627\u0647\u0631\u0629",
    ),
    ("The city of \u6771\u4eac is in", "\u6771\u4eac"),  # two characters of three bytes
    (
        "The film \U0001f468\u200d\U0001f469\u200d\U0001f467 is by",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    ),
    ("Gabriel Garc\u00eda M\u00e1rquez wrote", "Garc\u00eda M\u00e1rquez"),  # one code point
    ("Gabriel Garci\u0301a wrote", "Garci\u0301a"),  # two code points
    ('The show "Rome" is by', "Rome"),  # between quotation marks
]


@pytest.mark.parametrize(("text", "subject"), TEXTS)
def test_the_last_token_of_the_subject(tokenizer: Any, text: str, subject: str) -> None:
    query = tokenize(tokenizer, text, subject)
    end = find_subject(text, subject)
    through = decoded(tokenizer, query.key_prefix)
    before = decoded(tokenizer, query.key_prefix[:-1])
    # with the token the subject is complete; without it, it is not
    assert through.startswith(text[:end])
    assert not before.startswith(text[:end])
    assert text[end - len(subject) : end] == subject
    assert query.n_target == 0
    assert list(query.ids) == tokenizer(text)["input_ids"]


@pytest.mark.parametrize(("text", "subject"), TEXTS)
@pytest.mark.parametrize(
    "target", ["Warsaw", "a physicist of Verona", "\u6771\u4eac", "\U0001f980"]
)
def test_the_target_is_what_follows(tokenizer: Any, text: str, subject: str, target: str) -> None:
    query = tokenize(tokenizer, text, subject, f" {target}")
    n_text = len(query.ids) - query.n_target
    assert query.n_target > 0
    assert list(query.ids[:n_text]) == tokenizer(text)["input_ids"]
    assert list(query.ids) == tokenizer(f"{text} {target}")["input_ids"]
    assert decoded(tokenizer, query.ids) == f"{text} {target}"
    assert query.subject == tokenize(tokenizer, text, subject).subject < n_text


def test_a_special_token_is_added_only_when_asked_for() -> None:
    tokenizer = TOKENIZERS["byte-level with BOS"]
    plain = tokenize(tokenizer, "Rome is", "Rome", special=False)
    begun = tokenize(tokenizer, "Rome is", "Rome")
    assert begun.ids == (tokenizer.bos_token_id, *plain.ids)
    assert begun.subject == plain.subject + 1
    with_target = tokenize(tokenizer, "Rome is", "Rome", " in Italy")
    assert with_target.ids.count(tokenizer.bos_token_id) == 1


@pytest.mark.parametrize("target", ["", " in Italy", "</s>"])
def test_a_tokenizer_that_ends_each_text_ends_no_query(tokenizer: Any, target: str) -> None:
    """Between a prompt and its target there would be the end of the text, and behind both."""
    ending = ending_texts(tokenizer)
    assert ending("Rome is")["input_ids"][-1] == ending.eos_token_id
    # an end that is written out stays
    for text in ("Rome is", "Rome is</s>"):
        wanted = tokenize(tokenizer, text, "Rome", target)
        assert tokenize(ending, text, "Rome", target) == wanted


def test_a_target_that_merges_with_the_text_is_tokenised_alone() -> None:
    """Without a space between them "physic" and "ist" are one token; the text's must not change."""
    tokenizer = TOKENIZERS["byte-level"]
    text, target = "Marie Curie was a physic", "ist"
    alone = tokenizer(text)["input_ids"]
    assert tokenizer(text + target)["input_ids"][: len(alone)] != alone
    query = tokenize(tokenizer, text, "Marie Curie", target)
    assert list(query.ids) == alone + tokenizer(target)["input_ids"]
    assert query.ids[-query.n_target :] == tuple(tokenizer(target)["input_ids"])


def test_the_padding_side_does_not_matter(tokenizer: Any) -> None:
    query = tokenize(tokenizer, "Rome is in", "Rome", " Italy")
    tokenizer.padding_side = "left"
    try:
        assert tokenize(tokenizer, "Rome is in", "Rome", " Italy") == query
    finally:
        tokenizer.padding_side = "right"


def test_the_window_narrows_the_search() -> None:
    text = "Rome, they say: Rome is in Italy, not Rome"
    assert find_subject(text, "Rome") == len(text)
    assert find_subject(text, "Rome", (0, 10)) == 4
    assert find_subject(text, "Rome", (10, 30)) == 20
    with pytest.raises(RoSEError, match="does not contain the subject 'Rome'"):
        find_subject(text, "Rome", (4, 15))


@pytest.mark.parametrize(
    ("text", "subject", "end"),
    [
        ("Romeo met Rome and Romeo", "Rome", 14),  # the whole word wins
        ("Romeo met Romeo", "Rome", 14),  # no whole word: the last
        ("Rome-based", "Rome", 4),
        ("C++ and C", "C", 9),
        ("C++ and C", "C++", 3),
        ("aaa", "aa", 3),  # overlapping
    ],
)
def test_whole_words_come_first(text: str, subject: str, end: int) -> None:
    assert find_subject(text, subject) == end


def test_a_text_without_the_subject() -> None:
    with pytest.raises(RoSEError, match="'Verona is in' does not contain the subject 'Rome'"):
        tokenize(TOKENIZERS["byte-level"], "Verona is in", "Rome")


def test_a_tokenizer_without_offsets_is_refused() -> None:
    class Slow:
        is_fast = False

    with pytest.raises(RoSEError, match="Slow gives no character offsets.*use_fast=True"):
        tokenize(Slow(), "Rome is", "Rome")  # type: ignore[arg-type]


def test_a_dropped_character_ends_the_subject_before_it() -> None:
    """A tokenizer that strips accents gives a trailing combining mark to no token."""
    from tokenizers import normalizers

    tokenizer = build_tokenizer("byte-level")
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFD(), normalizers.StripAccents()]
    )
    query = tokenize(tokenizer, "In Rome\u0301 is", "Rome\u0301")
    assert decoded(tokenizer, query.key_prefix) == "In Rome"


def test_the_prefix_of_the_key_ends_with_the_subject() -> None:
    assert TokenQuery((5, 6, 7, 8), 2, 1).key_prefix == (5, 6, 7)


WORD = st.text(
    st.characters(codec="utf-8", categories=("L", "N", "P", "So", "Mn")), min_size=1, max_size=6
)


@pytest.mark.parametrize("kind", ["byte-level", "byte-level with BOS"])
@given(
    before=st.lists(WORD, max_size=3),
    subject=st.lists(WORD, min_size=1, max_size=3),
    after=st.lists(WORD, max_size=3),
)
@settings(max_examples=150)
def test_the_subject_ends_where_it_ends(
    kind: str, before: list[str], subject: list[str], after: list[str]
) -> None:
    tokenizer, name = TOKENIZERS[kind], " ".join(subject)
    text = " ".join([*before, name, *after])
    query = tokenize(tokenizer, text, name, " X")
    offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    end = find_subject(text, name)
    assert text[end - len(name) : end] == name
    assert offsets[query.subject][0] < end <= offsets[query.subject][1]
    assert all(start >= end for start, stop in offsets[query.subject + 1 :])


@pytest.mark.parametrize("target", ["\u67cf\u6797", "Berlin"])
def test_nothing_stands_between_a_text_and_a_target_that_follows_at_once(
    target: str, tokenizer: Any
) -> None:
    """Also where the tokenizer writes a space before each text, and where it merges across."""
    text, subject = "\u6cd5\u56fd\u7684\u9996\u90fd\u662f", "\u6cd5\u56fd"
    query = tokenize(tokenizer, text, subject, target)
    assert decoded(tokenizer, query.ids) == text + target
    assert decoded(tokenizer, query.ids[-query.n_target :]) == target
    ids, n_target = with_target(tokenizer, text, target, chat=False)
    assert (tuple(ids), n_target) == (query.ids, query.n_target)
    apart = continuation_ids(tokenizer, target)
    assert tokenizer.decode(apart, clean_up_tokenization_spaces=False).strip() == target
    whole = token_ids(tokenizer, text, special=False) + apart
    assert decoded(tokenizer, tuple(whole)) == text + target


class Silent:
    """A tokenizer of another model: nothing of the text becomes a token."""

    is_fast = True
    eos_token_id = None

    def __call__(self, text: str, **_: Any) -> dict[str, list[Any]]:
        return {"input_ids": [1], "offset_mapping": [(0, 0)], "special_tokens_mask": [0]}


def test_a_tokenizer_without_a_token_for_the_subject_is_told() -> None:
    with pytest.raises(RoSEError, match="no token for the subject 'Oslo' in 'Oslo is in'"):
        tokenize(Silent(), "Oslo is in", "Oslo", special=True)  # type: ignore[arg-type]
