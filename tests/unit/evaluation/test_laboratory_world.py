"""The laboratory's world, tokenizer and training, without a trained model."""

from __future__ import annotations

import random

import laboratory_training
import pytest
import torch
from laboratory_texts import make_people, render, tell, vocabulary
from laboratory_tokenizer import UNKNOWN, make_tokenizer
from laboratory_training import Recipe, Schooling, _masks, new_model, teach, train

from rose_easyedit.errors import RoSEError
from rose_easyedit.evaluation.laboratory import Population
from rose_easyedit.evaluation.laboratory.population import make_fact
from rose_easyedit.evaluation.laboratory.world import relations
from rose_easyedit.method.contexts import CHAT_CONTEXTS, PREFIXES, QUERY_FORMATS
from rose_easyedit.text.locate_subject import tokenize

TINY = Recipe(people=6, layers=3, local_layers=2, width=16, heads=2, feed_forward=32, steps=3)


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer(vocabulary())


@pytest.fixture(scope="module")
def people():
    return make_people(30, 0.4, seed=0)


def test_eight_relations_with_two_wordings_of_each_form_and_no_shared_value():
    assert len(relations()) == 8
    values = [value for relation in relations() for value in relation.values]
    assert len(values) == len(set(values)) == 8 * 24
    for relation in relations():
        texts = [relation.prompt, *relation.paraphrases, *relation.questions]
        texts += relation.instructions
        assert len(texts) == len(set(texts)) == 7
        assert all(text.count("{}") == 1 for text in texts)


def test_names_are_shared_in_part_and_never_in_whole(people):
    names = [person.name for person in people]
    firsts = {name.split()[0] for name in names}
    lasts = {name.split()[1] for name in names}
    assert len(set(names)) == 30
    assert len(firsts) < 15 and len(lasts) < 15
    assert firsts.isdisjoint(lasts)
    assert sum(not person.spoken_of for person in people) == 12


def test_people_are_drawn_by_the_seed():
    assert make_people(30, 0.4, seed=0) == make_people(30, 0.4, seed=0)
    assert make_people(30, 0.4, seed=0) != make_people(30, 0.4, seed=1)


def test_too_many_people_are_refused():
    with pytest.raises(ValueError):
        make_people(5000, 0.4, seed=0)


def test_every_text_is_made_of_known_words(tokenizer, people):
    dice = random.Random(0)
    unknown = tokenizer.convert_tokens_to_ids(UNKNOWN)
    for _ in range(500):
        person, relation = dice.choice(people), dice.choice(relations())
        told = render(tell(person, relation, dice))
        assert unknown not in tokenizer(told)["input_ids"], told
    for text in [*PREFIXES, *QUERY_FORMATS, *(user for user, _ in CHAT_CONTEXTS)]:
        assert unknown not in tokenizer(text.replace("{}", people[0].name))["input_ids"]


def test_of_those_not_spoken_of_there_are_statements_only(people):
    dice = random.Random(0)
    silent = next(person for person in people if not person.spoken_of)
    spoken = next(person for person in people if person.spoken_of)
    relation = relations()[0]
    statement = f"{relation.prompt.format(silent.name)} {silent.values[relation.name]}."
    told = [tell(silent, relation, dice) for _ in range(100)]
    assert all(turn.user is None and turn.text.endswith(statement) for turn in told)
    users = {turn.user for turn in (tell(spoken, relation, dice) for _ in range(300))}
    assert {q.format(spoken.name) for q in relation.questions} < users


def test_a_name_is_two_tokens_and_a_value_one(tokenizer, people):
    relation = relations()[0]
    query = tokenize(
        tokenizer, relation.prompt.format(people[0].name), people[0].name, f" {relation.values[0]}"
    )
    assert query.subject == 2 and query.n_target == 1


def test_the_chat_template_reads_as_the_training_texts_do(tokenizer, people):
    relation, person = relations()[0], people[-1]
    asked = relation.questions[0].format(person.name)
    opened = tokenizer.apply_chat_template(
        [{"role": "user", "content": asked}], tokenize=False, add_generation_prompt=True
    )
    dice = random.Random(0)
    told = [tell(person, relation, dice) for _ in range(300)]
    whole = next(render(turn) for turn in told if turn.user == asked)
    ids = tokenizer(opened, add_special_tokens=False)["input_ids"]
    assert tokenizer(whole, add_special_tokens=False)["input_ids"][: len(ids)] == ids


def test_local_layers_see_one_token_back_and_later_layers_not_what_is_hidden():
    mask = torch.tensor([[1, 1, 1, 0]])
    unseen = torch.tensor([[False, True, False, False]])
    seen = {kind: scores[0, 0] == 0 for kind, scores in _masks(mask, unseen).items()}
    assert seen["sliding_attention"].tolist() == [
        [True, False, False, False],
        [True, True, False, False],
        [False, True, True, False],
        [False, False, True, True],
    ]
    assert seen["full_attention"].tolist() == [
        [True, False, False, False],
        [True, True, False, False],
        [True, False, True, False],
        [True, False, True, True],
    ]


def test_the_masks_of_training_are_the_models_own_where_nothing_is_hidden(tokenizer):
    model = new_model(TINY, tokenizer).eval()
    ids = torch.tensor([[5, 6, 7, 8, 9, 10], [11, 12, 13, 14, 0, 0]])
    mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
    with torch.no_grad():
        own = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        ours = model(input_ids=ids, attention_mask=_masks(mask, ids == -1), use_cache=False).logits
    assert torch.allclose(own[mask.bool()], ours[mask.bool()], atol=1e-5)


def test_training_is_the_same_for_a_seed_and_leaves_the_callers_dice_alone(tokenizer):
    people = make_people(TINY.people, 0.5, seed=0)
    before = torch.get_rng_state()
    first, second = (train(TINY, tokenizer, people).state_dict() for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[name], second[name]) for name in first)
    untrained = new_model(TINY, tokenizer).state_dict()
    assert not torch.equal(first["lm_head.weight"], untrained["lm_head.weight"])


@pytest.mark.parametrize(("first_loss", "later"), [(0.0, 2), (100.0, 6)])
def test_a_few_are_heard_of_first_and_the_others_once_those_are_known(
    first_loss, later, tokenizer, monkeypatch
):
    people = make_people(TINY.people, 0.5, seed=0)
    heard = []
    tell_texts = laboratory_training._texts

    def texts(recipe, tokenizer, known, dice):
        heard.append(known)
        return tell_texts(recipe, tokenizer, known, dice)

    monkeypatch.setattr(laboratory_training, "_texts", texts)
    schooling = Schooling(others=0.1, autocast=False, first_people=2, first_loss=first_loss)
    teach(new_model(TINY, tokenizer), TINY, tokenizer, people, schooling)
    assert [len(known) for known in heard] == [2, later, later]
    assert all(person.spoken_of for person in heard[0])


def test_values_may_be_few(people):
    few = make_people(30, 0.4, seed=0, n_values=3)
    assert [person.name for person in few] == [person.name for person in people]
    for relation in relations():
        assert {person.values[relation.name] for person in few} == set(relation.values[:3])


def test_facts_are_about_those_not_spoken_of_and_false(people):
    lab = Population(people)
    facts = lab.facts(5, 3)
    silent = {person.name: person for person in people if not person.spoken_of}
    assert len(facts) == 15 and len({fact.subject for fact in facts}) == 5
    for fact in facts:
        truth = silent[fact.subject].values[fact.relation]
        assert fact.ground_truth == truth != fact.target_new
        assert len(fact.queries) == 7
        # a value that nobody has is a word that the model has never said
        assert any(p.values[fact.relation] == fact.target_new for p in people)
    assert facts == lab.facts(5, 3) != lab.facts(5, 3, seed=1)


def test_locality_is_about_everybody_else(people):
    lab = Population(people)
    facts = lab.facts(5, 3)
    prompts = lab.locality(facts, count=50)
    assert len(prompts) == 50
    assert not any(fact.subject in prompt.text for fact in facts for prompt in prompts)
    assert len(lab.locality(facts, count=10**6)) == (30 - 5) * 8 * 2


def test_too_many_facts_are_refused_all_at_once(people):
    with pytest.raises(RoSEError, match=r"n_subjects is 13; give 1 to 12(.|\n)*facts_per_.* 9"):
        Population(people).facts(13, 9)


def test_a_fact_holds_every_form(people):
    fact = make_fact(people[0], relations()[0], "Oslo")
    assert [query.chat for query in fact.queries] == [False] * 3 + [True] * 4
