"""Trained models of every family: before training, how they are taught, what is kept."""

from __future__ import annotations

import json

import families
import pytest
import torch
from family_anatomy import anatomy
from family_models import FAMILIES, gain, is_norm, load_family, untrained
from laboratory_texts import vocabulary
from laboratory_tokenizer import make_tokenizer
from laboratory_training import Recipe, _attention, _masks, _values

from rose_easyedit.models.architectures import ARCHITECTURES, read_architecture

TINY = Recipe(
    people=8,
    statements_only=0.25,
    layers=3,
    local_layers=2,
    width=96,
    feed_forward=32,
    steps=2,
    batch=8,
)


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer(vocabulary())


def test_every_known_family_has_a_model():
    assert set(FAMILIES) == set(ARCHITECTURES)


@pytest.mark.parametrize("family", FAMILIES)
def test_each_layer_is_given_the_mask_that_it_shall_read_with(family, tokenizer):
    model = untrained(family, TINY, tokenizer).eval()
    ids = torch.tensor([[5, 6, 7, 8, 9, 10], [11, 12, 13, 14, 15, 16]])
    mask = torch.ones_like(ids)

    def logits(unseen, local, n_local=2):
        with torch.no_grad(), _attention(model, n_local, _masks(mask, unseen, local)):
            return model(input_ids=ids, attention_mask=mask, use_cache=False).logits

    nothing, nobody = torch.zeros_like(ids).bool(), torch.tensor([[False], [False]])
    with torch.no_grad():
        own = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    assert torch.allclose(own, logits(nothing, nobody), atol=1e-4)
    local = logits(nothing, torch.tensor([[True], [False]]))
    assert torch.allclose(own[1], local[1], atol=1e-4)
    assert torch.allclose(own[0, :2], local[0, :2], atol=1e-4)
    assert not torch.allclose(own[0, 3:], local[0, 3:], atol=1e-3)
    # with local layers only, a token two places back per layer is out of sight
    changed = ids.clone()
    changed[0, 0] = 20
    every = torch.ones(2, 1, dtype=torch.bool)
    near = logits(nothing, every, n_local=3)
    ids = changed
    assert torch.allclose(near[0, 4:], logits(nothing, every, n_local=3)[0, 4:], atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_gains_are_away_from_one_and_the_same_for_a_seed(family, tokenizer):
    model = untrained(family, TINY, tokenizer)
    gains = torch.cat([gain(module) for module in model.modules() if is_norm(module)])
    assert gains.std() > 0.2 and gains.min() > 0
    again = untrained(family, TINY, tokenizer).state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("family", ["gemma2", "gemma3_text"])
def test_one_coordinate_dominates_gemma(family, tmp_path):
    trained = load_family(family, TINY, tmp_path)
    found = anatomy(trained, 0)
    assert found["strongest"] > 0.8 and found["own"] < 0.5
    assert found["post_gains"]["least"] < 0.9


def test_the_values_are_what_a_full_stop_and_the_end_follow(tokenizer):
    texts = ["<|begin|> Ada Abel likes to eat a plate of pasta. <|end|>"]
    texts += ["<|begin|> <|user|> Give the birthplace of Ada Abel. <|end|> <|assistant|> Oslo."]
    texts[1] += " <|end|>"
    encoded = tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt")
    ids, mask = encoded["input_ids"], encoded["attention_mask"]
    values = _values(ids[:, 1:], mask)
    kept = [row[row != -100].tolist() for row in values]
    assert [tokenizer.decode(row) for row in kept] == ["pasta", "Oslo"]


def test_a_model_is_kept_and_trained_again_where_it_was_damaged(tmp_path):
    first = load_family("llama", TINY, tmp_path)
    record = json.loads((first.folder / "family.json").read_text())
    assert record == first.record and record["family"] == "llama"
    weights = first.folder / "model.safetensors"
    whole, written = weights.read_bytes(), weights.stat().st_mtime_ns
    assert load_family("llama", TINY, tmp_path).folder == first.folder
    assert weights.stat().st_mtime_ns == written
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    load_family("llama", TINY, tmp_path)
    assert weights.read_bytes() == whole


def test_a_family_is_measured_once_and_put_into_tables(tmp_path, monkeypatch):
    trained = load_family("gpt2", TINY, tmp_path)
    monkeypatch.setattr(families, "load_family", lambda family: trained)
    monkeypatch.setattr(families, "SUBJECTS", 2)
    out = tmp_path / "families.jsonl"
    with out.open("w") as file:
        families.measure_family("gpt2", ["memit-merge"], file)
    models, edits = families.read_lines(out)
    assert list(models) == ["gpt2"] and list(edits) == [("gpt2", "memit-merge")]
    line = edits["gpt2", "memit-merge"]
    assert line["facts"] == 6 and line["subjects"] == 2
    assert "| gpt2 | memit-merge | " in families.edit_table(edits)
    assert "| gpt2 | " in families.model_table(models)
    assert line["layers"] and max(line["layers"]) < read_architecture(trained.model).n_layers


def test_the_other_facts_are_of_the_same_people_and_not_edited(tmp_path):
    trained = load_family("gpt2", TINY, tmp_path)
    facts, others = families.facts_and_others(trained, 2, 3)
    assert len(facts) == 6 and len(others) == 2 * 5
    assert {fact.subject for fact in facts} == {fact.subject for fact in others}
    assert not {fact.case_id for fact in facts} & {fact.case_id for fact in others}
