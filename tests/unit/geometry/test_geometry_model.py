"""A diagnosis reads tiny models as whole forward passes do, and leaves them as they were."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from jaxtyping import Bool, Float, Float32, Int64
from shapes import shaped, shapes_held
from tiny_models import FACTS, build_model, same_weights, settings, weights_of
from torch import Tensor

from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.errors import RoSEError
from rose_easyedit.evaluation.facts import Fact
from rose_easyedit.forward.activations import frozen
from rose_easyedit.forward.replay import capture
from rose_easyedit.geometry import conflict, landscape, radius
from rose_easyedit.geometry.conflict import conflict_scores
from rose_easyedit.geometry.diagnosis import Diagnosis, diagnose
from rose_easyedit.geometry.edits import targets_of
from rose_easyedit.geometry.places import locate, read_probe
from rose_easyedit.geometry.rivals import rivals
from rose_easyedit.geometry.settings import DiagnosisSettings
from rose_easyedit.geometry.suffix import Suffixes, decoded_at, losses_at, unit_directions
from rose_easyedit.method.edit import compute_edit
from rose_easyedit.method.prepared import Prepared
from rose_easyedit.models.architectures import first_tensor, read_architecture
from rose_easyedit.models.precision import precision_context
from rose_easyedit.text.locate_subject import TokenQuery

FACT_ROWS, DIRECTIONS = Float[Tensor, "F d"], Float32[Tensor, "U d"]
AT_POINTS: dict[str, Any] = dict(statements=Int64[Tensor, "N"], hidden=Float[Tensor, "N d"])
fact_gradients = shaped(conflict.fact_gradients, returns=Float32[Tensor, "F d"])
radii_of_facts = shaped(
    radius.radii_of_facts,
    targets=FACT_ROWS,
    directions=DIRECTIONS,
    returns=Float[Tensor, "F U"],
)
losses_around = shaped(
    landscape.losses_around,
    facts=Int64[Tensor, "F"],
    targets=FACT_ROWS,
    directions=DIRECTIONS,
    radii=Float[Tensor, "P"],
    returns=Float[Tensor, "U P"],
)
LAYER = 1
MODELS = ("llama-tied", "gemma2", "gpt2")
SETTINGS = DiagnosisSettings(
    directions=4,
    max_radius=8.0,
    halvings=6,
    landscape_directions=2,
    landscape_points=2,
    max_new_tokens=3,
)
QUESTIONS = {
    "Marie Curie": ("Who is Marie Curie?",),
    "Ada Lovelace": ("Who is Ada Lovelace, please?",),
}
GEOMETRY_FACTS = [
    Fact(
        subject=record["subject"],
        relation=record["prompt"],
        prompt=record["prompt"],
        target_new=record["target_new"],
        ground_truth="",
        paraphrases=(f"Albert Einstein was born; {record['subject']} was born in",),
        questions=QUESTIONS[record["subject"]],
    )
    for record in FACTS
]


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Statistics are computed here, not read from an earlier run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROSE_EASYEDIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True, scope="module")
def shapes() -> Iterator[None]:
    """Every point that these tests try keeps to the shapes that are promised."""
    decoded = dict(**AT_POINTS, returns=Bool[Tensor, "N"])
    losses = dict(**AT_POINTS, returns=Float[Tensor, "N"])
    with shapes_held(Suffixes, decoded=decoded, losses=losses):
        yield


def hparams(**overrides: Any) -> Any:
    return settings(**{"alignment": {"statistics_tokens": 64}, **overrides})


def edit(model: Any, tokenizer: Any, **overrides: Any) -> EditDelta:
    return compute_edit(model, tokenizer, FACTS, hparams(**overrides))


@pytest.fixture(scope="module")
def delta(tiny_tokenizer: Any) -> EditDelta:
    return edit(build_model("llama-tied"), tiny_tokenizer)


@pytest.fixture(scope="module")
def diagnosis(tiny_tokenizer: Any, delta: EditDelta) -> Diagnosis:
    model = build_model("llama-tied")
    return diagnose(model, tiny_tokenizer, GEOMETRY_FACTS, {"ours": delta}, SETTINGS)


@contextmanager
def hidden_set_to(model: Any, query: TokenQuery, value: Tensor) -> Iterator[None]:
    """The model with the hidden state at the subject set to a value, by a hook."""

    def put(_module: Any, _args: Any, output: Any) -> Any:
        hidden = first_tensor(output)
        place = torch.zeros(hidden.shape[1], 1).index_fill(0, torch.tensor(query.subject), 1.0)
        hidden = hidden * (1 - place) + place * value
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    handle = read_architecture(model).layers[LAYER].register_forward_hook(put)
    try:
        yield
    finally:
        handle.remove()


def target_logprobs(model: Any, query: TokenQuery, value: Tensor) -> tuple[Tensor, bool]:
    """Log-probability of each target token, and whether all are the likeliest, by a whole pass."""
    with hidden_set_to(model, query, value):
        log_p = model(torch.tensor([query.ids])).logits[0].float().log_softmax(-1)
    start = len(query.ids) - query.n_target
    targets = torch.tensor(query.ids[start:])
    predicted = log_p[start - 1 : -1]
    found = predicted.gather(1, targets[:, None])[:, 0]
    return found, bool((predicted.argmax(-1) == targets).all())


def statements(tokenizer: Any) -> list[list[TokenQuery]]:
    probe = read_probe_of(build_model("llama-tied"), tokenizer)
    return probe.contexts


def read_probe_of(model: Any, tokenizer: Any, sink_ratio: float = 50.0) -> Any:
    how = hparams()
    prepared = Prepared.of(model, tokenizer, how)
    how.sink_ratio = sink_ratio  # as the settings would not take a ratio below 1
    with frozen(model):
        return read_probe(prepared, GEOMETRY_FACTS)


@pytest.mark.parametrize("name", MODELS)
def test_losses_and_decoding_are_those_of_the_whole_model(name: str, tiny_tokenizer: Any) -> None:
    model = build_model(name)
    queries = [q for contexts in statements(tiny_tokenizer) for q in contexts]
    values = 5 * torch.randn(len(queries), 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), frozen(model):
        replay = capture(read_architecture(model), queries, LAYER)
        losses, decoded = losses_at(replay, values), decoded_at(replay, values)
        whole = [target_logprobs(model, q, v) for q, v in zip(queries, values, strict=True)]
    expected = torch.stack([-log_p.mean() for log_p, _ in whole])
    torch.testing.assert_close(losses, expected, atol=2e-4, rtol=1e-4)
    assert decoded.tolist() == [hit for _, hit in whole]


@pytest.mark.parametrize("name", MODELS)
def test_radii_are_where_the_whole_model_stops_decoding(name: str, tiny_tokenizer: Any) -> None:
    model = build_model(name)
    made = edit(model, tiny_tokenizer)
    queries = [contexts[0] for contexts in statements(tiny_tokenizer)]
    targets = targets_of(made, GEOMETRY_FACTS)
    targets[1] = -targets[1]  # somewhere that decodes nothing of the kind
    directions = unit_directions(6, 32, seed=0)
    with frozen(model):
        suffixes = Suffixes.of(read_architecture(model), queries, layer=LAYER, batch=7)
        radii = radii_of_facts(suffixes, targets, directions, max_radius=8.0, halvings=6)
    norms = suffixes.norms
    step = 8.0 * norms / 2**6
    bounded = 0
    with torch.no_grad():
        for i, query in enumerate(queries):
            _, at_target = target_logprobs(model, query, targets[i])
            for radius, u in zip(radii[i], directions, strict=True):
                _, inside = target_logprobs(model, query, targets[i] + radius * u)
                _, outside = target_logprobs(model, query, targets[i] + (radius + step[i]) * u)
                assert inside == at_target
                if at_target and radius < 8.0 * norms[i]:
                    assert not outside
                    bounded += 1
                if not at_target:
                    assert radius == 0
    assert bounded > 0
    assert bool((radii[1] == 0).all())


@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_those_of_the_whole_model(name: str, tiny_tokenizer: Any) -> None:
    model, contexts = build_model(name), statements(tiny_tokenizer)
    with frozen(model):
        editable = read_architecture(model)
        found = fact_gradients(editable, contexts, layer=LAYER, batch=4)
        expected = []
        for queries in contexts:
            total = torch.zeros(32)
            for query in queries:
                hidden = capture(editable, [query], LAYER).subject_hidden[0].clone()
                hidden.requires_grad_(True)
                log_p, _ = target_logprobs(model, query, hidden)
                total += torch.autograd.grad(-log_p.mean(), hidden)[0] / len(queries)
            expected.append(total)
    assert found.norm(dim=1).min() > 1e-3
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-3, rtol=1e-3)


def test_points_are_tried_where_their_statement_is_known() -> None:
    model = build_model("llama-tied")
    queries = [  # as many tokens from the subject on: 4, 3, 3, 3
        TokenQuery((17, 30, 31, 32), 0, 2),
        TokenQuery((40, 41, 42, 43, 44, 45), 3, 1),
        TokenQuery((50, 51, 52, 53), 1, 2),
        TokenQuery((60, 61, 62, 63, 64), 2, 1),
    ]
    points = torch.tensor([3, 0, 3, 2, 1, 0, 3])
    values = 5 * torch.randn(len(points), 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), frozen(model):
        suffixes = Suffixes.of(read_architecture(model), queries, layer=LAYER, batch=2)
        losses, decoded = suffixes.losses(points, values), suffixes.decoded(points, values)
        whole = [target_logprobs(model, queries[i], v) for i, v in zip(points, values, strict=True)]
    # nothing is padded behind the subject, and no statement is run twice
    assert [tuple(replay.hidden.shape[:2]) for replay in suffixes.replays] == [
        (1, 3),
        (2, 2),
        (1, 2),
    ]
    expected = torch.stack([-log_p.mean() for log_p, _ in whole])
    torch.testing.assert_close(losses, expected, atol=2e-4, rtol=1e-4)
    assert decoded.tolist() == [hit for _, hit in whole]


def test_bfloat16_is_exact_enough(tiny_tokenizer: Any) -> None:
    model, contexts = build_model("llama-tied"), statements(tiny_tokenizer)
    targets = targets_of(edit(model, tiny_tokenizer), GEOMETRY_FACTS)
    directions, editable = unit_directions(32, 32, seed=0), read_architecture(model)
    radii, losses, scores = [], [], []
    with frozen(model):
        for precision in (nullcontext, precision_context("bfloat16", model)):
            how: Any = {"layer": LAYER, "batch": 64, "precision": precision}
            suffixes = Suffixes.of(editable, [queries[0] for queries in contexts], **how)
            found = radii_of_facts(suffixes, targets, directions, max_radius=8.0, halvings=8)
            radii.append(found.quantile(0.5, dim=1))
            losses.append(suffixes.losses(torch.arange(3), targets))
            scores.append(conflict_scores(fact_gradients(editable, contexts, **how)))
    assert not losses[0].equal(losses[1])  # it is bfloat16
    assert radii[0].min() > 0
    torch.testing.assert_close(radii[1], radii[0], atol=0, rtol=0.05)
    torch.testing.assert_close(losses[1], losses[0], atol=0.05, rtol=0.05)
    torch.testing.assert_close(scores[1], scores[0], atol=0.01, rtol=0)


def test_facts_without_contexts_have_no_gradient(tiny_tokenizer: Any) -> None:
    model, contexts = build_model("llama-tied"), statements(tiny_tokenizer)
    with frozen(model):
        editable = read_architecture(model)
        one = fact_gradients(editable, [[], contexts[0]], layer=LAYER, batch=4)
        assert not fact_gradients(editable, [[], []], layer=LAYER, batch=4).any()
    assert not one[0].any() and one[1].any()


def test_a_gradient_does_not_depend_on_the_batch(tiny_tokenizer: Any) -> None:
    model, contexts = build_model("llama-tied"), statements(tiny_tokenizer)
    with frozen(model):
        editable = read_architecture(model)
        one, all_at_once = (
            fact_gradients(editable, contexts, layer=LAYER, batch=batch) for batch in (1, 64)
        )
    torch.testing.assert_close(one, all_at_once, atol=1e-4, rtol=1e-4)


def test_the_landscape_is_the_mean_loss_of_the_facts(tiny_tokenizer: Any) -> None:
    model = build_model("llama-tied")
    queries = [contexts[0] for contexts in statements(tiny_tokenizer)][:2]
    targets = torch.ones(2, 32)
    directions, radii = unit_directions(3, 32, seed=0), torch.tensor([-1.0, 0.0, 4.0])
    with torch.no_grad(), frozen(model):
        suffixes = Suffixes.of(read_architecture(model), queries, layer=LAYER, batch=4)
        found = losses_around(suffixes, torch.arange(2), targets, directions, radii)
        for row, u in enumerate(directions):
            for column, radius in enumerate(radii):
                whole = [
                    -target_logprobs(model, q, z + radius * u)[0].mean()
                    for q, z in zip(queries, targets, strict=True)
                ]
                assert float(found[row, column]) == pytest.approx(float(sum(whole) / 2), abs=1e-4)
    assert found.shape == (3, 3)
    assert bool((found[:, 1] == found[0, 1]).all())


def test_deviations_are_those_of_the_edited_model(
    tiny_tokenizer: Any, delta: EditDelta, diagnosis: Diagnosis
) -> None:
    model, checked = build_model("llama-tied"), 0
    for query in diagnosis.edits[0].queries:
        if query.form == "question":
            continue
        ids = tiny_tokenizer(query.text)
        subject = GEOMETRY_FACTS[query.fact].subject
        end = query.text.rindex(subject) + len(subject)
        place = next(
            i
            for i in range(len(ids["input_ids"]))
            if ids.token_to_chars(i).start < end <= ids.token_to_chars(i).end
        )
        target = targets_of(delta, GEOMETRY_FACTS)[query.fact]
        states = []
        for context in (delta.applied(model), frozen(model)):
            with torch.no_grad(), context:
                tokens = torch.tensor([ids["input_ids"]])
                hidden = model(tokens, output_hidden_states=True).hidden_states
            states.append(hidden[LAYER + 1][0, place])
        after, before = states
        assert query.deviation == pytest.approx(float((after - target).norm()), rel=1e-3)
        assert query.deviation_before == pytest.approx(float((before - target).norm()), rel=1e-3)
        assert query.target_norm == pytest.approx(float(target.norm()), rel=1e-3)
        assert query.hidden_norm == pytest.approx(float(before.norm()), rel=1e-3)
        checked += 1
    assert checked == 6
    # the edit brings statements nearer to their targets
    stated = [q for q in diagnosis.edits[0].queries if q.form == "statement"]
    assert all(q.deviation < 0.5 * q.deviation_before for q in stated)


def test_the_deviation_is_0_where_the_hidden_state_is_the_target(
    tiny_tokenizer: Any, delta: EditDelta
) -> None:
    model = build_model("llama-tied")
    place = locate(tiny_tokenizer, GEOMETRY_FACTS)[0][0]
    with torch.no_grad(), delta.applied(model):
        ids = torch.tensor([place.query.ids])
        hidden = model(ids, output_hidden_states=True).hidden_states[LAYER + 1]
    reached = EditDelta(
        delta.layers,
        delta.base,
        replace(delta.provenance, groups=[[0], [1], [2]]),
        hidden[0, place.query.subject].expand(3, -1),
    )
    found = diagnose(model, tiny_tokenizer, GEOMETRY_FACTS, {"it": reached}, SETTINGS)
    first = found.edits[0].queries[0]
    assert (first.form, first.fact) == ("statement", 0)
    assert first.deviation == pytest.approx(0.0, abs=1e-4)
    assert first.deviation_before > 1.0


def test_the_model_is_as_it_was(tiny_tokenizer: Any, delta: EditDelta) -> None:
    model = build_model("llama-tied")
    model.train()
    before, state = weights_of(model), torch.get_rng_state()
    diagnose(model, tiny_tokenizer, GEOMETRY_FACTS, {"ours": delta}, SETTINGS)
    assert same_weights(model, before)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not delta.is_applied(model)
    assert torch.get_rng_state().equal(state)
    assert not any(module._forward_hooks for module in model.modules())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_diagnosis_is_the_same_for_a_seed(
    tiny_tokenizer: Any, delta: EditDelta, diagnosis: Diagnosis
) -> None:
    def again(seed: int) -> Diagnosis:
        how = replace(SETTINGS, seed=seed)
        model = build_model("llama-tied")
        return diagnose(model, tiny_tokenizer, GEOMETRY_FACTS, {"ours": delta}, how)

    assert again(0).as_dict() == diagnosis.as_dict()
    other = again(1)
    assert other.edits[0].radii != diagnosis.edits[0].radii
    assert [q.deviation for q in other.edits[0].queries] == [
        q.deviation for q in diagnosis.edits[0].queries
    ]


def test_the_summary_is_made_of_the_records(diagnosis: Diagnosis) -> None:
    (own,) = diagnosis.edits
    summary = diagnosis.summary()
    assert (summary["facts"], summary["subjects"]) == (3, 2)
    totals = summary["edits"]["ours"]
    assert list(totals["forms"]) == ["statement", "paraphrase", "question"]
    stated = [q for q in own.queries if q.form == "statement"]
    row = totals["forms"]["statement"]
    assert row["deviation"] == pytest.approx(sum(q.deviation for q in stated) / 3)
    assert row["deviation_of_target"] == pytest.approx(
        sum(q.deviation / q.target_norm for q in stated) / 3
    )
    assert row["certified"] == sum(q.deviation <= q.radius for q in stated)
    assert row["answered"] == sum(q.answered for q in stated)
    assert totals["all"]["queries"] == len(own.queries) == 9
    curie = totals["radius"]["subjects"]["Marie Curie"]
    two = [own.radii[i].radius for i in (0, 1)]
    assert curie == {"mean": pytest.approx(sum(two) / 2), "smallest": min(two)}
    assert summary["conflict"] == {"pairs": 1, "mean": diagnosis.conflicts[0].score}
    assert diagnosis.landscape_subject == "Marie Curie"
    assert diagnosis.landscape_radii == (-2.0, -1.0, 0.0, 1.0, 2.0)
    assert [len(row) for row in own.losses] == [5, 5]
    assert list(diagnosis.spectra) == [0, 1]
    assert diagnosis.edits[0].certificate().queries == 9
    assert diagnosis.edits[0].certificate("question").queries == 3


def test_answers_are_the_edited_models(
    tiny_tokenizer: Any, delta: EditDelta, diagnosis: Diagnosis
) -> None:
    model = build_model("llama-tied")
    query = diagnosis.edits[0].queries[0]
    ids = torch.tensor([tiny_tokenizer(query.text)["input_ids"]])
    with torch.no_grad(), delta.applied(model):
        said = model.generate(ids, max_new_tokens=3, do_sample=False)[0, ids.shape[1] :]
    assert query.answer == tiny_tokenizer.decode(said, skip_special_tokens=True)
    assert query.answered and "Polish" in query.answer


def places_of(tokenizer: Any, *texts: str, chat: bool) -> tuple[Sequence[Any], list[str]]:
    forms = {"questions" if chat else "paraphrases": texts}
    fact = Fact("Ada", "", "Marie met Ada", "Polish", "", **forms)
    places, log = locate(tokenizer, [fact])
    return [place for place in places if place.form != "statement"], log


def test_the_last_subject_of_the_query_is_located_within_the_chat(
    tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = tiny_tokenizer.chat_template
    # a subject that the template names as well, before and after
    monkeypatch.setattr(tiny_tokenizer, "chat_template", f"To Ada from Ada: {template} Ada")
    (place,), log = places_of(tiny_tokenizer, " Is Ada of Adana Ada? ", chat=True)
    assert log == []
    before = tiny_tokenizer.decode(place.query.key_prefix)
    assert before == "To Ada from Ada: <|user|> Is Ada of Adana Ada"
    assert tiny_tokenizer.decode(place.query.ids).endswith("<|end|>\n<|assistant|> Ada")
    (plain,), _ = places_of(tiny_tokenizer, "Ada and Ada were", chat=False)
    assert tiny_tokenizer.decode(plain.query.key_prefix) == "Ada and Ada"


def test_queries_that_cannot_be_located_are_left_out_and_named(tiny_tokenizer: Any) -> None:
    places, log = places_of(tiny_tokenizer, "Who was she?", "Who was Ada?", chat=True)
    assert [place.text for place in places] == ["Who was Ada?"]
    (line,) = log
    assert "1 queries" in line and "do not name their subject" in line and "Who was she?" in line


def test_without_a_chat_template_chat_forms_are_left_out(
    tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny_tokenizer, "chat_template", None)
    places, log = places_of(tiny_tokenizer, "Who was Ada?", chat=True)
    assert not places
    assert "no chat template" in log[0]


def test_attention_sinks_are_left_out_and_counted(tiny_tokenizer: Any) -> None:
    model = build_model("llama-tied")
    every = read_probe_of(model, tiny_tokenizer)
    assert len(every.places) == 9 and len(every.keys) == 9 and every.log == []
    fewer = read_probe_of(model, tiny_tokenizer, sink_ratio=1.1)
    assert 0 < len(fewer.places) < 9
    kept = [every.places.index(place) for place in fewer.places]
    assert fewer.keys.equal(every.keys[kept])
    assert f"{9 - len(kept)} queries are left out" in fewer.log[0]
    assert "attention sink" in fewer.log[0]
    for some, queries in zip(fewer.contexts, every.contexts, strict=True):
        assert set(some) <= set(queries)


def test_facts_whose_subject_is_always_a_sink_are_named(tiny_tokenizer: Any) -> None:
    with pytest.raises(RoSEError) as error:
        read_probe_of(build_model("llama-tied"), tiny_tokenizer, sink_ratio=0.01)
    for fact in GEOMETRY_FACTS:
        assert fact.prompt in str(error.value)


def test_an_edit_without_targets_is_refused(tiny_tokenizer: Any, delta: EditDelta) -> None:
    old = EditDelta(delta.layers, delta.base, delta.provenance)
    with pytest.raises(RoSEError, match="does not say which hidden states"):
        targets_of(old, GEOMETRY_FACTS)
    with pytest.raises(RoSEError, match="does not say which hidden states"):
        rivals(build_model("llama-tied"), tiny_tokenizer, old)


def test_nothing_is_no_diagnosis(tiny_tokenizer: Any, delta: EditDelta) -> None:
    model = build_model("llama-tied")
    with pytest.raises(RoSEError, match="there is no fact; give at least one$"):
        diagnose(model, tiny_tokenizer, [], {"ours": delta}, SETTINGS)
    with pytest.raises(RoSEError, match="there is no fact(.|\n)*there is no edit"):
        diagnose(model, tiny_tokenizer, [], {}, SETTINGS)


def test_contexts_are_those_of_stage_1(
    tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rose_easyedit.method.stage1 import targets

    model = build_model("llama-tied")
    how = hparams(restatements=1, chat_contexts=1)
    prepared = Prepared.of(model, tiny_tokenizer, how.with_overrides(sink_ratio=1e9))
    found = read_probe(prepared, GEOMETRY_FACTS)
    plans: list[Any] = []
    made = targets.make_plan
    monkeypatch.setattr(targets, "make_plan", lambda *a: plans.append(made(*a)) or plans[-1])
    compute_edit(model, tiny_tokenizer, FACTS, how)
    learned = [{q.ids for q in fact_queries} for fact_queries in plans[-1].statements]
    assert [{q.ids for q in queries} for queries in found.contexts] == learned


def test_facts_that_are_not_in_the_edit_are_named(delta: EditDelta) -> None:
    strangers = [replace(GEOMETRY_FACTS[0], target_new="German"), GEOMETRY_FACTS[1]]
    strangers.append(replace(GEOMETRY_FACTS[2], prompt="Ada Lovelace speaks"))
    with pytest.raises(RoSEError) as error:
        targets_of(delta, strangers)
    assert "'German'" in str(error.value) and "Ada Lovelace speaks" in str(error.value)
    assert GEOMETRY_FACTS[1].prompt not in str(error.value)


def test_targets_follow_the_facts_and_not_their_order(tiny_tokenizer: Any) -> None:
    by_subject = edit(build_model("llama-tied"), tiny_tokenizer)
    turned = targets_of(by_subject, GEOMETRY_FACTS[::-1])
    assert by_subject.targets is not None and by_subject.targets.shape == (2, 32)
    assert turned.equal(by_subject.targets[[1, 0, 0]])
    by_fact = edit(
        build_model("llama-tied"), tiny_tokenizer, hierarchy={"integration": "independent"}
    )
    assert by_fact.targets is not None
    assert targets_of(by_fact, GEOMETRY_FACTS[::-1]).equal(by_fact.targets[[2, 1, 0]])


@pytest.mark.parametrize("integration", ["hierarchical", "joint", "independent"])
def test_rivals_differ_in_one_thing(integration: str, tiny_tokenizer: Any) -> None:
    model = build_model("llama-tied")
    own = edit(model, tiny_tokenizer, hierarchy={"integration": integration})
    before = weights_of(model)
    other = "hierarchical" if integration == "joint" else "joint"
    found = rivals(model, tiny_tokenizer, own)
    assert same_weights(model, before)
    assert list(found) == [f"{other}, protected", f"{integration}, covariance"]
    targets, constraint = found.values()
    expected = edit(model, tiny_tokenizer, hierarchy={"integration": other})
    assert targets.targets is not None and expected.targets is not None
    assert targets.targets.equal(expected.targets)
    assert constraint.targets is not None and own.targets is not None
    assert constraint.targets.equal(own.targets)
    # as if it had been computed so from the start
    whole = edit(
        model,
        tiny_tokenizer,
        hierarchy={"integration": integration},
        alignment={"constraint": "covariance", "statistics_tokens": 64},
    )
    assert constraint.provenance.groups == whole.provenance.groups
    assert constraint.provenance.losses == whole.provenance.losses
    for name, factors in constraint.layers.items():
        torch.testing.assert_close(factors.dense(), whole.layers[name].dense())


def test_edits_that_share_their_targets_share_their_radii(tiny_tokenizer: Any) -> None:
    model = build_model("llama-tied")
    own = edit(model, tiny_tokenizer)
    edits = {"own": own, **rivals(model, tiny_tokenizer, own)}
    found = diagnose(model, tiny_tokenizer, GEOMETRY_FACTS, edits, SETTINGS)
    assert [edit.name for edit in found.edits] == list(edits)
    first, joint, covariance = found.edits
    assert covariance.radii == first.radii and covariance.losses == first.losses
    assert joint.radii != first.radii and joint.losses != first.losses
    assert [q.deviation for q in covariance.queries] != [q.deviation for q in first.queries]
    for name, made in edits.items():
        alone = diagnose(model, tiny_tokenizer, GEOMETRY_FACTS, {name: made}, SETTINGS)
        assert alone.edits[0] == found.edits[list(edits).index(name)]


def test_no_usable_query_is_an_error(tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "rose_easyedit.geometry.places.locate", lambda *_: ([], ["all of them are elsewhere"])
    )
    with pytest.raises(RoSEError, match="all of them are elsewhere"):
        read_probe_of(build_model("llama-tied"), tiny_tokenizer)
