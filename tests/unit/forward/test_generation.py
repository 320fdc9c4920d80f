"""Batched greedy answers equal one-at-a-time answers, and leave no trace."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_llama import build_tokenizer
from tiny_models import build_model
from tiny_tokenizers import ending_texts

from rose_easyedit.errors import RoSEError
from rose_easyedit.evaluation.facts import Fact
from rose_easyedit.evaluation.queries import ALL_FORMS, MULTI_TURN, as_text, queries_of
from rose_easyedit.forward.generation import encode, generate_greedy, inference, render, stop_tokens
from rose_easyedit.forward.next_tokens import last_logits
from rose_easyedit.forward.shared_prefix import common_opening

TEXTS = [
    "Marie Curie was born in",
    "Who is Ada Lovelace?",
    "The mother tongue of Isaac Newton is",
    "Paris",
    "Complete the following sentence: Albert Einstein is a citizen of",
]


def by_hand(model: Any, tokenizer: Any, text: str, *, chat: bool, steps: int) -> str:
    """Argmax after argmax without a cache, a mask or padding."""
    ids = encode(tokenizer, [text], chat=chat)[0]
    new: list[int] = []
    with torch.no_grad():
        for _ in range(steps):
            token = int(model(torch.tensor([ids + new])).logits[0, -1].argmax())
            if token == tokenizer.eos_token_id:
                break
            new.append(token)
    return tokenizer.decode(new, skip_special_tokens=True)


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_batches_answer_like_single_rows(
    tiny_llama: Any, tiny_tokenizer: Any, chat: bool, batch_size: int
) -> None:
    answers = generate_greedy(
        tiny_llama, tiny_tokenizer, TEXTS, chat=chat, max_new_tokens=8, batch_size=batch_size
    )
    assert answers == [by_hand(tiny_llama, tiny_tokenizer, t, chat=chat, steps=8) for t in TEXTS]
    assert len(set(answers)) > 1


def test_a_tokenizer_that_ends_each_text_ends_no_query(tiny_tokenizer: Any) -> None:
    ending = ending_texts(tiny_tokenizer)
    assert ending(TEXTS[0])["input_ids"] != tiny_tokenizer(TEXTS[0])["input_ids"]
    for chat in (False, True):
        rows = encode(ending, TEXTS, chat=chat)
        assert rows == encode(tiny_tokenizer, TEXTS, chat=chat)


def test_a_row_stops_at_the_end_token_and_the_others_go_on(
    tiny_llama: Any, tiny_tokenizer: Any
) -> None:
    single = [by_hand(tiny_llama, tiny_tokenizer, t, chat=False, steps=8) for t in TEXTS]
    first = encode(tiny_tokenizer, [TEXTS[0]], chat=False)[0]
    with torch.no_grad():
        stop = int(tiny_llama(torch.tensor([first])).logits[0, -1].argmax())
    tiny_llama.generation_config.eos_token_id = [stop]
    answers = generate_greedy(tiny_llama, tiny_tokenizer, TEXTS, chat=False, max_new_tokens=8)
    assert answers[0] == tiny_tokenizer.decode([stop], skip_special_tokens=True)
    assert any(answer == whole for answer, whole in zip(answers[1:], single[1:], strict=True))


def test_shared_opening_changes_no_answer(tiny_llama: Any, tiny_tokenizer: Any) -> None:
    opening = "The profession of "
    texts = [opening + name for name in ("Marie Curie is", "Isaac Newton is a", "Paris")]
    answers = generate_greedy(tiny_llama, tiny_tokenizer, texts, chat=False, max_new_tokens=6)
    assert answers == [by_hand(tiny_llama, tiny_tokenizer, t, chat=False, steps=6) for t in texts]


def test_a_models_own_generation_settings_change_no_answer(
    tiny_llama: Any, tiny_tokenizer: Any
) -> None:
    plain = generate_greedy(tiny_llama, tiny_tokenizer, TEXTS, chat=False, max_new_tokens=8)
    tiny_llama.generation_config.repetition_penalty = 5.0
    tiny_llama.generation_config.no_repeat_ngram_size = 1
    tiny_llama.generation_config.num_beams = 3
    again = generate_greedy(tiny_llama, tiny_tokenizer, TEXTS, chat=False, max_new_tokens=8)
    assert again == plain
    assert tiny_llama.generation_config.num_beams == 3


@pytest.mark.parametrize("window", [4, 60])
def test_padding_takes_no_place_in_a_window_that_slides(window: int) -> None:
    model = build_model("mistral-sliding", sliding_window=window)
    tokenizer = build_tokenizer()
    opening = "The profession of Marie Curie and of Isaac Newton and of Ada Lovelace and of "
    texts = [opening + name for name in ("Paris", "Marie Curie was born in Paris", "Isaac Newton")]
    rows = encode(tokenizer, texts, chat=False)
    assert len(set(map(len, rows))) > 1 and common_opening(rows) > 4
    assert generate_greedy(model, tokenizer, texts, chat=False, max_new_tokens=6) == [
        by_hand(model, tokenizer, text, chat=False, steps=6) for text in texts
    ]
    with inference(model, None):
        together = last_logits(model, rows, [1] * len(rows))
        alone = [model(torch.tensor([row])).logits[0, -1].float() for row in rows]
    torch.testing.assert_close(together[:, -1], torch.stack(alone), atol=1e-4, rtol=1e-4)


class ShowsTokens:
    """A tokenizer whose decoded text is the token ids themselves."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)

    def __call__(self, *args: Any, **settings: Any) -> Any:
        return self.tokenizer(*args, **settings)

    def decode(self, row: list[int], **_: Any) -> str:
        return str([token for token in row if token])


def test_batches_equal_single_rows_token_for_token(tiny_llama: Any, tiny_tokenizer: Any) -> None:
    fact = Fact(
        "Marie Curie",
        "city",
        "Marie Curie was born in",
        "London",
        "Warsaw",
        questions=("Where was Marie Curie born?",),
    )
    queries = [query for query in queries_of(fact, ALL_FORMS) if query.chat]
    assert [query.form for query in queries] == ["question", MULTI_TURN]
    chats = [as_text(query, system) for query in queries for system in (None, "Be brief.")]
    tokenizer = ShowsTokens(tiny_tokenizer)
    for texts, chat in ((TEXTS, False), ([*TEXTS, *chats], True)):
        settings = dict(chat=chat, max_new_tokens=8)
        together = generate_greedy(tiny_llama, tokenizer, texts, batch_size=16, **settings)
        apart = generate_greedy(tiny_llama, tokenizer, texts, batch_size=1, **settings)
        assert together == apart
        assert len(set(apart)) > 1 and all(answer.count(",") > 2 for answer in apart)


def test_nothing_is_left_changed(tiny_llama: Any, tiny_tokenizer: Any) -> None:
    tiny_llama.train()
    tiny_llama.model.layers[0].eval()
    training = [module.training for module in tiny_llama.modules()]
    weights = {name: value.clone() for name, value in tiny_llama.state_dict().items()}
    side, rng = tiny_tokenizer.padding_side, torch.get_rng_state()
    config = tiny_llama.generation_config.to_dict()
    generate_greedy(tiny_llama, tiny_tokenizer, TEXTS, chat=True, max_new_tokens=2)
    assert [module.training for module in tiny_llama.modules()] == training
    assert tiny_tokenizer.padding_side == side
    assert tiny_llama.generation_config.to_dict() == config
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(torch.equal(value, weights[name]) for name, value in tiny_llama.state_dict().items())


def test_progress_counts_every_row_once(tiny_llama: Any, tiny_tokenizer: Any) -> None:
    seen: list[int] = []
    generate_greedy(
        tiny_llama, tiny_tokenizer, TEXTS, chat=False, max_new_tokens=1, batch_size=2,
        progress=seen.append,
    )  # fmt: skip
    assert seen == [2, 2, 1]


def test_no_texts_no_answers(tiny_llama: Any, tiny_tokenizer: Any) -> None:
    assert generate_greedy(tiny_llama, tiny_tokenizer, [], chat=True) == []


def test_what_is_longer_than_the_models_context_is_refused(
    tiny_llama: Any, tiny_tokenizer: Any
) -> None:
    tiny_llama.config.max_position_embeddings = 12
    text = "Marie Curie"
    n = len(tiny_tokenizer(text)["input_ids"])

    def ask(texts: list[str], more: int) -> list[str]:
        return generate_greedy(tiny_llama, tiny_tokenizer, texts, chat=False, max_new_tokens=more)

    assert len(ask([text], 12 - n)) == 1
    fault = f"has {n} tokens and its answer may have {13 - n}, .* reads 12 .* ask for {12 - n} at"
    with pytest.raises(RoSEError, match=fault):
        ask(["Ada", text], 13 - n)
    with pytest.raises(RoSEError, match=r"the model reads 12 in all; shorten the prompt\."):
        ask([text * 9], 1)


def test_chat_without_a_template_is_refused(tiny_llama: Any, tiny_tokenizer: Any) -> None:
    import copy

    plain = copy.deepcopy(tiny_tokenizer)
    plain.chat_template = None
    with pytest.raises(RoSEError, match="no chat template"):
        generate_greedy(tiny_llama, plain, TEXTS, chat=True)


def test_an_empty_text_is_refused_by_its_index(tiny_llama: Any, tiny_tokenizer: Any) -> None:
    with pytest.raises(RoSEError, match=r"\[1\]"):
        generate_greedy(tiny_llama, tiny_tokenizer, ["Paris", ""], chat=False)


def test_a_template_that_refuses_the_messages_is_named(
    tiny_llama: Any, tiny_tokenizer: Any
) -> None:
    import copy

    strict = copy.deepcopy(tiny_tokenizer)
    strict.chat_template = (
        "{% if messages[0]['role'] == 'system' %}"
        "{{ raise_exception('no system role') }}{% endif %}<|assistant|>"
    )
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    with pytest.raises(RoSEError, match="no system role"):
        generate_greedy(tiny_llama, strict, [messages], chat=True)


def test_messages_without_a_chat_are_refused(tiny_tokenizer: Any) -> None:
    with pytest.raises(RoSEError, match="chat=True"):
        render(tiny_tokenizer, [[{"role": "user", "content": "Hi"}]], chat=False)


def test_the_models_own_stop_tokens_come_first(tiny_llama: Any, tiny_tokenizer: Any) -> None:
    tiny_llama.generation_config.eos_token_id = [3, 5]
    assert stop_tokens(tiny_llama, tiny_tokenizer) == [3, 5]
    tiny_llama.generation_config.eos_token_id = None
    assert stop_tokens(tiny_llama, tiny_tokenizer) == [tiny_tokenizer.eos_token_id]


def test_a_full_stop_does_not_end_an_answer(tiny_llama: Any, tiny_tokenizer: Any) -> None:
    (stop,) = tiny_tokenizer(".", add_special_tokens=False)["input_ids"]
    only_stops = torch.nn.functional.one_hot(torch.tensor(stop), 512).float()
    tiny_llama.lm_head.register_forward_hook(lambda *_: only_stops.expand(1, 1, 512))
    answers = generate_greedy(tiny_llama, tiny_tokenizer, ["Paris"], chat=False, max_new_tokens=5)
    assert answers == ["....."]
