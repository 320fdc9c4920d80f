"""A fact whose loss is not finite: the batch is refused, or the fact left out and not claimed."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import FACTS, build_model, same_weights, settings, weights_of
from torch import Tensor

from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.errors import RoSEError
from rose_easyedit.method.edit import compute_edit
from rose_easyedit.method.stage1 import integration
from rose_easyedit.method.stage1.failures import usable, without_failures
from rose_easyedit.method.stage1.integration import Shifts
from rose_easyedit.method.stage1.pieces import Group, Piece
from rose_easyedit.method.stage1.store import ShiftStore
from rose_easyedit.text.locate_subject import TokenQuery

NAN = float("nan")
# its second target token is predicted from the first, which the model of `broken` cannot read
BAD = {"prompt": "We asked Marie Curie", "subject": "Marie Curie", "target_new": "German Polish"}
LOST = {"prompt": "We asked Isaac Newton", "subject": "Isaac Newton", "target_new": "German Polish"}
# the subject of the first is the first to appear, and the first to go
BATCH = [LOST, FACTS[0], BAD, FACTS[1], FACTS[2]]
LEAVE_OUT = {"on_failure": "leave_out", "fact_steps": 6, "subject_steps": 6}
INTEGRATIONS = ("hierarchical", "joint", "independent")


@pytest.fixture
def broken(tiny_tokenizer: Any) -> Any:
    """A model that reads " German" as no numbers; it can be asked for it all the same."""
    model = build_model("llama-untied")
    (german,) = tiny_tokenizer(" German")["input_ids"]
    with torch.no_grad():
        model.model.embed_tokens.weight[german] = NAN
    return model


@pytest.mark.parametrize("how", INTEGRATIONS)
def test_refused_unless_asked_for(how: str, broken: Any, tiny_tokenizer: Any) -> None:
    before = broken.lm_head.weight.clone()
    with pytest.raises(RoSEError, match="(?s)not finite.*on_failure: leave_out.*Marie Curie"):
        compute_edit(broken, tiny_tokenizer, BATCH, settings(hierarchy={"integration": how}))
    assert torch.equal(broken.lm_head.weight, before)
    assert all(parameter.requires_grad for parameter in broken.parameters())


@pytest.mark.parametrize("how", INTEGRATIONS)
def test_the_fact_is_left_out_and_the_edit_is_that_of_the_others(
    how: str, broken: Any, tiny_tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    hparams = settings(hierarchy={**LEAVE_OUT, "integration": how})
    with caplog.at_level(logging.WARNING):
        delta = compute_edit(broken, tiny_tokenizer, BATCH, hparams)
    wanted = compute_edit(broken, tiny_tokenizer, FACTS, hparams)
    claimed = [(r["subject"], r["prompt"]) for r in delta.provenance.requests]
    assert claimed == [(fact["subject"], fact["prompt"]) for fact in FACTS]
    assert delta.provenance.groups == wanted.provenance.groups
    assert delta.provenance.losses == pytest.approx(wanted.provenance.losses, abs=1e-3)
    assert delta.targets is not None and wanted.targets is not None
    torch.testing.assert_close(delta.targets, wanted.targets, atol=1e-2, rtol=1e-2)
    assert delta.provenance.log == [
        "'We asked Isaac Newton' (subject 'Isaac Newton'): its loss is not finite; it "
        "is left out and not edited",
        "'We asked Marie Curie' (subject 'Marie Curie'): its loss is not finite; it is "
        "left out and not edited",
    ]
    assert all(line in caplog.text for line in delta.provenance.log)


@pytest.mark.parametrize("how", INTEGRATIONS)
def test_what_is_on_record_is_plain_json(
    how: str, broken: Any, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    hparams = settings(hierarchy={**LEAVE_OUT, "integration": how, "kl_factor": 0.1})
    store = ShiftStore(tmp_path / "shifts")
    deltas = [compute_edit(broken, tiny_tokenizer, BATCH, hparams, store) for _ in range(2)]
    json.dumps(deltas[0].provenance.as_dict(), allow_nan=False)
    files = [delta.save(tmp_path / f"{i}").read_bytes() for i, delta in enumerate(deltas)]
    assert files[0] == files[1]
    loaded = EditDelta.load(tmp_path / "0")
    assert all(bool(factors.dense().isfinite().all()) for factors in loaded.layers.values())


def test_a_fact_that_fails_beside_the_others_of_its_subject(
    tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the subject level, in the third step; the subject is optimised again without it."""
    model, calls = build_model("llama-untied"), 0
    weights, loss = weights_of(model), integration._loss

    def failing(piece: Piece, shift: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
        nonlocal calls
        facts, drift = loss(piece, shift, *args)
        names = [name for name, fact in zip(piece.names, piece.fact, strict=True) if fact >= 0]
        second = torch.tensor([name.startswith("Marie Curie\n1\n") for name in names])
        calls += bool(second.any())
        return torch.where(second & (calls >= 3), torch.tensor(NAN), facts), drift

    monkeypatch.setattr(integration, "_loss", failing)
    hierarchy = {**LEAVE_OUT, "loss_threshold": 0.0}
    delta = compute_edit(model, tiny_tokenizer, FACTS, settings(hierarchy=hierarchy))
    assert calls == 3
    assert [r["prompt"] for r in delta.provenance.requests] == [
        FACTS[0]["prompt"],
        FACTS[2]["prompt"],
    ]
    assert delta.provenance.groups == [[0], [1]]
    assert delta.provenance.steps == [6, 6]
    (line,) = delta.provenance.log
    assert line.startswith("'Tell me about Marie Curie' (subject 'Marie Curie')")
    assert same_weights(model, weights)


def test_nothing_left_is_refused(broken: Any, tiny_tokenizer: Any) -> None:
    with pytest.raises(RoSEError, match="loss of every fact is not finite"):
        compute_edit(broken, tiny_tokenizer, [BAD, LOST], settings(hierarchy=LEAVE_OUT))


QUERY = TokenQuery((1, 2, 3), 0, 1)


def group(name: str, n_facts: int) -> Group:
    return Group(name, tuple((QUERY,) for _ in range(n_facts)), QUERY)


def test_only_groups_with_facts_that_remain_are_optimised_again() -> None:
    asked: list[list[tuple[str, int]]] = []
    answers = iter(
        [
            Shifts(
                torch.arange(4.0)[:, None], [[0.1], [NAN, 0.2, NAN], [NAN], [0.3, NAN]], [1] * 4
            ),
            Shifts(torch.tensor([[8.0], [9.0]]), [[NAN], [0.4]], [5, 6]),
        ]
    )

    def optimise(groups: Sequence[Group], start: Tensor) -> Shifts:
        asked.append([(g.name, len(g.facts)) for g in groups])
        assert [float(row) for row in start] == [
            {"a": 0, "b": 1, "c": 2, "d": 3}[g.name] for g in groups
        ]
        return next(answers)

    groups = [group("a", 1), group("b", 3), group("c", 1), group("d", 2)]
    found = without_failures(optimise, groups, torch.arange(4.0)[:, None])
    assert asked == [[("a", 1), ("b", 3), ("c", 1), ("d", 2)], [("b", 1), ("d", 1)]]
    assert str(found.losses) == str([[0.1], [NAN, NAN, NAN], [NAN], [0.4, NAN]])
    left, kept = usable(found, [[0], [1, 3, 5], [2], [4, 6]])
    assert kept == [0, 4]
    assert left.deltas.tolist() == [[0.0], [9.0]]
    assert left.losses == [[0.1], [0.4]] and left.steps == [1, 6]


def test_a_subject_that_overflows_is_a_failed_fact_and_no_sink(tiny_tokenizer: Any) -> None:
    model = build_model("llama-untied")
    violin = tiny_tokenizer(" violin")["input_ids"][0]
    with torch.no_grad():
        model.model.embed_tokens.weight[violin] = torch.inf
    fact = {"prompt": "He plays the violin of Ada Lovelace", "subject": "Ada Lovelace"}
    batch = [*FACTS[:2], {**fact, "target_new": "German"}]
    with pytest.raises(RoSEError, match="(?s)not finite.*on_failure: leave_out.*violin"):
        compute_edit(model, tiny_tokenizer, batch, settings())
    delta = compute_edit(model, tiny_tokenizer, batch, settings(hierarchy=LEAVE_OUT))
    assert [request["prompt"] for request in delta.provenance.requests] == [
        fact["prompt"] for fact in FACTS[:2]
    ]
    (line,) = delta.provenance.log
    assert "violin" in line and "its loss is not finite" in line
