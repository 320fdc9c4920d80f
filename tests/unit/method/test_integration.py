"""Stage 1: what each level starts from, when it stops, and what it does not depend on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from jaxtyping import Bool, Float, Float32, Int64
from shapes import having, shapes_held
from tiny_models import FACTS, build_model, same_weights, settings, weights_of
from torch import Tensor

from rose_easyedit.config.hparams import HierarchyHyperParams
from rose_easyedit.errors import RoSEError
from rose_easyedit.forward.activations import frozen
from rose_easyedit.method import edit
from rose_easyedit.method.edit import compute_edit
from rose_easyedit.method.stage1 import integration, targets
from rose_easyedit.method.stage1.integration import Group, Shifts
from rose_easyedit.method.stage1.setting import Level, Setting
from rose_easyedit.method.stage1.smoothing import Noise
from rose_easyedit.method.stage2 import layers
from rose_easyedit.models.architectures import read_architecture
from rose_easyedit.text.locate_subject import TokenQuery

POINTS, OF_FACTS, OF_GROUPS = Float[Tensor, "n d"], Float32[Tensor, "facts"], Float32[Tensor, "n"]
ROWS, NOISE = Float[Tensor, "B d"], Float32[Tensor, "B d"] | Float32[Tensor, "1"]
STATED, NUMBER = Float[Tensor, "stated"], Float[Tensor, ""]
LOSS_AND_DRIFT = tuple[STATED, NUMBER]  # type: ignore[valid-type]
SHAPES: dict[str, dict[str, Any]] = {
    "optimise": dict(start=POINTS, returns=having(deltas=POINTS)),
    "_subject_norms": dict(returns=OF_GROUPS),
    "_loss": dict(shift=ROWS, returns=LOSS_AND_DRIFT),
    "_backward": dict(shift=ROWS, returns=LOSS_AND_DRIFT),
    "_failed": dict(losses=OF_FACTS, fact_group=Int64[Tensor, "facts"], returns=Bool[Tensor, "n"]),
    "_step": dict(point=POINTS, share=OF_GROUPS),
}
WIDTH = 32
LAYER = 1


@pytest.fixture(autouse=True, scope="module")
def shapes() -> Iterator[None]:
    """Every step of these tests keeps to the shapes that are promised."""
    with shapes_held(integration, **SHAPES), shapes_held(Noise, draw=dict(returns=NOISE)):
        yield


def decisive_model() -> Any:
    """A tiny Llama with a head large enough for a target to become certain."""
    model = build_model("llama-untied")
    with torch.no_grad():
        model.lm_head.weight *= 4
    return model


def group(name: str, seed: int, n_facts: int = 1, n_queries: int = 2) -> Group:
    """Random tokens; the subject ends each text, and one target follows all of them."""
    generator = torch.Generator().manual_seed(seed)

    def tokens(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(10, 500, (n,), generator=generator).tolist())

    def text() -> tuple[int, ...]:
        return tokens(int(torch.randint(2, 6, (), generator=generator)))

    subject, target = tokens(1), tokens(1)
    facts = []
    for _ in range(n_facts):
        texts = [text() for _ in range(n_queries)]
        facts.append(tuple(TokenQuery(ids + subject + target, len(ids), 1) for ids in texts))
    essence = text()
    return Group(name, tuple(facts), (TokenQuery(essence + subject + tokens(1), len(essence), 0),))


CPU = torch.device("cpu")
GROUPS = [group("a", 0), group("b", 1, n_facts=2), group("c", 2, n_queries=3), group("d", 3)]


def run(
    groups: Sequence[Group] = GROUPS,
    level: Level | None = None,
    *,
    model: Any = None,
    start: Tensor | None = None,
    micro_batch: int = 64,
    seed: int = 0,
    unit: Tensor | None = None,
    on_step: Callable[[int], None] = lambda _groups: None,
    **hparams: Any,
) -> Shifts:
    model = model if model is not None else decisive_model()
    if unit is None:  # so that a rate is one of |h|
        unit = torch.full((WIDTH,), float(_hidden_norms(decisive_model()).mean()) / WIDTH**0.5)
    setting = Setting(
        editable=read_architecture(model),
        layer=LAYER,
        unit=unit,
        hparams=HierarchyHyperParams(**{"weight_decay": 0.01, "context_batches": 1, **hparams}),
        micro_batch=micro_batch,
        seed=seed,
        autocast=nullcontext,
        on_step=on_step,
    )
    start = torch.zeros(len(groups), WIDTH) if start is None else start
    with frozen(model):
        return integration.optimise(setting, groups, start, level or Level(10, 0.5))


def test_the_loss_falls_below_the_threshold() -> None:
    before = run(level=Level(1, 0.5))
    after = run(level=Level(60, 0.5), loss_threshold=0.1)
    assert [len(losses) for losses in after.losses] == [1, 2, 1, 1]
    assert min(min(losses) for losses in before.losses) > 2.0
    assert max(max(losses) for losses in after.losses) < 0.1
    assert all(0 < steps < 60 for steps in after.steps)


def test_the_loss_is_the_mean_over_queries_of_the_targets_log_likelihood() -> None:
    model = decisive_model()
    losses = run(level=Level(1, 0.5), model=model).losses
    for group_, found in zip(GROUPS, losses, strict=True):
        for queries, loss in zip(group_.facts, found, strict=True):
            wanted = []
            for query in queries:
                with torch.no_grad():
                    log_p = model(torch.tensor([query.ids])).logits[0, -2].log_softmax(-1)
                wanted.append(-float(log_p[query.ids[-1]]))
            assert loss == pytest.approx(sum(wanted) / len(wanted), abs=1e-3)


def test_the_loss_of_a_target_is_a_mean_over_its_tokens() -> None:
    long = TokenQuery((20, 21, 22, 23, 24, 25), 1, 4)
    model = decisive_model()
    ((loss,),) = run([Group("long", ((long,),), GROUPS[0].kept)], Level(1, 0.5), model=model).losses
    with torch.no_grad():
        log_p = model(torch.tensor([long.ids])).logits[0].log_softmax(-1)
    wanted = -sum(float(log_p[i - 1, long.ids[i]]) for i in (2, 3, 4, 5)) / 4
    assert loss == pytest.approx(wanted, abs=1e-3)


def test_a_group_that_has_converged_stops_moving() -> None:
    """Each group, alone or beside slower ones, ends where it crossed the threshold."""
    together = run(level=Level(60, 0.5), loss_threshold=0.5)
    longer = run(level=Level(90, 0.5), loss_threshold=0.5)
    assert len(set(together.steps)) > 1
    assert longer.steps == together.steps
    assert torch.equal(longer.deltas, together.deltas)
    still = run(start=together.deltas, level=Level(60, 0.5), loss_threshold=0.5)
    assert still.steps == [0, 0, 0, 0]
    assert torch.equal(still.deltas, together.deltas)


def test_a_share_is_one_of_the_rate_and_of_the_threshold() -> None:
    def shared(share: float) -> list[Group]:
        return [GROUPS[0], replace(GROUPS[3], share=share)]

    whole, half = (run(shared(share), Level(1, 0.5), loss_threshold=0.0) for share in (1.0, 0.5))
    assert torch.equal(half.deltas[0], whole.deltas[0])
    torch.testing.assert_close(half.deltas[1], whole.deltas[1] / 2)
    alone = run([GROUPS[3]], Level(90, 0.25), loss_threshold=0.1)
    found = run(shared(0.5), Level(90, 0.5), loss_threshold=0.2)
    assert 0.1 < found.losses[0][0] < 0.2
    assert found.losses[1][0] < 0.1 and found.steps[1] == alone.steps[0]
    torch.testing.assert_close(found.deltas[1], alone.deltas[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("radius", [0.0, 0.3])
@pytest.mark.parametrize("micro_batch", [1, 3, 7])
def test_the_micro_batch_does_not_matter(micro_batch: int, radius: float) -> None:
    level = Level(8, 0.1, radius)
    whole, split = run(level=level), run(level=level, micro_batch=micro_batch)
    torch.testing.assert_close(split.deltas, whole.deltas, atol=5e-3, rtol=5e-3)
    assert split.steps == whole.steps


@pytest.mark.parametrize("turns", [1, 3])  # one group has three queries, the others two
@pytest.mark.parametrize("radius", [0.0, 0.3])
def test_other_groups_do_not_matter(radius: float, turns: int) -> None:
    level = Level(8, 0.1, radius)
    whole = run(level=level, context_batches=turns)
    for chosen in ([1], [3, 0]):
        alone = run([GROUPS[i] for i in chosen], level, context_batches=turns)
        torch.testing.assert_close(alone.deltas, whole.deltas[chosen], atol=5e-3, rtol=5e-3)


def test_the_micro_batch_bounds_what_runs_at_once() -> None:
    model = decisive_model()
    seen: list[int] = []
    model.model.layers[3].register_forward_hook(lambda _m, args, _o: seen.append(args[0].shape[0]))
    run(model=model, micro_batch=4, level=Level(2, 0.1))
    assert max(seen) == 4
    seen.clear()
    run(model=model, micro_batch=2, level=Level(2, 0.1))
    assert max(seen) == 2


def test_rows_of_converged_groups_are_not_run() -> None:
    model = decisive_model()
    seen: list[int] = []
    model.model.layers[3].register_forward_hook(lambda _m, args, _o: seen.append(args[0].shape[0]))
    run(model=model, level=Level(60, 0.5), loss_threshold=0.5)
    steps = seen[3:]  # behind the subjects' prefixes, the capture, and the essences without a shift
    assert steps[-1] < steps[0]
    assert steps == sorted(steps, reverse=True)


def test_progress_adds_up_however_early_it_ends() -> None:
    for threshold in (0.0, 0.5, 1e9):
        told: list[int] = []
        run(level=Level(30, 0.5), loss_threshold=threshold, on_step=told.append, micro_batch=6)
        assert sum(told) == 30 * len(GROUPS)


def test_smoothing_is_seeded() -> None:
    plain = run(level=Level(6, 0.1))
    smoothed = run(level=Level(6, 0.1, 0.3))
    assert float((plain.deltas - smoothed.deltas).abs().max()) > 1e-2
    assert torch.equal(run(level=Level(6, 0.1, 0.3)).deltas, smoothed.deltas)
    other = run(level=Level(6, 0.1, 0.3), seed=1)
    assert float((other.deltas - smoothed.deltas).abs().max()) > 1e-2


def test_random_displacements_are_within_the_radius_and_fill_it() -> None:
    noise = Noise(0, WIDTH, 0.5)
    names = [str(i) for i in range(400)]
    lengths = noise.draw(names, CPU).square().mean(1).sqrt()
    assert float(lengths.max()) <= 0.5 + 1e-5
    assert float(lengths.mean()) == pytest.approx(0.25, abs=0.03)


def test_random_displacements_go_on_and_are_a_rows_own() -> None:
    noise, other = Noise(0, WIDTH, 0.5), Noise(0, WIDTH, 0.5)
    first, second = (noise.draw(["a", "b"], CPU) for _ in range(2))
    assert not torch.equal(first[0], first[1]) and not torch.equal(first, second)
    assert torch.equal(other.draw(["b"], CPU)[0], first[1])
    assert torch.equal(other.draw(["c", "b"], CPU)[1], second[1])
    assert not torch.equal(Noise(1, WIDTH, 0.5).draw(["a", "b"], CPU), first)


def test_a_smoothed_shift_stands_displacement_better() -> None:
    model = decisive_model()
    mean_loss = {}
    for radius in (0.0, 0.6):
        found = run(model=model, level=Level(40, 0.3, radius), loss_threshold=0.0, kl_factor=0.0)
        displaced = [
            run(model=model, start=found.deltas, level=Level(1, 0.1, 0.6), seed=seed).losses
            for seed in range(10)
        ]
        values = [value for losses in displaced for facts in losses for value in facts]
        mean_loss[radius] = sum(values) / len(values)
    assert mean_loss[0.6] < 0.9 * mean_loss[0.0]


def test_contexts_in_turns_reach_the_threshold_too() -> None:
    groups = [group("a", 0, n_queries=4), group("b", 1, n_facts=2, n_queries=3)]
    found = run(groups, Level(200, 0.2), loss_threshold=0.2, context_batches=2)
    assert all(0 < steps < 200 for steps in found.steps)
    whole = run(groups, Level(1, 0.1), start=found.deltas, loss_threshold=0.2)
    # one of the turns was last told of a step before the end
    assert max(max(losses) for losses in whole.losses) < 0.5
    assert [len(losses) for losses in found.losses] == [1, 2]


def test_a_turn_runs_only_its_contexts() -> None:
    model = decisive_model()
    seen: list[int] = []
    subject = [group("a", 0, n_queries=4)]
    model.model.layers[3].register_forward_hook(lambda _m, args, _o: seen.append(args[0].shape[0]))
    run(subject, Level(4, 0.1), model=model, context_batches=2, loss_threshold=0.0)
    # two queries a turn, and the essence in the first
    assert seen[-4:] == [3, 2, 3, 2]


def test_turns_report_the_mean_over_all_queries() -> None:
    """Without a step between them, the turns add up to what one turn says."""
    groups = [group("a", 0, n_queries=4), group("b", 1, n_facts=2, n_queries=3)]
    level = Level(2, 1e-9)
    in_turns, at_once = (run(groups, level, context_batches=n).losses for n in (2, 1))
    for found, wanted in zip(in_turns, at_once, strict=True):
        assert found == pytest.approx(wanted, abs=1e-4)


def test_there_are_no_more_turns_than_steps() -> None:
    found = run(level=Level(1, 0.5), context_batches=5)
    assert all(torch.isfinite(torch.tensor(losses)).all() for losses in found.losses)


@pytest.mark.parametrize("micro_batch", [1, 3])
def test_the_micro_batch_does_not_matter_to_turns(micro_batch: int) -> None:
    level = Level(8, 0.1, 0.3)
    whole = run(level=level, context_batches=2)
    split = run(level=level, context_batches=2, micro_batch=micro_batch)
    torch.testing.assert_close(split.deltas, whole.deltas, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("clamp", [0.2, 0.5])
def test_the_clamp_holds(clamp: float) -> None:
    unit = torch.rand(WIDTH, generator=torch.Generator().manual_seed(0)) + 0.5
    found = run(unit=unit, level=Level(15, 0.5), clamp_norm=clamp, loss_threshold=0.0)
    lengths = (found.deltas / unit).square().mean(1).sqrt()
    assert float(lengths.max()) <= clamp * 1.001
    assert float(lengths.min()) > clamp * 0.9  # it is what limits here


def test_the_essence_drifts_less_when_it_costs() -> None:
    model = decisive_model()
    one = TokenQuery((20, 21, 22, 23), 2, 1)
    subject = [Group("a", ((one,),), (TokenQuery((20, 21, 22), 2, 0),))]

    def drift(kl_factor: float) -> float:
        deltas = run(
            subject, Level(20, 0.2), model=model, kl_factor=kl_factor, loss_threshold=0.0
        ).deltas
        with frozen(model), torch.no_grad():
            replay = integration.capture(read_architecture(model), [subject[0].kept[0]], LAYER)
            before = replay.log_probabilities(torch.zeros(1, WIDTH))
            after = replay.log_probabilities(deltas)
        return float((before.exp() * (before - after)).sum())

    assert drift(10.0) < drift(0.0) / 3


def test_weight_decay_shortens_the_shift() -> None:
    free = run(level=Level(30, 0.2), loss_threshold=0.0, weight_decay=0.0)
    held = run(level=Level(30, 0.2), loss_threshold=0.0, weight_decay=2000.0)
    assert float(held.deltas.norm()) < float(free.deltas.norm()) / 2


@pytest.mark.parametrize(
    ("how", "shares"),
    [
        ("hierarchical", [[1.0, 1.0, 0.25], [1.0, 0.25]]),
        ("joint", [[1.0, 0.25]]),
        ("independent", [[1.0, 1.0, 1.0]]),
    ],
)
def test_a_subjects_only_fact_takes_smaller_steps(
    how: str, shares: list[list[float]], monkeypatch: pytest.MonkeyPatch, tiny_tokenizer: Any
) -> None:
    calls = spy_on_optimise(monkeypatch)
    hierarchy = {"integration": how, "lone_fact_share": 0.25}
    compute_edit(build_model("llama-tied"), tiny_tokenizer, FACTS, settings(hierarchy=hierarchy))
    assert [[group_.share for group_ in groups] for groups, _, _ in calls] == shares


def spy_on_optimise(
    monkeypatch: pytest.MonkeyPatch,
) -> list[tuple[Sequence[Group], Tensor, Shifts]]:
    calls: list[tuple[Sequence[Group], Tensor, Shifts]] = []

    def spy(setting: Setting, groups: Sequence[Group], start: Tensor, level: Level) -> Shifts:
        found = integration.optimise(setting, groups, start, level)
        calls.append((groups, start.clone(), found))
        return found

    monkeypatch.setattr(targets, "optimise", spy)
    return calls


def test_subjects_start_from_the_mean_of_their_facts(
    monkeypatch: pytest.MonkeyPatch, tiny_tokenizer: Any
) -> None:
    calls = spy_on_optimise(monkeypatch)
    compute_edit(build_model("llama-tied"), tiny_tokenizer, FACTS, settings())
    (_, zeros, facts), (subjects, means, _) = calls
    assert zeros.shape == (3, WIDTH) and float(zeros.abs().max()) == 0
    assert [group_.name for group_ in subjects] == ["Marie Curie", "Ada Lovelace"]
    wanted = torch.stack([facts.deltas[:2].mean(0), facts.deltas[2]])
    assert torch.equal(means, wanted)


@pytest.mark.parametrize(("how", "n_groups"), [("joint", 2), ("independent", 3)])
def test_the_other_integrations_are_one_level_from_zero(
    how: str, n_groups: int, monkeypatch: pytest.MonkeyPatch, tiny_tokenizer: Any
) -> None:
    calls = spy_on_optimise(monkeypatch)
    delta = compute_edit(
        build_model("llama-tied"), tiny_tokenizer, FACTS, settings(hierarchy={"integration": how})
    )
    ((groups, start, found),) = calls
    assert len(groups) == n_groups
    assert start.shape == (n_groups, WIDTH) and float(start.abs().max()) == 0
    # a loss per request, in the order of the requests
    losses = [loss for per_group in found.losses for loss in per_group]
    assert delta.provenance.losses == losses
    assert delta.provenance.groups == ([[0, 1], [2]] if how == "joint" else [[0], [1], [2]])
    assert delta.targets is not None and delta.targets.shape == (n_groups, WIDTH)


@pytest.mark.parametrize("key_columns", ["merged", "per_query"])
@pytest.mark.parametrize("how", ["hierarchical", "joint", "independent"])
def test_the_same_inputs_give_the_same_bytes(
    how: str, key_columns: str, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    files = []
    for run_ in range(2):
        torch.manual_seed(run_)  # the caller's random state has no say
        delta = compute_edit(
            build_model("llama-tied"),
            tiny_tokenizer,
            FACTS,
            settings(
                key_columns=key_columns,
                query_formats=2,
                hierarchy={
                    "integration": how,
                    "smoothing_radius": 0.3,
                    "fact_steps": 4,
                    "subject_steps": 4,
                },
            ),
        )
        files.append(delta.save(tmp_path / f"{run_}.safetensors").read_bytes())
    assert files[0] == files[1]


def test_a_loss_that_is_not_finite_names_the_fact(tiny_tokenizer: Any) -> None:
    model = build_model("llama-untied")
    (german,) = tiny_tokenizer(" German")["input_ids"]
    with torch.no_grad():
        model.lm_head.weight[german] = float("inf")
    weights = weights_of(model)
    with pytest.raises(RoSEError, match="(?s)loss is not finite.*Marie Curie") as caught:
        compute_edit(model, tiny_tokenizer, FACTS, settings())
    assert "precision: weights" in str(caught.value)
    assert "Ada Lovelace" in str(caught.value)
    assert same_weights(model, weights)
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("step", [1, 20, 50])
def test_an_interrupt_leaves_the_model_as_it_was(
    step: int, monkeypatch: pytest.MonkeyPatch, tiny_tokenizer: Any
) -> None:
    model = build_model("llama-untied").train()
    weights, left = weights_of(model), step

    def interrupted(*args: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyboardInterrupt
        return optimiser_step(*args)

    optimiser_step = integration._step
    monkeypatch.setattr(integration, "_step", interrupted)
    hparams = settings(hierarchy={"loss_threshold": 0.0, "fact_steps": 30, "subject_steps": 30})
    with pytest.raises(KeyboardInterrupt):
        compute_edit(model, tiny_tokenizer, FACTS, hparams)
    assert same_weights(model, weights)
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize(
    ("stage", "function"),
    [
        (targets, "read_subject_states"),
        (targets, "integrate"),
        (layers, "align"),
        (edit, "solve_layers"),
    ],
)
def test_an_interrupt_in_another_stage(
    stage: Any, function: str, monkeypatch: pytest.MonkeyPatch, tiny_tokenizer: Any
) -> None:
    model = build_model("llama-untied")
    weights = weights_of(model)
    original = getattr(stage, function)

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        original(*args, **kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(stage, function, interrupted)
    with pytest.raises(KeyboardInterrupt):
        compute_edit(model, tiny_tokenizer, FACTS, settings())
    assert same_weights(model, weights)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_learning_rate_is_in_units_of_each_coordinate() -> None:
    """Adam's first step has the size of its rate in every coordinate, in that unit."""
    unit = torch.rand(WIDTH, generator=torch.Generator().manual_seed(0)) + 0.5
    found = run(level=Level(1, 0.25), unit=unit, weight_decay=0.0)
    steps = (found.deltas / unit).abs()
    torch.testing.assert_close(steps, torch.full_like(steps, 0.25), rtol=1e-2, atol=0)


def _hidden_norms(model: Any) -> Tensor:
    """Mean |h| at the subject over the texts of each of `GROUPS`, [n]."""
    means = []
    for group_ in GROUPS:
        norms = []
        for query in (query for queries in group_.facts for query in queries):
            with torch.no_grad():
                states = model(torch.tensor([query.ids]), output_hidden_states=True).hidden_states
            norms.append(states[LAYER + 1][0, query.subject].norm())
        means.append(torch.stack(norms).mean())
    return torch.stack(means)
