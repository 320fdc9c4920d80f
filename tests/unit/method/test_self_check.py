"""An edit that measures and judges itself."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import FACTS, LENIENT, build_model, same_weights, settings, top_tokens, weights_of

from rose_easyedit.cli import main
from rose_easyedit.config.compare import differences, missing_settings
from rose_easyedit.config.hparams import RoSEHyperParams, SelfCheckHyperParams
from rose_easyedit.easyedit.editor import apply_rose_to_model
from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.edits.file import EditRecord, write_edit
from rose_easyedit.errors import DamageError, RoSEError
from rose_easyedit.export.model_card import LORA, model_card
from rose_easyedit.forward.activations import frozen
from rose_easyedit.memory import FactMemory
from rose_easyedit.method.edit import compute_edit, solve_edit
from rose_easyedit.method.extend import extend
from rose_easyedit.method.neighbourhood import held_out_queries
from rose_easyedit.method.prepared import Prepared
from rose_easyedit.method.self_check import CheckedFact, Drift, Measured, warnings_of
from rose_easyedit.method.stage1.targets import compute_targets
from rose_easyedit.method.stage2.calibration import scaled
from rose_easyedit.method.verification import generic_texts, self_check, share_of_way, spread
from rose_easyedit.requests import as_requests
from rose_easyedit.text.locate_subject import TokenQuery
from rose_easyedit.tracking.curves import FACT_MEASURES, log_edit
from rose_easyedit.tracking.tracker import NoTracker

GOOD = CheckedFact(reached=0.97, least_reached=0.9, written=0.05, answered=True)
STILL = {"generic": Drift(0.01, 0.97, 24), "neighbours": Drift(0.02, 0.9, 24)}
LIMITS = SelfCheckHyperParams(
    most_loss=1.0, least_reached=0.5, most_drift=0.25, most_neighbour_drift=0.5
)
STRICT = {**LENIENT, "most_drift": 0.0, "most_neighbour_drift": 0.0}


def found(
    *facts: CheckedFact, learned: float = 0.05, drift: dict[str, Drift] | None = None
) -> list[str]:
    """What is wrong with such an edit."""
    labels = [f"fact {number}" for number, _ in enumerate(facts)]
    measured = Measured(facts, {**STILL, **(drift or {})})
    return warnings_of(measured, [learned] * len(facts), labels, LIMITS)


def test_how_much_of_its_way_a_state_has_gone() -> None:
    before = torch.tensor([[1.0, 0.0]] * 4)
    after = torch.tensor([[1.0, 0.0], [1.0, 4.0], [9.0, 2.0], [1.0, -2.0]])
    wanted = torch.tensor([[1.0, 4.0]] * 4)
    gone = share_of_way(before, after, wanted, torch.ones(2))
    assert gone.tolist() == [0.0, 1.0, 0.5, -0.5]


def test_a_way_counts_in_units_of_each_coordinate() -> None:
    start, half, end = torch.tensor([[[0.0, 0.0]], [[1.0, 0.0]], [[1.0, 10.0]]])
    gone = share_of_way(start, half, end, torch.tensor([1.0, 10.0]))
    assert gone.tolist() == [0.5]


@pytest.mark.parametrize(("most", "kept"), [(9, [0, 1, 2, 3, 4]), (4, [0, 2, 4]), (1, [0])])
def test_of_a_large_edit_some_contexts_stand_for_all(most: int, kept: list[int]) -> None:
    contexts = [TokenQuery((number,), 0, 0) for number in range(5)]
    assert [query.ids[0] for query in spread(contexts, most)] == kept


def test_the_bare_statement_of_each_fact_is_always_read(
    tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rose_easyedit.method.verification._STATEMENTS", 0)
    model = build_model("llama-untied")
    delta = compute_edit(model, tiny_tokenizer, FACTS, settings(self_check=LENIENT))
    facts = delta.provenance.self_check.facts
    assert len(facts) == len(FACTS)
    assert all(fact["reached"] == fact["least_reached"] for fact in facts)
    with delta.applied(model):
        for fact, told in zip(facts, FACTS, strict=True):
            top, wanted = top_tokens(model, tiny_tokenizer, told["prompt"], told["target_new"])
            assert fact["answered"] == (top == wanted)


def test_a_good_edit_is_not_warned_of() -> None:
    assert found(GOOD, GOOD) == []


@pytest.mark.parametrize(
    ("fact", "learned", "wanted"),
    [
        (GOOD, 3.0, "1 of 1 facts not learned: the loss of stage 1 is above 1: fact 0 (loss 3.00)"),
        (GOOD, math.nan, "1 of 1 facts gave numbers that are not finite: fact 0"),
        (replace(GOOD, written=math.inf), 0.1, "1 of 1 facts gave numbers that are not finite"),
        (replace(GOOD, reached=0.2), 0.1, "not reached by 0.5 of the way: fact 0 (0.20 of its"),
        (replace(GOOD, reached=9.0), 0.1, "not reached by 0.5 of the way: fact 0 (9.00 of its"),
        (replace(GOOD, written=1.5), 0.1, "not written: the target does not follow, or the loss"),
        (replace(GOOD, answered=False), 0.1, "not written: the target does not follow, or the"),
    ],
)
def test_what_went_wrong_with_a_fact_is_named(
    fact: CheckedFact, learned: float, wanted: str
) -> None:
    (text,) = found(fact, learned=learned)
    assert wanted in text
    assert "To mend it, " in text


def test_a_fact_is_named_once_by_the_first_thing_that_went_wrong() -> None:
    lost = CheckedFact(reached=0.1, least_reached=0.0, written=9.0, answered=False)
    unwritten = replace(GOOD, written=9.0)
    texts = found(GOOD, lost, unwritten)
    assert [("fact 0" in t, "fact 1" in t, "fact 2" in t) for t in texts] == [
        (False, True, False),
        (False, False, True),
    ]


def test_of_many_facts_the_first_are_named() -> None:
    (text,) = found(*[replace(GOOD, reached=0.0)] * 50)
    assert "50 of 50 facts" in text and "... and 30 more" in text


@pytest.mark.parametrize("name", ["generic", "neighbours"])
@pytest.mark.parametrize("kl", [1.5, math.nan, math.inf])
def test_a_drift_is_told_by_what_drifts(name: str, kl: float) -> None:
    (text,) = found(GOOD, drift={name: Drift(kl, 0.25, 24)})
    what = {"generic": "24 generic texts", "neighbours": "24 of its prompts with other subjects"}
    assert what[name] in text and "after 25% of them" in text
    assert ("by 1.50 nats" if kl == 1.5 else "numbers not finite") in text


def test_whether_a_target_must_follow_is_a_setting() -> None:
    measured = Measured([replace(GOOD, answered=False)], STILL)
    assert warnings_of(measured, [0.1], ["fact"], replace(LIMITS, must_answer=False)) == []


def test_the_record_has_no_number_that_is_not_finite() -> None:
    record = Measured([replace(GOOD, written=math.nan)], {"generic": Drift(math.inf, 0.0, 2)})
    assert json.loads(json.dumps(record.as_dict(), allow_nan=False)) == {
        "facts": [{"reached": 0.97, "least_reached": 0.9, "written": None, "answered": True}],
        "drift": {"generic": {"kl": None, "top1": 0.0, "prompts": 2}},
    }


@torch.no_grad()
def read(model: Any, rows: list[tuple[int, ...]]) -> torch.Tensor:
    """Log-probabilities of what follows each text, by the whole model on each alone."""
    return torch.stack([model(torch.tensor([row])).logits[0, -1] for row in rows]).log_softmax(-1)


@torch.no_grad()
def statement(model: Any, query: Any, layer: int) -> tuple[torch.Tensor, float]:
    """The hidden state at the subject, and the loss of the target, by the whole model."""
    out = model(torch.tensor([query.ids]), output_hidden_states=True)
    log_p = out.logits[0].log_softmax(-1)[-query.n_target - 1 : -1]
    chosen = log_p.gather(1, torch.tensor(query.ids[-query.n_target :])[:, None])
    return out.hidden_states[layer + 1][0, query.subject], float(-chosen.mean())


@pytest.mark.parametrize("name", ["llama-untied", "gpt2", "gemma2", "gpt_neox-parallel"])
def test_what_an_edit_says_is_what_the_edited_model_does(name: str, tiny_tokenizer: Any) -> None:
    model = build_model(name)
    before = weights_of(model)
    hparams = settings(self_check=LENIENT)
    targets = compute_targets(model, tiny_tokenizer, FACTS, hparams)
    delta = solve_edit(model, tiny_tokenizer, targets, hparams)
    assert same_weights(model, before)
    checked = delta.provenance.self_check
    texts = {
        "generic": generic_texts(tiny_tokenizer, ["Marie Curie"], hparams, 256),
        "neighbours": [
            query.ids
            for query in held_out_queries(tiny_tokenizer, as_requests(FACTS), hparams, 24, 256)
        ],
    }
    layer = hparams.target_layer
    queries = [query for contexts in targets.plan.statements for query in contexts]
    places = [i for i, contexts in enumerate(targets.plan.statements) for _ in contexts]
    value_of = {i: n for n, group in enumerate(targets.groups) for i in group}
    unedited = {kind: read(model, rows) for kind, rows in texts.items()}
    here = [statement(model, query, layer)[0] for query in queries]
    with delta.applied(model):
        edited = {kind: read(model, rows) for kind, rows in texts.items()}
        there = [statement(model, query, layer) for query in queries]
        answers = [top_tokens(model, tiny_tokenizer, f["prompt"], f["target_new"]) for f in FACTS]
    for kind, found_drift in checked.drift.items():
        old, new = unedited[kind], edited[kind]
        kl = float((old.exp() * (old - new)).sum(-1).mean())
        assert found_drift["kl"] == pytest.approx(kl, rel=1e-3)
        same = (old.argmax(-1) == new.argmax(-1)).float().mean()
        assert found_drift["top1"] == pytest.approx(float(same))
        assert found_drift["prompts"] == len(texts[kind])
    for index, fact in enumerate(checked.facts):
        mine = [i for i, place in enumerate(places) if place == index]
        ways = [targets.values[value_of[index]] - here[i] for i in mine]
        weigh = targets.unit.square()
        gone = [
            float(((there[i][0] - here[i]) / weigh) @ way / ((way / weigh) @ way))
            for i, way in zip(mine, ways, strict=True)
        ]
        assert fact["reached"] == pytest.approx(sum(gone) / len(gone), rel=1e-3)
        assert fact["least_reached"] == pytest.approx(min(gone), rel=1e-3)
        loss = sum(there[i][1] for i in mine) / len(mine)
        assert fact["written"] == pytest.approx(loss, rel=1e-3, abs=1e-4)
        top, wanted = answers[index]
        assert fact["answered"] == (top == wanted)


def test_the_same_edit_says_the_same(tiny_tokenizer: Any) -> None:
    records = [
        compute_edit(
            build_model("llama-untied"), tiny_tokenizer, FACTS, settings()
        ).provenance.self_check
        for _ in range(2)
    ]
    assert records[0] == records[1]


def test_generic_texts_name_no_subject_of_the_edit(tiny_tokenizer: Any, tmp_path: Path) -> None:
    about = [f"Marie Curie was a physicist and worked in Paris, {number}" for number in range(30)]
    others = ["Ada Lovelace lived in London, England", "He speaks German and plays the violin"]
    (tmp_path / "text.txt").write_text("\n".join([*about, *others]))
    hparams = settings(alignment={"statistics_text": str(tmp_path / "text.txt")})
    texts = generic_texts(tiny_tokenizer, ["Marie Curie"], hparams, 256)
    begins = [tiny_tokenizer.decode(text) for text in texts]
    assert len(begins) == 2
    assert all(whole.startswith(begin) for whole, begin in zip(others, begins, strict=True))
    assert all(2 <= len(text) <= 10 for text in texts)


def test_damage_is_warned_of_with_the_facts_names(
    tiny_tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    hparams = settings(self_check={**LENIENT, "least_reached": 1.0})
    hparams = hparams.with_overrides(alignment={"strength": 10.0})
    with caplog.at_level(logging.WARNING):
        delta = compute_edit(build_model("llama-untied"), tiny_tokenizer, FACTS, hparams)
    (text,) = delta.provenance.self_check.warnings
    assert text in caplog.messages
    assert "facts not reached" in text and "(subject 'Ada Lovelace')" in text


def test_a_damaged_edit_is_refused_where_the_settings_say_so(tiny_tokenizer: Any) -> None:
    model = build_model("llama-untied")
    before = weights_of(model)
    hparams = settings(on_damage="refuse", self_check={**STRICT, "least_reached": 1.0})
    with pytest.raises(DamageError, match="on_damage is refuse") as error:
        compute_edit(model, tiny_tokenizer, FACTS, hparams)
    assert len(error.value.faults) == 3  # the facts, and both drifts
    assert same_weights(model, before)
    whole = settings(on_damage="refuse", self_check=LENIENT)
    assert compute_edit(model, tiny_tokenizer, FACTS, whole).provenance.self_check


def test_an_edit_through_easyedit_is_judged_before_a_weight_is_touched(
    tiny_tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    model = build_model("llama-untied")
    before = weights_of(model)
    with pytest.raises(DamageError):
        apply_rose_to_model(
            model, tiny_tokenizer, FACTS, settings(on_damage="refuse", self_check=STRICT)
        )
    assert same_weights(model, before)
    with caplog.at_level(logging.WARNING):
        _, written = apply_rose_to_model(model, tiny_tokenizer, FACTS, settings(self_check=STRICT))
    assert "the edit moves what follows" in caplog.text
    assert len(written.delta.provenance.self_check.warnings) == 2


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_updates_that_are_not_finite_are_no_edit(bad: float, tiny_tokenizer: Any) -> None:
    model = build_model("llama-untied")
    before = weights_of(model)
    targets = compute_targets(model, tiny_tokenizer, FACTS, settings())
    broken = replace(targets, values=torch.full_like(targets.values, bad))
    with pytest.raises(DamageError, match="nothing can be written; lower the learning rates"):
        solve_edit(model, tiny_tokenizer, broken, settings())
    assert same_weights(model, before)


def test_values_beyond_the_model_are_caught(tiny_tokenizer: Any) -> None:
    model = build_model("llama-untied")
    targets = compute_targets(model, tiny_tokenizer, FACTS, settings())
    delta = solve_edit(model, tiny_tokenizer, targets, settings(), check=False)
    assert delta.provenance.self_check is None
    hparams = settings(self_check={**LENIENT, "least_reached": 0.5})
    layers = dict(zip(hparams.layers, delta.layers.values(), strict=True))
    for scale, wanted in [(1e38, "numbers that are not finite"), (1e10, "of its way")]:
        with frozen(model):
            prepared = Prepared.of(model, tiny_tokenizer, hparams)
            checked = self_check(prepared, targets, scaled(layers, scale))
        assert wanted in checked.warnings[0]
        assert "3 of 3 facts" in checked.warnings[0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"on_damage": "ignore"}, "on_damage is 'ignore'; choose one of warn, refuse"),
        (
            {"self_check": {"most_drift": -1.0}},
            "self_check.most_drift is -1.0; give a number of 0 or m",
        ),
        (
            {"self_check": {"least_reached": 2.0}},
            "least_reached is 2.0; give a number of 1 at the most",
        ),
        ({"self_check": {"most_drfit": 1.0}}, "did you mean self_check.most_drift"),
    ],
)
def test_what_is_damage_is_checked_like_every_setting(values: dict[str, Any], message: str) -> None:
    with pytest.raises(RoSEError, match=message):
        settings(**values)


def test_how_an_edit_is_judged_makes_it_no_other_edit() -> None:
    base = RoSEHyperParams(layers=[1])
    other = base.with_overrides(on_damage="refuse", self_check={"most_drift": 9.0})
    assert not differences(base.as_dict(), other.as_dict())
    earlier = base.as_dict()
    del earlier["on_damage"], earlier["self_check"]
    assert not missing_settings(earlier)


def test_an_extended_edit_tells_of_all_its_facts(tiny_tokenizer: Any) -> None:
    model = build_model("llama-untied")
    first = compute_edit(model, tiny_tokenizer, FACTS[2:], settings())
    grown = extend(model, tiny_tokenizer, first, FACTS[:2]).provenance.self_check
    assert len(grown.facts) == 3
    assert all(fact["reached"] > 0 for fact in grown.facts)


def test_a_memory_goes_on_with_a_warning(
    tiny_tokenizer: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = build_model("llama-untied")
    memory = FactMemory.open(
        tmp_path / "facts.db", model, tiny_tokenizer, settings(self_check=STRICT)
    )
    with caplog.at_level(logging.WARNING):
        memory.add(FACTS)
        assert memory.ask("Tell me about", max_new_tokens=1) is not None
    assert "generic texts by" in caplog.text
    assert all(entry.state == "ready" for entry in memory.list())


class Collected(NoTracker):
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.totals: dict[str, Any] = {}
        self.tables: dict[str, Any] = {}

    def summarise(self, values: Any) -> None:
        self.totals.update(values)

    def log_table(self, name: str, columns: Any, rows: Any) -> None:
        self.tables[name] = [dict(zip(columns, row, strict=True)) for row in rows]


def test_what_was_found_goes_where_the_edit_is_told_of(tiny_tokenizer: Any) -> None:
    delta = compute_edit(
        build_model("llama-untied"), tiny_tokenizer, FACTS, settings(self_check=STRICT)
    )
    checked = delta.provenance.self_check
    tracker = Collected()
    log_edit(tracker, delta)
    assert [{n: row[n] for n in FACT_MEASURES} for row in tracker.tables["facts"]] == [
        {n: fact[n] for n in FACT_MEASURES} for fact in checked.facts
    ]
    assert tracker.totals["check/generic_kl"] == checked.drift["generic"]["kl"]
    assert tracker.totals["check/warnings"] == len(checked.warnings) == 2
    assert 0 <= tracker.totals["check/answered"] <= 1
    card = model_card(delta, LORA)
    assert "## Checked by itself" in card
    assert "| prompt | target | learned | reached | written | answered |" in card
    assert card.count("- warning: ") == 2


def test_an_edit_without_a_check_has_a_card_and_totals() -> None:
    bare = EditDelta({}, "0" * 64)
    assert "This edit has not checked itself." in model_card(bare, LORA)
    tracker = Collected()
    log_edit(tracker, bare)
    assert not any(name.startswith("check/") for name in tracker.totals)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """Facts, and settings that find damage in every edit."""
    folder = tmp_path_factory.mktemp("check")
    (folder / "facts.jsonl").write_text("".join(json.dumps(fact) + "\n" for fact in FACTS))
    (folder / "more.jsonl").write_text(json.dumps({**FACTS[2], "prompt": "See Ada Lovelace"}))
    (folder / "tiny.yaml").write_text(
        f"model_name: {tiny_folder}\n"
        "layers: [1, 2]\n"
        "hierarchy: {fact_steps: 1, subject_steps: 1}\n"
        "alignment: {protected_directions: 0, preserved_columns: 0}\n"
        f"self_check: {json.dumps(STRICT)}\n"
    )
    return folder


def words(folder: Path, out: str, *more: str, facts: str = "facts.jsonl") -> list[str]:
    """An edit in the shell."""
    named = ["--hparams", str(folder / "tiny.yaml"), "--requests", str(folder / facts)]
    return ["edit", *named, "--out", str(folder / out), *more]


def test_the_shell_is_told_by_its_exit_code(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(workplace, "a.safetensors", "--json")) == 3
    report = json.loads(capsys.readouterr().out)
    assert len(report["self_check"]["warnings"]) == 2
    assert report["facts"][0]["written"] > 0
    assert main(words(workplace, "b.safetensors", facts="more.jsonl")) == 3
    shown = capsys.readouterr().out
    assert "learned, written: loss, -log P of a target token in nats" in shown
    assert "good is near 0" in shown and "drift: generic" in shown and "warning: " in shown
    assert main(["info", str(workplace / "b.safetensors")]) == 0
    assert "drift: neighbours" in capsys.readouterr().out
    both = [str(workplace / f"{name}.safetensors") for name in "ab"]
    assert main(["combine", *both, "--out", str(workplace / "c.safetensors")]) == 3
    assert main(["combine", *both, "--out", str(workplace / "d.safetensors"), "--strict"]) == 1
    assert not (workplace / "d.safetensors").exists()


def test_strict_writes_no_damaged_edit(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(workplace, "strict.safetensors", "--strict")) == 1
    assert "--strict writes no such edit" in capsys.readouterr().err
    assert not (workplace / "strict.safetensors").exists()
    assert main(words(workplace, "refused.safetensors", "--set", "on_damage=refuse")) == 1
    assert not (workplace / "refused.safetensors").exists()


def test_a_sound_edit_is_written_by_strict_too(workplace: Path) -> None:
    still = ("most_drift", "most_neighbour_drift")
    sound = [word for name in still for word in ("--set", f"self_check.{name}=100")]
    sound.append("--strict")
    assert main(words(workplace, "sound.safetensors", *sound)) == 0


def test_an_edit_of_an_earlier_version_is_shown(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(words(workplace, "new.safetensors"))
    delta = EditDelta.load(workplace / "new.safetensors")
    delta.provenance = replace(delta.provenance, self_check=None)
    old = delta.save(workplace / "old.safetensors")
    capsys.readouterr()
    assert main(["info", str(old)]) == 0
    assert "this edit has not checked itself" in capsys.readouterr().out
    assert main(["info", str(old), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["self_check"] is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda checked: checked["facts"].pop(),
        lambda checked: checked["facts"][0].update(reached="far"),
        lambda checked: checked["drift"]["generic"].update(top1=None),
        lambda checked: checked["limits"].pop("most_loss"),
        lambda checked: checked.update(warnings="none"),
        lambda checked: checked["drift"].update(other={}),
        lambda checked: checked.clear(),
    ],
)
def test_a_file_whose_check_is_none_is_refused(workplace: Path, damage: Any) -> None:
    main(words(workplace, "whole.safetensors", "--force"))
    delta = EditDelta.load(workplace / "whole.safetensors")
    record = json.loads(json.dumps(delta.provenance.as_dict()))
    damage(record["self_check"])
    damaged = EditRecord(delta.layers, delta.base, record, delta.targets)
    with pytest.raises(RoSEError, match="self_check[.]"):
        EditDelta.load(write_edit(workplace / "damaged.safetensors", damaged))
