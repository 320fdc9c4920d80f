"""What a call of EasyEdit's editor asks for is done, warned of, or refused before the host runs."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from test_easyedit import FACTS, REQUESTS, SINGLE_EDIT, differing, editor, hparams, workplace
from test_easyedit import pytestmark as marks
from tiny_llama import build_llama

from rose_easyedit import RoSEHyperParams, apply_rose_to_model
from rose_easyedit.errors import RoSEError

__all__ = ["editor", "hparams", "workplace"]  # fixtures

pytestmark = [
    *marks[:2],
    # EasyEdit calls deprecated functions and leaves files open; its warnings are not ours to mend.
    pytest.mark.filterwarnings("ignore"),
]

QUIET = {"verbose": False}
BATCHED = {"batch_edit": {**FACTS, **QUIET}, "edit": {**SINGLE_EDIT, **QUIET}}
METHODS = {**BATCHED, "normal_edit": {k: FACTS[k] for k in ("prompts", "subject", "target_new")}}


def call(editor: Any, name: str, **more: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    """A call's third value, and the weights as they were before it."""
    if not hasattr(editor, name):
        pytest.skip(f"this EasyEdit has no {name}")
    before = {k: v.clone() for k, v in editor.model.state_dict().items()}
    return getattr(editor, name)(**{**METHODS[name], **more})[2], before


def told(record: Any) -> list[str]:
    """The warnings of this package."""
    return [str(w.message) for w in record if "is ignored" in str(w.message)]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("word", ["keep_original_weight", "keep_original_weights"])
def test_an_edit_stays_where_the_original_weights_are_not_to_be_kept(
    name: str, word: str, editor: Any
) -> None:
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        written, before = call(editor, name, **{word: False})
    assert told(record) == []
    now = editor.model.state_dict()
    assert sorted(differing(now, before)) == sorted(written)
    assert written.delta.is_applied(editor.model)
    written.delta.revert(editor.model)
    assert differing(editor.model.state_dict(), before) == []


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("words", [{}, {"keep_original_weight": True}, {"sequential_edit": False}])
def test_the_model_is_restored_unless_a_call_says_otherwise(
    name: str, words: dict[str, bool], editor: Any
) -> None:
    _, before = call(editor, name, **words)
    assert differing(editor.model.state_dict(), before) == []


def test_the_two_words_of_restoring_may_not_contradict_each_other(editor: Any) -> None:
    for value in (True, False):
        with pytest.raises(RoSEError, match=f"sequential_edit={value} and keep_original_weight"):
            call(editor, "batch_edit", sequential_edit=value, keep_original_weight=value)
        with pytest.raises(RoSEError, match="contradict"):
            call(editor, "normal_edit", sequential_edit=value, keep_original_weights=value)


@pytest.mark.parametrize("name", BATCHED)
def test_what_nothing_makes_use_of_is_warned_of(name: str, editor: Any) -> None:
    n = len(METHODS[name]["prompts"])
    ignored = {
        "train_ds": [{"prompt": "x"}],
        "loc_prompts": ["x"] * n,
        "target_neg": ["x"] * n,
        "rephrase_prompt": ["x"] * n,
    }
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        call(editor, name, **ignored)
    messages = told(record)
    assert sorted(message.split()[0] for message in messages) == sorted(ignored)
    assert all("RoSE has no use" in message for message in messages[:3])
    assert messages[3].endswith(f"{name} does not read it; did you mean rephrase_prompts?")


@pytest.mark.parametrize("name", BATCHED)
def test_what_the_host_reads_is_not_warned_of(name: str, editor: Any) -> None:
    prompts = METHODS[name]["prompts"]
    asked = {"prompt": list(prompts), "ground_truth": ["one"] * len(prompts)}
    more: dict[str, Any] = {
        "rephrase_prompts": list(prompts),
        "locality_inputs": {"others": copy.deepcopy(asked)},
        "portability_inputs": {"hops": copy.deepcopy(asked)},
        "test_generation": False,
    }
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        call(editor, name, **more)
    assert told(record) == []


def test_what_is_handed_to_the_method_alone_is_warned_of(
    hparams: RoSEHyperParams, tiny_tokenizer: Any
) -> None:
    with pytest.warns(UserWarning, match="train_ds is ignored"):
        apply_rose_to_model(build_llama(), tiny_tokenizer, REQUESTS[:1], hparams, train_ds=[1])
    with pytest.warns(UserWarning, match="cache_template is ignored"):
        apply_rose_to_model(
            build_llama(), tiny_tokenizer, REQUESTS[:1], hparams, cache_template="x"
        )


@pytest.mark.parametrize("name", ["edit", "batch_edit", "normal_edit", "generate_edit"])
def test_faulty_requests_are_refused_together_before_the_host_sees_them(
    name: str, editor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not hasattr(editor, name):
        pytest.skip(f"this EasyEdit has no {name}")
    given = {k: list(FACTS[k]) for k in ("prompts", "subject", "target_new")}
    given["subject"][0] = "Old Town 7"
    given["target_new"][2] = " "
    with pytest.raises(RoSEError) as error:
        getattr(editor, name)(**given)
    message = str(error.value)
    assert "request 0" in message and "'Old Town 7'" in message
    assert "request 2: 'target_new' is empty" in message and "request 1" not in message


def test_requests_without_a_subject_are_refused_before_the_host_sees_them(editor: Any) -> None:
    given = {k: FACTS[k] for k in ("prompts", "target_new")}
    for name in ("edit", "batch_edit"):
        with pytest.raises(RoSEError, match="request 2: 'subject' is missing"):
            getattr(editor, name)(**given)
    with pytest.raises(RoSEError, match="request 1: the prompt"):
        editor.edit_requests([REQUESTS[0], {**REQUESTS[1], "subject": "Nobody"}])


def test_what_does_not_fit_the_prompts_is_named_together(editor: Any) -> None:
    others = {"prompt": ["x"], "ground_truth": ["y", "z"]}
    with pytest.raises(RoSEError) as error:
        editor.batch_edit(
            **{**FACTS, "subject": "Marie Curie", "target_new": ["one"] * 2, "ground_truth": "x"},
            rephrase_prompts=["a"],
            locality_inputs={"others": others},
        )
    message = str(error.value)
    for fault in (
        "subject has 1 entries for 3 prompts",
        "target_new has 2 entries",
        "ground_truth has 1 entries",
        "rephrase_prompts has 1 entries",
        "['others']['prompt'] has 1 entries",
        "['others']['ground_truth'] has 2 entries",
    ):
        assert fault in message
    with pytest.raises(RoSEError, match="there is no request"):
        editor.batch_edit(prompts=[], target_new=[], subject=[])


def test_two_targets_of_one_prompt_contradict_each_other_in_one_edit_only(editor: Any) -> None:
    twice = {k: [FACTS[k][0]] * 2 for k in ("prompts", "subject", "ground_truth")}
    given = {**twice, "target_new": ["German", "Polish"], **QUIET}
    with pytest.raises(RoSEError, match="requests 0 and 1 contradict each other"):
        editor.batch_edit(**given)
    _, _, written = editor.edit(**given)
    assert len(written.deltas) == 2
    editor.hparams.batch_size = 1
    _, _, written = editor.batch_edit(**given)
    assert len(written.deltas) == 2


@pytest.mark.parametrize("name", ["batch_edit", "edit"])
def test_a_text_is_one_prompt_and_not_its_letters(name: str, editor: Any) -> None:
    given = {name: values[0] for name, values in FACTS.items()}
    _, _, written = getattr(editor, name)(**given, **QUIET)
    assert written.delta.provenance.requests[0]["prompt"] == FACTS["prompts"][0]


@pytest.fixture
def padded_editor(hparams: RoSEHyperParams, tiny_tokenizer: Any) -> Iterator[Any]:
    """An editor whose tokenizer pads with a token that the model has no embedding for."""
    from rose_easyedit import BaseEditor

    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    model = build_llama(vocab_size=len(tiny_tokenizer))
    hparams.model_name = (model, tokenizer)  # type: ignore[assignment]
    yield BaseEditor.from_hparams(hparams)
    assert tokenizer.pad_token == "[PAD]"


def test_padding_that_the_model_lacks_never_reaches_it(padded_editor: Any, workplace: Path) -> None:
    prompts = ["Paris", "Who is the mother of Ada Lovelace, please?", "Rome"]
    others = {
        "others": {"prompt": [prompts] * 3, "ground_truth": [["one", "two three", "four"]] * 3}
    }
    padded_editor.batch_edit(**FACTS, **QUIET, locality_inputs=others)
