"""Where to edit: the pairs that are drawn, and what is told from shares that are known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import build_model, same_weights, weights_of

from rose_easyedit.errors import RoSEError
from rose_easyedit.method.locating import location
from rose_easyedit.method.locating.exchanges import Exchange, exchanges
from rose_easyedit.method.locating.location import FormTrace, form_trace, locate, suggest
from rose_easyedit.method.locating.tracing import Trace
from rose_easyedit.requests import EditRequest

PEOPLE = ("Marie Curie", "Ada Lovelace", "Isaac Newton")


def requests(wording: str, *subjects: str) -> list[EditRequest]:
    return [EditRequest(wording.format(name), name, "London") for name in subjects]


BORN = requests("{} was born in", *PEOPLE)


def traced(*restored: float, pairs: int = 8, lost: float = 0.8) -> Trace:
    """Pairs that all lose as much, of which each layer brings back these shares."""
    exchanged = torch.full((pairs,), 0.1)
    patched = exchanged[:, None] + lost * torch.tensor(restored)
    return Trace(torch.arange(pairs), exchanged + lost, exchanged, patched)


def told(trace: Trace) -> FormTrace:
    return form_trace(trace, [False] * len(trace.clean))


def test_the_other_subject_is_one_of_the_same_prompt() -> None:
    countries = requests("The capital of {} is", "Japan", "England")
    pairs = exchanges([*BORN, *countries], 100)
    assert len(set(pairs)) == len(pairs) == 3 * 2 + 2
    assert Exchange("The capital of Japan is", "Japan", "The capital of England is", "England") in (
        pairs
    )
    people = {
        name for pair in pairs if "born" in pair.prompt for name in (pair.subject, pair.other)
    }
    assert people == set(PEOPLE)


def test_a_prompt_of_one_subject_takes_any_other_that_it_does_not_name() -> None:
    alone = requests("In England {} is", "Marie Curie")
    others = [*alone, *requests("{} plays", "Ada Lovelace"), *requests("{} lies in", "England")]
    found = [pair for pair in exchanges(others, 100) if pair.subject == "Marie Curie"]
    assert [pair.other for pair in found] == ["Ada Lovelace"]
    assert found[0].other_prompt == "In England Ada Lovelace is"


@pytest.mark.parametrize(
    ("prompt", "subject", "other_prompt"),
    [
        ("Romeo was born in Rome and", "Rome", "Romeo was born in Paris and"),
        ("In C, {} and Java differ", "C", "In Paris, {} and Java differ"),
        ("Rome is Rome; Rome", "Rome", "Paris is Paris; Paris"),
        ("The F.C. plays", "F.C.", "The Paris plays"),
        ("Romes lie in", "Rome", "Pariss lie in"),
    ],
)
def test_whole_words_are_exchanged_and_nothing_else(
    prompt: str, subject: str, other_prompt: str
) -> None:
    given = [EditRequest(prompt, subject, "x"), EditRequest("It is in Paris that", "Paris", "x")]
    assert Exchange(prompt, subject, other_prompt, "Paris") in exchanges(given, 9)


def test_every_prompt_comes_once_before_one_comes_again_and_the_seed_decides() -> None:
    assert {pair.subject for pair in exchanges(BORN, 3)} == set(PEOPLE)
    assert len(exchanges(BORN, 2)) == 2
    assert exchanges(BORN, 4, seed=1) == exchanges(BORN, 4, seed=1)
    assert len({tuple(exchanges(BORN, 4, seed=seed)) for seed in range(5)}) > 1
    # the same prompt with another target is the same pair
    again = EditRequest(BORN[0].prompt, BORN[0].subject, "Paris")
    assert exchanges([*BORN, again], 4) == exchanges(BORN, 4)


@pytest.mark.parametrize(
    ("given", "n", "part"), [(BORN[:1], 5, "'Marie Curie'"), ([], 5, "nobody"), (BORN, 0, "is 0")]
)
def test_what_cannot_be_exchanged_is_refused(given: list[EditRequest], n: int, part: str) -> None:
    with pytest.raises(RoSEError, match=part):
        exchanges(given, n)


@pytest.mark.parametrize(
    ("restored", "plateau"),
    [
        ((0.1, 0.7, 0.98, 1.0, 0.0), (2, 3)),
        ((0.91, 0.95, 1.0, 0.85), (0, 1, 2)),
        ((0.95, 0.2, 0.96, 0.97, 0.1), (2, 3)),
        # more than was lost is not better than all of it
        ((0.92, 1.08, 0.89), (0, 1)),
        ((0.48, 0.52, 0.0), (1,)),
    ],
)
def test_the_plateau_is_around_the_largest_share(
    restored: tuple[float, ...], plateau: tuple[int, ...]
) -> None:
    found = told(traced(*restored))
    assert found.plateau == plateau
    assert found.restored == pytest.approx(restored, abs=1e-5)
    assert (found.pairs, found.telling, found.doubt) == (8, 8, "")
    assert found.lost == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("trace", "telling", "part"),
    [
        (traced(0.3, 0.49, 0.1), 8, "0.49 at the most"),
        (traced(0.3, 1.0, 0.1, pairs=7), 7, "in 7 of 7 pairs"),
        (traced(0.3, 1.0, 0.1, lost=0.09), 0, "in 0 of 8 pairs"),
        (traced(0.3, 1.0, 0.1, lost=0.0), 0, "in 0 of 8 pairs"),
    ],
)
def test_it_says_when_it_cannot_tell(trace: Trace, telling: int, part: str) -> None:
    found = told(trace)
    assert found.plateau == () and part in found.doubt
    assert found.telling == telling
    location = suggest({"statement": found})
    assert (location.plateau, location.layers, location.z_layer) == ((), (), None)


def test_pairs_that_tell_nothing_and_names_that_are_repeated_do_not_count() -> None:
    kept, copied, idle = traced(0.2, 1.0), traced(0.9, 0.0), traced(-9.0, 9.0, lost=-0.05)
    fields = ("answers", "clean", "exchanged", "patched")
    mixed = Trace(*(torch.cat([getattr(t, f) for t in (kept, copied, idle)]) for f in fields))
    found = form_trace(mixed, [False] * 8 + [True] * 8 + [False] * 8)
    assert (found.pairs, found.telling) == (24, 8)
    assert found.restored == pytest.approx((0.2, 1.0), abs=1e-5)
    assert found.lost == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("answer", "repeats"),
    [
        ("Mar", True), (" Cur", True), ("Marie", True), (" Curious", False), ("rie", False),
        ("", False), ("\n", False),
    ],
)  # fmt: skip
def test_a_name_that_begins_again_is_a_repetition(answer: str, repeats: bool) -> None:
    assert location._repeats(answer, "Marie Curie") == repeats


def test_the_middle_five_layers_of_the_plateau_that_all_share_are_suggested() -> None:
    long, later = told(traced(*[1.0] * 9, 0.0)), told(traced(0.0, 0.0, *[1.0] * 8))
    alone = suggest({"statement": long})
    assert (alone.layers, alone.z_layer) == ((2, 3, 4, 5, 6), 6)
    both = suggest({"statement": long, "chat": later})
    assert both.plateau == tuple(range(2, 9))
    assert (both.layers, both.z_layer) == ((3, 4, 5, 6, 7), 7)
    short = suggest({"statement": told(traced(0.1, 0.6, 1.0, 1.0, 0.0))})
    assert (short.layers, short.z_layer) == ((2, 3), 3)
    # a form that cannot be told does not count; forms that disagree suggest nothing
    unclear = told(traced(0.1, 0.1, 0.1))
    assert suggest({"statement": long, "chat": unclear}).layers == alone.layers
    apart = suggest({"statement": told(traced(1.0, 0.0)), "chat": told(traced(0.0, 1.0))})
    assert (apart.plateau, apart.layers, apart.z_layer) == ((), (), None)


def test_where_norms_bound_what_a_layer_gives_all_up_to_the_target_are_suggested() -> None:
    late = told(traced(0.1, 0.1, 0.6, 1.0, 1.0, 0.0))
    assert suggest({"statement": late}).layers == (3, 4)
    bounded = suggest({"statement": late}, bounded=True)
    assert (bounded.plateau, bounded.layers, bounded.z_layer) == ((3, 4), (0, 1, 2, 3, 4), 4)
    assert suggest({"statement": told(traced(0.1, 0.1, 0.1))}, bounded=True).layers == ()


@pytest.mark.parametrize(("family", "bounded"), [("qwen2", False), ("olmo2", True)])
def test_the_norms_of_the_model_decide(
    family: str, bounded: bool, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def suggest(forms: Any, *, bounded: bool) -> location.Location:
        asked.append(bounded)
        return location.Location(forms, (), (), None)

    monkeypatch.setattr(location, "suggest", suggest)
    locate(build_model(family), tiny_tokenizer, exchanges(BORN, 2))
    assert asked == [bounded]


def test_a_model_is_traced_in_statement_and_chat_and_left_as_it_was(
    tiny_llama: Any, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(location, "LEAST_LOST", 0.0)
    monkeypatch.setattr(location, "LEAST_PAIRS", 1)
    before, finished = weights_of(tiny_llama), []
    tiny_llama.train()
    located = locate(tiny_llama, tiny_tokenizer, exchanges(BORN, 6), finished.append)
    assert list(located.forms) == ["statement", "chat"]
    assert sum(finished) == 6 + 6
    for found in located.forms.values():
        assert found.pairs == 6 and found.telling >= 1
        assert len(found.restored) == 4
        # behind the subject, the state after the last layer is not read
        assert found.restored[-1] == pytest.approx(0.0, abs=1e-4)
        assert found.restored[0] != 0.0
    assert tiny_llama.training and same_weights(tiny_llama, before)
    monkeypatch.setattr(tiny_tokenizer, "chat_template", None)
    plain = locate(tiny_llama, tiny_tokenizer, exchanges(BORN, 6))
    assert dict(plain.forms) == {"statement": located.forms["statement"]}


def test_a_subject_that_ends_the_prompt_tells_only_in_a_chat(
    tiny_llama: Any, tiny_tokenizer: Any
) -> None:
    pairs = exchanges(requests("Tell me about {}", *PEOPLE), 6)
    forms = locate(tiny_llama, tiny_tokenizer, pairs).forms
    assert forms["statement"].pairs == 0
    assert "ends with its subject" in forms["statement"].doubt
    assert forms["chat"].pairs == 6
