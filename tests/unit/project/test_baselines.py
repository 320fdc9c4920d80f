"""The baselines of benchmarks/: UltraEdit's maths, and that each edits a copy and nothing else."""

from __future__ import annotations

import io
import json
import os
import time

import baselines
import pytest
import torch
from baseline_lora import target_loss
from baseline_ultraedit import edited_modules, normalise, weight_shift
from baselines import METHODS, Job, Method, edited_copy
from measuring import Bench
from torch.nn import functional

from rose_easyedit.config.hparams import RoSEHyperParams
from rose_easyedit.errors import RoSEError
from rose_easyedit.evaluation.evaluate import Baseline, EvaluationSettings
from rose_easyedit.evaluation.facts import load_facts
from rose_easyedit.models.fingerprint import weights_fingerprint
from rose_easyedit.models.loading import load_model
from rose_easyedit.text.locate_subject import TokenQuery


def fingerprint(model):
    return weights_fingerprint(model.state_dict().items())


@pytest.fixture(scope="module")
def bench():
    model, tokenizer = load_model("tiny-random")
    facts = load_facts("validation")[:4]
    asking = EvaluationSettings(forms=("statement",), max_new_tokens=2)
    before = Baseline.of(model, tokenizer, facts, locality=[], settings=asking)
    return Bench(model, tokenizer, facts, before)


@pytest.fixture
def job(bench):
    return Job(bench, RoSEHyperParams.preset("rose", "tiny-random"), seconds=0.5)


def loss_of(model, job):
    with torch.no_grad():
        return target_loss(model, job.queries(chat=True)).item()


def test_normalised_rows_are_in_deviations_of_what_was_seen():
    seen = torch.tensor([[0.0, 5.0], [2.0, 5.0], [4.0, 5.0]], dtype=torch.float64)
    rows = normalise(seen[:2], seen)
    # the mean of the first column is 2 and its deviation 2; the second says nothing
    assert torch.allclose(rows, torch.tensor([[-1.0, 0.0], [0.0, 0.0]], dtype=torch.float64))


def test_the_update_by_hand():
    keys = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    unit_keys = torch.tensor([[1.0, 1.0], [2.0, 0.0]], dtype=torch.float64)
    unit_gradients = torch.tensor([[1.0, 0.0, -1.0], [0.0, 3.0, 0.0]], dtype=torch.float64)
    # values -0.5 * 2 * g and -0.5 * 4 * g; H^T H + I = diag(2, 5), so that column 1 is 1/2 of the
    # first value and column 2 is 2/5 of the second
    expected = torch.tensor([[-0.5, 0.0], [0.0, -2.4], [0.5, 0.0]], dtype=torch.float64)
    shift = weight_shift(keys, unit_keys, unit_gradients, 0.5)
    assert torch.allclose(shift, expected, rtol=0, atol=1e-14)


def test_the_update_solves_its_ridge_regression():
    generator = torch.Generator().manual_seed(0)
    keys, unit_keys, unit_gradients = (
        torch.randn(6, n, generator=generator, dtype=torch.float64) for n in (4, 4, 3)
    )
    values = -0.1 * (unit_keys**2).sum(1, keepdim=True) * unit_gradients
    shift = weight_shift(keys, unit_keys, unit_gradients, 0.1).requires_grad_()
    # dW minimises |H dW^T - V|^2 + |dW|^2
    objective = (keys @ shift.T - values).square().sum() + shift.square().sum()
    (gradient,) = torch.autograd.grad(objective, shift)
    assert gradient.abs().max() < 1e-12


def test_ultraedit_follows_the_gradient_and_touches_its_modules_alone(bench, job):
    model, _ = edited_copy(METHODS["ultraedit"], job, {"eta": 1e-6})
    queries = job.queries(chat=False)
    assert target_loss(model, queries) < target_loss(bench.model, queries)
    old, new = bench.model.state_dict(), model.state_dict()
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    edited = {id(module.weight) for module in edited_modules(model)}
    names = {name for name, weight in model.named_parameters() if id(weight) in edited}
    assert changed == names
    assert names


def test_ultraedit_with_no_step_changes_nothing(bench, job):
    model, _ = edited_copy(METHODS["ultraedit"], job, {"eta": 0.0})
    assert fingerprint(model) == fingerprint(bench.model)


@pytest.mark.parametrize("name", [name for name in METHODS if not METHODS[name].easyedit])
def test_a_baseline_edits_a_copy_and_leaves_the_model_as_it_was(bench, job, name):
    check_edit(bench, job, name)


@pytest.mark.contract
@pytest.mark.skipif(
    not os.environ.get("EASYEDIT_HOME"), reason="EASYEDIT_HOME does not name a clone of EasyEdit"
)
@pytest.mark.parametrize("name", [name for name in METHODS if METHODS[name].easyedit])
def test_a_baseline_of_easyedit_does_too(bench, job, name):
    check_edit(bench, job, name)


def check_edit(bench, job, name):
    before = fingerprint(bench.model)
    names = list(bench.model.state_dict())
    state = torch.get_rng_state()
    model, seconds = edited_copy(METHODS[name], job, METHODS[name].chosen)
    assert seconds > 0
    assert fingerprint(bench.model) == before
    assert torch.equal(torch.get_rng_state(), state)
    # a plain model again, with other weights, that goes on as before
    assert list(model.state_dict()) == names
    assert fingerprint(model) != before
    assert not model.training
    assert model.config.use_cache == bench.model.config.use_cache
    if name != "ultraedit":  # its step is chosen for a real model
        assert loss_of(model, job) < loss_of(bench.model, job)


def test_a_method_that_reaches_through_its_copy_is_caught(bench, job):
    weight = bench.model.model.norm.weight

    def meddle(model, job):
        with torch.no_grad():
            weight.add_(1.0)
        return model

    try:
        with pytest.raises(RoSEError, match="unedited model's weights have changed"):
            edited_copy(Method(meddle, {}, [{}]), job, {})
    finally:
        with torch.no_grad():
            weight.sub_(1.0)


def test_training_ends_with_its_time(bench, job):
    began = time.process_time()
    edited_copy(METHODS["lora"], job, {"learning_rate": 1e-3})
    assert 0.5 <= time.process_time() - began


def test_the_loss_is_that_of_the_targets_tokens_alone(bench):
    queries = [TokenQuery((5, 6, 7, 8), 0, 2), TokenQuery((5, 9, 10), 0, 1)]
    with torch.no_grad():
        rows = [bench.model(torch.tensor([q.ids])).logits[0] for q in queries]
        losses = [
            functional.cross_entropy(rows[0][1:3], torch.tensor([7, 8]), reduction="sum"),
            functional.cross_entropy(rows[1][1:2], torch.tensor([10]), reduction="sum"),
        ]
        assert target_loss(bench.model, queries).item() == pytest.approx(sum(losses).item() / 3)


def test_a_line_says_what_was_measured(bench):
    out = io.StringIO()
    bench.write_line(out, bench.model, "lora", {"learning_rate": 0.5}, seconds=8.0)
    line = json.loads(out.getvalue())
    assert line["method"] == "lora"
    assert line["setting"] == {"learning_rate": 0.5}
    assert (line["cpu_seconds"], line["cpu_seconds_per_fact"]) == (8.0, 2.0)
    assert line["threads"] == torch.get_num_threads()
    assert line["facts"] == 4
    assert line["forms"].keys() == {"statement"}


def test_settings_are_not_chosen_on_the_test_split(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["baselines.py", "--sweep", "--split", "test"])
    with pytest.raises(SystemExit):
        baselines.main()
    assert "validation" in capsys.readouterr().err


def test_what_is_chosen_was_tried():
    for method in baselines.METHODS.values():
        assert method.chosen in method.sweep
