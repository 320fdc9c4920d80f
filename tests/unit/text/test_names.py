"""Names are found as whole words, whatever the script and however the text is encoded."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rose_easyedit.evaluation.datasets import neighbour_prompts
from rose_easyedit.evaluation.facts import Fact
from rose_easyedit.evaluation.report_answers import parts_of
from rose_easyedit.text.names import Names, fold, joint


@pytest.mark.parametrize(
    ("text", "name", "found"),
    [
        ("\u9996\u90fd\u306f\u6771\u4eac\u3067\u3059", "\u6771\u4eac", True),
        ("\u5b83\u7684\u9996\u90fd\u662f\u5317\u4eac\u3002", "\u5317\u4eac", True),
        ("\u5b83\u7684\u9996\u90fd\u662f\u5317\u6d77\u3002", "\u5317\u4eac", False),
        ("\uc11c\uc6b8\uc740 \ud070 \ub3c4\uc2dc\uc774\ub2e4", "\uc11c\uc6b8", True),
        # a syllable is no part of a longer one, however it is encoded
        ("\u1112\u1161\u11ab\uad6d", "\ud558", False),
        ("\u0e17\u0e35\u0e48\u0e1e\u0e32\u0e23\u0e32", "\u0e1e\u0e32", True),
        ("\u0e2d\u0e22\u0e39\u0e48", "\u0e2d\u0e22", False),
        ("\u6771\u4eac\u306ePython\u4f1a", "Python", True),
        ("\u092d\u093e\u0930\u0924\u0940", "\u092d\u093e\u0930\u0924", False),
        ("\u092d\u093e\u0930\u0924 \u092e\u0947\u0902", "\u092d\u093e\u0930\u0924", True),
        ("\u0390".upper(), "\u0390", True),
        ("in Xi\u2019an", "Xi'an", True),
        ("in Xi'an", "Xi\u2019an", True),
        ("Hawai\u02bbi", "Hawai'i", True),
        ("Strasse", "Stra\u00dfe", True),
        ("Tirana", "Iran", False),
        ("snake_case", "case", False),
        ("C++11", "C++", False),
        ("F.C. Rome", "F.C.", True),
    ],
)  # fmt: skip
def test_a_name_is_a_whole_word(text: str, name: str, found: bool) -> None:
    assert Names.of([name]).are_in(text) is found
    assert any(part.marked for part in parts_of(text, [name])) is found


def test_the_first_and_the_longest_of_several_names_is_split_off() -> None:
    names = Names.of(["Korea", "north korea", "Stra\u00dfe"])
    assert names.split("North Korea, KOREA, strasse 5") == [
        ("North Korea", True),
        (", ", False),
        ("KOREA", True),
        (", ", False),
        ("strasse", True),
        (" 5", False),
    ]


def test_no_names_are_nowhere() -> None:
    assert not Names.of(["", " "]).are_in("anything") and not Names.of([]).are_in("")
    assert Names.of([]).split("as it is") == [("as it is", False)]


@given(st.text(), st.lists(st.text(), max_size=3))
def test_the_pieces_make_the_text_and_a_name_is_marked_where_it_is_found(
    text: str, names: list[str]
) -> None:
    pieces = Names.of(names).split(text)
    assert "".join(piece for piece, _ in pieces) == unicodedata.normalize("NFKC", text)
    assert any(marked for _, marked in pieces) == Names.of(names).are_in(text)
    assert fold(fold(text)) == fold(text)


def test_a_neighbour_in_lower_case_that_names_an_edited_subject_is_left_out() -> None:
    asked = ("nq question: who leads s\u00e3o paulo", "nq question: who sings")
    fact = Fact("S\u00e3o Paulo", "", "S\u00e3o Paulo is in", "Peru", "Brazil", neighbours=asked)
    assert [prompt.text for prompt in neighbour_prompts([fact])] == [asked[1]]


def test_long_texts_take_linear_time() -> None:
    class Counted(frozenset[str]):
        asked = 0

        def __contains__(self, name: object) -> bool:
            Counted.asked += 1
            return super().__contains__(name)

    names = Names.of(["Route 22", "Route 66", "Main Street"])
    watched = Names(Counted(names.folded), names.lengths)
    for words in (1000, 2000):
        Counted.asked = 0
        assert not watched.are_in("word " * words)
        assert Counted.asked <= 2 * len(names.lengths) * words + len(names.lengths)


@pytest.mark.parametrize(
    ("text", "continuation", "space"),
    [
        ("The capital of France is", "Berlin", True),
        ("\u6cd5\u56fd\u7684\u9996\u90fd\u662f", "\u67cf\u6797", False),
        ("\u30d5\u30e9\u30f3\u30b9\u306e\u9996\u90fd\u306f", "\u30d9\u30eb\u30ea\u30f3", False),
        ("\uff8c\uff97\uff9d\uff7d", "Paris", False),
        (
            "\u0e40\u0e21\u0e37\u0e2d\u0e07\u0e2b\u0e25\u0e27\u0e07\u0e04\u0e37\u0e2d",
            "Berlin",
            False,
        ),
        ("\u1794\u17b6\u179a\u17b6\u17c6\u1784", "Berlin", False),
        ("\u0e9b\u0eb2\u0ea3\u0eb5", "Berlin", False),
        ("\u1015\u102b\u101b\u102e", "Berlin", False),
        ("\ud504\ub791\uc2a4\uc758 \uc218\ub3c4\ub294", "\ubca0\ub97c\ub9b0", True),
        ("\u041f\u0430\u0440\u0438\u0436 \u2014", "Paris", True),
        ("\u092a\u0947\u0930\u093f\u0938", "Paris", True),
        # a sign of such a script brings its own room along, an ASCII one does not
        ("\u6cd5\u56fd\u7684\u9996\u90fd\uff1a", "Berlin", False),
        ("\u6cd5\u56fd\u7684\u9996\u90fd\u300c", "Berlin", False),
        ("\u6cd5\u56fd\u7684\u9996\u90fd:", "Berlin", True),
        ("\u6cd5\u56fd\u7684\u9996\u90fd:", "\u67cf\u6797", False),
        # a Chinese sentence that ends in a foreign name or a number
        ("\u4ed6\u521b\u7acb\u7684\u516c\u53f8\u53eb\u505aABC", "\u516c\u53f8", False),
        ("\u4ed6\u521b\u7acb\u7684\u516c\u53f8\u53eb\u505aABC", "Inc", True),
        ("\u4ed6\u51fa\u751f\u4e8e1999", "\u5e74", False),
        # an English sentence with a Chinese word
        ("The Chinese word for cat is", "\u732b", True),
        ("The word \u732b means", "\u732b", True),
        ("It is in ", "Paris", False),
        ("", "Paris", False),
    ],
)
def test_a_space_stands_between_a_text_and_its_end_where_the_script_has_one(
    text: str, continuation: str, space: bool
) -> None:
    assert joint(text, continuation) == (" " if space else "")
