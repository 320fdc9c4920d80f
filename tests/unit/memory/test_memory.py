"""FactMemory: what is added is answered, what is forgotten is gone, nothing is found twice."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_llama import build_tokenizer
from tiny_models import FACTS, build_model, same_weights, settings, top_tokens, weights_of

from rose_easyedit.config.hparams import RoSEHyperParams
from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.errors import FactError, RoSEError
from rose_easyedit.memory import FactMemory
from rose_easyedit.memory.finding import Finder
from rose_easyedit.method.edit import compute_edit
from rose_easyedit.method.stage1 import integration

pytestmark = pytest.mark.usefixtures("own_cache")
HPARAMS = settings()
QUICK = settings(hierarchy={"fact_steps": 2, "subject_steps": 2})


@pytest.fixture(scope="module")
def pair() -> tuple[Any, Any]:
    return build_model("llama-tied"), build_tokenizer()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "facts.db"


@pytest.fixture
def optimised(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The subjects of each optimisation."""
    seen: list[list[str]] = []
    optimise = Finder.optimise

    def spy(finder: Finder, groups: Sequence[Any]) -> Any:
        seen.append([group[0].subject for group in groups])
        return optimise(finder, groups)

    monkeypatch.setattr(Finder, "optimise", spy)
    return seen


def quick(path: Path, pair: tuple[Any, Any]) -> FactMemory:
    return FactMemory.open(path, *pair, QUICK)


def test_the_model_answers_from_memory_inside_the_block(path: Path, pair: tuple[Any, Any]) -> None:
    memory = FactMemory.open(path, *pair, HPARAMS)
    before = weights_of(pair[0])
    memory.add(FACTS)
    with memory.edited() as model:
        for fact in FACTS:
            top, wanted = top_tokens(model, pair[1], fact["prompt"], fact["target_new"])
            assert top == wanted
    assert same_weights(pair[0], before)
    answer = memory.ask(FACTS[2]["prompt"], chat=False, max_new_tokens=3)
    assert memory.ask([FACTS[2]["prompt"]], chat=False, max_new_tokens=3) == [answer]
    assert answer.startswith("German")
    assert same_weights(pair[0], before)


def test_the_edit_is_that_of_all_facts_at_once(
    path: Path, pair: tuple[Any, Any], optimised: list[list[str]]
) -> None:
    for fact in FACTS:  # each time as another process would
        quick(path, pair).add(fact)
    assert optimised == [["Marie Curie"], ["Marie Curie"], ["Ada Lovelace"]]
    memory = quick(path, pair)
    delta, wanted = memory.delta(), compute_edit(*pair, FACTS, QUICK)
    assert optimised[3:] == []
    assert delta is not None and delta.base == wanted.base
    assert delta.provenance.groups == wanted.provenance.groups
    for name, factors in wanted.layers.items():
        torch.testing.assert_close(
            delta.layers[name].dense(), factors.dense(), rtol=1e-3, atol=1e-5
        )
    assert memory.delta() is delta
    memory.add(FACTS[0])
    assert memory.delta() is delta


def test_facts_are_on_the_disk_before_anything_is_computed(
    path: Path, pair: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patched:
        patched.setattr(Finder, "optimise", fail)
        with pytest.raises(RuntimeError, match="out of memory"):
            quick(path, pair).add(FACTS)
    assert [entry.state for entry in quick(path, pair).list()] == ["waiting"] * 3
    assert quick(path, pair).delta() is not None
    assert [entry.state for entry in quick(path, pair).list()] == ["ready"] * 3


def test_without_computing_no_model_is_needed(path: Path) -> None:
    memory = FactMemory.open(path, "no/such-model", hparams=QUICK)
    (change,) = memory.add(FACTS[0], compute=False)
    assert (change.action, change.new) == ("add", "Polish")
    memory.update({**FACTS[0], "target_new": "German"}, compute=False)
    memory.add(FACTS[2], compute=False)
    assert [change.old for change in memory.forget("Marie Curie")] == ["German"]
    assert [entry.request.subject for entry in memory.list()] == ["Ada Lovelace"]
    assert memory.list("Marie Curie") == []
    assert [change.action for change in memory.history("Marie Curie")] == [
        "add",
        "update",
        "forget",
    ]


def test_what_is_forgotten_is_not_answered(path: Path, pair: tuple[Any, Any]) -> None:
    memory = quick(path, pair)
    memory.add(FACTS)
    memory.forget("Marie Curie", FACTS[1]["prompt"])
    memory.forget("Ada Lovelace")
    wanted = compute_edit(*pair, FACTS[:1], QUICK)
    delta = memory.delta()
    assert delta is not None and delta.provenance.requests == wanted.provenance.requests
    memory.forget("Marie Curie")
    assert memory.delta() is None
    before = weights_of(pair[0])
    with memory.edited() as model:
        assert same_weights(model, before)
    with pytest.raises(RoSEError, match="no fact to write"):
        memory.save(path.with_name("edit.safetensors"))


def test_faulty_requests_leave_nothing(path: Path, pair: tuple[Any, Any]) -> None:
    memory = quick(path, pair)
    with pytest.raises(RoSEError, match="does not contain its subject"):
        memory.add([FACTS[0], {**FACTS[1], "subject": "Isaac Newton"}])
    with pytest.raises(RoSEError, match="no such fact to update"):
        memory.update(FACTS[0])
    assert memory.list() == [] and memory.history() == []


def test_a_fact_that_cannot_be_written_is_named_and_leaves_the_others_alone(
    path: Path, pair: tuple[Any, Any]
) -> None:
    memory = quick(path, pair)
    long = {**FACTS[0], "prompt": "so " * 400 + "Marie Curie"}
    with pytest.raises(RoSEError, match=r"are kept, but") as caught:
        memory.add([*FACTS, long])
    (fault,) = str(caught.value).splitlines()[1:]
    assert fault.startswith("  - 'so so so") and len(fault) < 500
    assert fault.count("(subject 'Marie Curie'): ") == 1 and "request" not in fault
    assert fault.endswith("the model reads 256; shorten the prompt")
    assert memory.list()[-1].fault in fault
    assert [entry.state for entry in memory.list()] == ["ready"] * 3 + ["refused"]
    delta = memory.delta()
    assert delta is not None and len(delta.provenance.requests) == 3
    memory.add(FACTS[0])  # of the same subject, without a word about the other
    with pytest.raises(RoSEError, match="are kept, but"):
        memory.add(long)


def test_when_a_subjects_facts_fail_together_all_are_named(
    path: Path, pair: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    optimise = Finder.optimise

    def fail(finder: Finder, groups: Sequence[Any]) -> Any:
        if any(len(group) > 1 for group in groups):
            raise FactError("The loss is not finite")
        return optimise(finder, groups)

    monkeypatch.setattr(Finder, "optimise", fail)
    memory = quick(path, pair)
    with pytest.raises(RoSEError, match="The loss is not finite"):
        memory.add(FACTS)
    assert [entry.state for entry in memory.list()] == ["refused", "refused", "ready"]


def test_what_is_no_fault_of_the_facts_leaves_them_waiting(
    path: Path, pair: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = quick(path, pair)
    memory.add(FACTS[0])

    def exhausted(*_args: Any) -> Any:
        raise torch.OutOfMemoryError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(integration, "_capture", exhausted)
        with pytest.raises(RoSEError, match="does not hold one sequence"):
            memory.add(FACTS[1:])
    assert [entry.state for entry in memory.list()] == ["waiting"] * 3
    assert memory.delta() is not None
    assert [entry.state for entry in memory.list()] == ["ready"] * 3


def test_a_fact_that_the_settings_leave_out_is_refused_and_the_others_are_written(
    path: Path, pair: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = integration._loss

    def broken(piece: Any, *rest: Any) -> Any:
        facts, drift = loss(piece, *rest)
        names = [name for name, fact in zip(piece.names, piece.fact, strict=True) if fact >= 0]
        at_fault = torch.tensor([name.startswith(FACTS[2]["subject"]) for name in names])
        return torch.where(at_fault, torch.nan, facts), drift

    monkeypatch.setattr(integration, "_loss", broken)
    hparams = QUICK.with_overrides(hierarchy={"on_failure": "leave_out"})
    memory = FactMemory.open(path, *pair, hparams)
    with pytest.raises(RoSEError, match=r"are kept, but (.|\n)*not finite"):
        memory.add(FACTS)
    assert [entry.state for entry in memory.list()] == ["ready", "ready", "refused"]
    delta = memory.delta()
    assert delta is not None and len(delta.provenance.requests) == 2


def test_a_memory_of_an_earlier_version_gets_the_settings_that_it_lacks(
    path: Path, pair: tuple[Any, Any], caplog: pytest.LogCaptureFixture
) -> None:
    quick(path, pair).add(FACTS)
    older = QUICK.as_dict()
    del older["answered_queries"], older["alignment"]["preserved_columns"], older["tracking"]
    with sqlite3.connect(path) as file:
        file.execute("UPDATE settings SET value = ? WHERE name = 'hparams'", [json.dumps(older)])
    file.close()
    memory = FactMemory.open(path, *pair)
    assert "without the settings answered_queries, alignment.preserved_columns" in caplog.text
    assert memory.hparams.answered_queries == RoSEHyperParams(layers=[1]).answered_queries
    assert [entry.state for entry in memory.list()] == ["waiting"] * 3
    caplog.clear()
    FactMemory.open(path, *pair)
    assert caplog.text == ""


def test_threads_share_a_memory_one_after_another(path: Path, pair: tuple[Any, Any]) -> None:
    memory = quick(path, pair)
    before = weights_of(pair[0])
    memory.add(FACTS, compute=False)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: memory.ask("They met", max_new_tokens=3), range(12)))
    assert len(set(answers)) == 1
    assert same_weights(pair[0], before)
    assert {entry.state for entry in memory.list()} == {"ready"}


def test_an_edit_of_other_widths_is_not_loaded(path: Path, pair: tuple[Any, Any]) -> None:
    memory = quick(path, pair)
    memory.add(FACTS)
    delta = memory.delta()
    assert delta is not None and delta.targets is not None
    delta.targets = torch.ones(len(delta.targets), 5)
    other = quick(path.with_name("other.db"), pair)
    with pytest.raises(RoSEError, match="targets of this edit have 5 entries"):
        other.load(delta.save(path.with_name("edit.safetensors")))
    assert other.list() == []


def test_words_are_taken_as_requests_are(path: Path, pair: tuple[Any, Any]) -> None:
    memory = quick(path, pair)
    memory.add(FACTS[2], compute=False)
    subject, prompt = FACTS[2]["subject"], FACTS[2]["prompt"]
    assert len(memory.list(f" {subject} ")) == len(memory.history(f"{subject} ")) == 1
    memory.forget(f" {subject}", f"{prompt} ")
    assert memory.list() == []


def test_a_memory_stays_where_it_was_opened(
    path: Path, pair: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    memory = quick(Path(path.name), pair)
    (path.parent / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    memory.add(FACTS[2], compute=False)
    assert len(memory.list()) == 1


def test_a_precision_is_remembered(path: Path) -> None:
    hparams = QUICK.with_overrides(layers=[1])
    FactMemory.open(path, "tiny-random", hparams=hparams, dtype="bfloat16").add(FACTS[2])
    model, _ = FactMemory.open(path).base()
    assert model.dtype == torch.bfloat16
    with pytest.raises(RoSEError, match="dtype is 'int3'; choose one of"):
        FactMemory.open(path.with_name("new.db"), "tiny-random", hparams=hparams, dtype="int3")
    with pytest.raises(RoSEError, match="needs its tokenizer"):
        FactMemory.open(path.with_name("new.db"), model, hparams=hparams)
    assert not path.with_name("new.db").exists()


def test_another_model_is_refused(path: Path, pair: tuple[Any, Any]) -> None:
    quick(path, pair).add(FACTS[2])
    other = build_model("llama-tied")
    with torch.no_grad():
        other.get_parameter("model.layers.1.mlp.down_proj.weight").mul_(2)
    memory = quick(path, (other, pair[1]))
    with pytest.raises(RoSEError, match="not the one that the memory was begun with"):
        memory.add(FACTS[0])
    with pytest.raises(RoSEError, match="not the one that the memory was begun with"):
        memory.update({**FACTS[2], "target_new": "Polish"})
    with quick(path, pair).edited() as model, pytest.raises(RoSEError, match="or edited"):
        quick(path, (model, pair[1])).add(FACTS[1])
    named = FactMemory.open(path, "no/such-model")
    with pytest.raises(RoSEError, match="no model 'no/such-model'"):
        named.add(FACTS[0])
    (entry,) = memory.list()
    assert entry.request.target_new == FACTS[2]["target_new"] and len(memory.history()) == 1
    assert named.add(FACTS[2]) == []  # which is there already, and needs no model


def test_inside_the_block_nothing_is_computed(path: Path, pair: tuple[Any, Any]) -> None:
    memory = quick(path, pair)
    memory.add(FACTS[2])
    with memory.edited(), pytest.raises(RoSEError, match="leave the block"):
        memory.add(FACTS[0])
    assert len(memory.list()) == 1
    assert memory.delta() is not None


def test_settings_are_those_of_the_beginning(path: Path, pair: tuple[Any, Any]) -> None:
    quick(path, pair)
    assert FactMemory.open(path, *pair).hparams.hierarchy.fact_steps == 2
    FactMemory.open(path, *pair, QUICK.with_overrides(micro_batch=3, device="cuda:0"))
    with pytest.raises(RoSEError, match="hierarchy.fact_steps is 2 there and 15 here"):
        FactMemory.open(path, *pair, HPARAMS)
    with pytest.raises(RoSEError, match="needs its tokenizer"):
        FactMemory.open(path, pair[0])
    with pytest.raises(RoSEError, match="needs its settings"):
        FactMemory.open(path.with_name("new.db"), "some/model")
    assert not path.with_name("new.db").exists()


def test_settings_that_no_model_fits_begin_no_memory(path: Path, pair: tuple[Any, Any]) -> None:
    beyond = QUICK.with_overrides(layers=[1, 99])
    with pytest.raises(RoSEError, match="Layer 99 is asked for"):
        FactMemory.open(path, *pair, beyond)
    with pytest.raises(RoSEError, match="Layer 99 is asked for"):
        FactMemory.open(path, "tiny-random", hparams=beyond, load_now=True)
    with pytest.raises(RoSEError, match="device is 'tpu'"):
        FactMemory.open(path, "tiny-random", hparams=QUICK, device="tpu")
    with pytest.raises(RoSEError, match="is a file"):
        FactMemory.open(path, __file__, hparams=QUICK)
    assert not path.exists()
    with pytest.raises(RoSEError, match="is a folder, and no memory; name a file"):
        FactMemory.open(path.parent, *pair, QUICK)


def test_a_named_model_is_loaded_when_it_is_needed(path: Path) -> None:
    hparams = QUICK.with_overrides(layers=[1])
    FactMemory.open(path, "tiny-random", hparams=hparams).add(FACTS[2])
    memory = FactMemory.open(path)  # the name and the settings are in the file
    delta = memory.delta()
    assert delta is not None and delta.provenance.hparams["model_name"] == "tiny-random"


def test_an_edit_goes_out_and_comes_in(
    path: Path, pair: tuple[Any, Any], optimised: list[list[str]]
) -> None:
    memory = quick(path, pair)
    memory.add(FACTS)
    file = memory.save(path.with_name("edit.safetensors"))
    loaded = quick(path.with_name("other.db"), pair)
    optimised.clear()
    assert len(loaded.load(file)) == 3
    one, other = memory.delta(), loaded.delta()
    assert optimised == []
    assert one is not None and other is not None
    assert torch.equal(one.targets, other.targets)
    another = FactMemory.open(path.with_name("another.db"), *pair, HPARAMS)
    another.load(file)  # other settings give other targets
    assert [entry.state for entry in another.list()] == ["waiting"] * 3
    delta = EditDelta.load(file)
    delta.base = "0" * 64
    delta.save(file)
    with pytest.raises(RoSEError, match="an edit of another model"):
        loaded.load(file)
