"""An edit that grows: the same as one batch of all, and no more optimised than has changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import build_model, same_weights, settings, weights_of

from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.errors import RoSEError
from rose_easyedit.method.combine import combine
from rose_easyedit.method.edit import compute_edit
from rose_easyedit.method.extend import cached_targets, extend, update, without
from rose_easyedit.method.stage1 import integration
from rose_easyedit.method.stage1 import targets as targets_module
from rose_easyedit.requests import as_requests

BATCHES = [
    [
        ("In London she met Marie Curie", "Marie Curie", "Polish"),
        ("He plays with Ada Lovelace", "Ada Lovelace", "German"),
    ],
    [
        ("Tell me about Isaac Newton", "Isaac Newton", "Spanish"),
        ("The profession of Isaac Newton is", "Isaac Newton", "violin"),
    ],
    # of a subject that is there already
    [
        ("The mother tongue of Marie Curie", "Marie Curie", "English"),
        ("In what country was Albert Einstein", "Albert Einstein", "Germany"),
    ],
    [("She lived in London with Ada Lovelace", "Ada Lovelace", "Paris")],
]


def requests(batch: list[tuple[str, str, str]]) -> list[dict[str, str]]:
    return [dict(zip(("prompt", "subject", "target_new"), fact, strict=True)) for fact in batch]


ALL = [request for batch in BATCHES for request in requests(batch)]


@pytest.fixture(scope="module")
def pair(tiny_tokenizer: Any) -> tuple[Any, Any]:
    return build_model("llama-tied"), tiny_tokenizer


@pytest.fixture(scope="module")
def first(pair: tuple[Any, Any]) -> EditDelta:
    """An edit of the first two batches."""
    return compute_edit(*pair, [*requests(BATCHES[0]), *requests(BATCHES[1])], hparams())


@pytest.fixture
def optimised(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The names of the groups of each level that was optimised."""
    seen: list[list[str]] = []
    optimise = targets_module.optimise

    def spy(setting: Any, groups: Any, *rest: Any) -> Any:
        seen.append([group.name for group in groups])
        return optimise(setting, groups, *rest)

    monkeypatch.setattr(targets_module, "optimise", spy)
    return seen


def hparams(**overrides: Any) -> Any:
    hierarchy = {"fact_steps": 4, "subject_steps": 5, "smoothing_radius": 0.3, "kl_factor": 0.1}
    hierarchy |= {"fact_learning_rate": 0.1, "subject_learning_rate": 0.1}
    values = {
        "n_contexts": 3,
        "chat_contexts": 1,
        "query_formats": 1,
        "alignment": {
            "strength": 0.1,
            "protected_directions": 4,
            "preserved_columns": 9,
            "statistics_tokens": 200,
        },
        **overrides,
    }
    values["hierarchy"] = {**hierarchy, **overrides.get("hierarchy", {})}
    return settings(**values)


def assert_alike(one: EditDelta, other: EditDelta, tolerance: float) -> None:
    """The same facts and groups, and updates and targets that differ by no more than a share."""
    for name in ("requests", "groups", "hparams"):
        assert getattr(one.provenance, name) == getattr(other.provenance, name)
    assert one.base == other.base
    pairs = [(one.targets, other.targets)]
    pairs += [(one.layers[name].dense(), other.layers[name].dense()) for name in one.layers]
    for left, right in pairs:
        assert float((left - right).norm() / right.norm()) < tolerance


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"key_columns": "merged", "hierarchy": {"integration": "joint"}},
        {"hierarchy": {"integration": "independent"}},
    ],
    ids=["hierarchical", "joint", "independent"],
)
def test_batches_one_after_another_are_one_batch(
    overrides: dict[str, Any], pair: tuple[Any, Any], tmp_path: Path
) -> None:
    settings_ = hparams(**overrides)
    grown = compute_edit(*pair, requests(BATCHES[0]), settings_)
    for batch in BATCHES[1:]:
        grown.save(tmp_path / "grown.safetensors")  # it need not stay in one process
        grown = extend(*pair, EditDelta.load(tmp_path / "grown.safetensors"), requests(batch))
    assert_alike(grown, compute_edit(*pair, ALL, settings_), tolerance=1e-4)


def test_only_subjects_with_other_facts_are_optimised(
    pair: tuple[Any, Any], first: EditDelta, optimised: list[list[str]]
) -> None:
    before = weights_of(pair[0])
    grown = extend(*pair, first, requests(BATCHES[2]))
    assert optimised[-1] == ["Marie Curie", "Albert Einstein"]
    assert len(optimised[0]) == 3  # Marie Curie's two facts and Einstein's one
    assert same_weights(pair[0], before)
    kept = [1, 2]  # Lovelace and Newton
    assert torch.equal(grown.targets[kept], first.targets[kept])
    for name in ("losses", "steps"):
        assert len(getattr(grown.provenance, name)) == {"losses": 6, "steps": 4}[name]
    assert grown.provenance.losses[1:4] == first.provenance.losses[1:4]
    assert grown.provenance.steps[1:3] == first.provenance.steps[1:3]
    assert [r["subject"] for r in first.provenance.requests].count("Marie Curie") == 1


def test_facts_that_are_there_already_change_nothing(
    pair: tuple[Any, Any], first: EditDelta, optimised: list[list[str]]
) -> None:
    again = extend(*pair, first, requests(BATCHES[1]))
    assert optimised == []
    assert_alike(again, first, tolerance=1e-6)
    assert again.provenance.replaced == []


def test_a_fact_of_its_own_is_not_optimised_again(
    pair: tuple[Any, Any], optimised: list[list[str]]
) -> None:
    settings_ = hparams(hierarchy={"integration": "independent"})
    delta = compute_edit(*pair, requests(BATCHES[0]), settings_)
    optimised.clear()
    extend(*pair, delta, requests(BATCHES[2]))
    assert [len(names) for names in optimised] == [2]


def test_the_later_of_two_contradicting_facts_holds_and_both_are_named(
    pair: tuple[Any, Any], first: EditDelta
) -> None:
    changed = {**requests(BATCHES[0])[0], "target_new": "Spanish"}
    now = extend(*pair, first, [changed, *requests(BATCHES[2])])
    kept = [r["target_new"] for r in now.provenance.requests if r["subject"] == "Marie Curie"]
    assert kept == ["Spanish", "English"]
    assert any("'Polish'" in line and "'Spanish'" in line for line in now.provenance.log)
    wanted = [changed, *ALL[1:6]]
    assert_alike(now, compute_edit(*pair, wanted, hparams()), tolerance=1e-4)
    later = without(*pair, now, "Isaac Newton")
    assert any("the later one holds" in line for line in later.provenance.log)
    assert "Polish" not in str(without(*pair, later, "Marie Curie").provenance)


def test_update_changes_a_target_and_nothing_else(
    pair: tuple[Any, Any], first: EditDelta, optimised: list[list[str]]
) -> None:
    changed = {**requests(BATCHES[0])[1], "target_new": "Paris"}
    now = update(*pair, first, [changed])
    assert optimised[-1] == ["Ada Lovelace"]
    assert [r["target_new"] for r in now.provenance.requests] == [
        *("Polish", "Paris"),
        *("Spanish", "violin"),
    ]
    unknown = {**changed, "prompt": "Who is Ada Lovelace"}
    with pytest.raises(RoSEError, match="no such fact to update.*\n.*Who is Ada Lovelace"):
        update(*pair, first, [changed, unknown])


def test_what_is_forgotten_was_never_there(
    pair: tuple[Any, Any], first: EditDelta, optimised: list[list[str]]
) -> None:
    left = without(*pair, first, "Isaac Newton")
    assert optimised == []
    assert_alike(left, compute_edit(*pair, requests(BATCHES[0]), hparams()), tolerance=1e-4)
    assert "Newton" not in str(left.provenance)


def test_one_fact_of_a_subject_is_forgotten(
    pair: tuple[Any, Any], first: EditDelta, optimised: list[list[str]]
) -> None:
    left = without(*pair, first, "Isaac Newton", "Tell me about Isaac Newton")
    assert optimised[-1] == ["Isaac Newton"]
    assert [r["target_new"] for r in left.provenance.requests] == ["Polish", "German", "violin"]


def test_what_is_not_there_cannot_be_forgotten(pair: tuple[Any, Any], first: EditDelta) -> None:
    with pytest.raises(RoSEError, match="no fact about 'Marie'"):
        without(*pair, first, "Marie")
    with pytest.raises(RoSEError, match="of it the edit has 'In London she met Marie Curie'"):
        without(*pair, first, "Marie Curie", "Marie Curie is")
    few = without(*pair, without(*pair, first, "Isaac Newton"), "Ada Lovelace")
    with pytest.raises(RoSEError, match="no fact but those about 'Marie Curie'"):
        without(*pair, few, "Marie Curie")


def more(pair: tuple[Any, Any], delta: EditDelta) -> EditDelta:
    return extend(*pair, delta, requests(BATCHES[2]))


def forget(pair: tuple[Any, Any], delta: EditDelta) -> EditDelta:
    return without(*pair, delta, "Isaac Newton")


def change(pair: tuple[Any, Any], delta: EditDelta) -> EditDelta:
    return update(*pair, delta, requests(BATCHES[0]))


@pytest.mark.parametrize("act", [more, forget, change])
def test_an_edited_model_is_refused(
    act: Callable[[tuple[Any, Any], EditDelta], EditDelta],
    pair: tuple[Any, Any],
    first: EditDelta,
    tmp_path: Path,
) -> None:
    with first.applied(pair[0]):
        with pytest.raises(RoSEError, match=r"revert\(model\) first"):
            act(pair, first)
        loaded = EditDelta.load(first.save(tmp_path / "edit.safetensors"))
        with pytest.raises(RoSEError, match="not the one that the edit was computed for"):
            act(pair, loaded)
    other = build_model("llama-untied"), pair[1]
    with torch.no_grad():
        other[0].get_parameter("model.layers.1.mlp.down_proj.weight").mul_(2)
    with pytest.raises(RoSEError, match="not the one that the edit was computed for"):
        act(other, first)


def test_an_edit_without_its_targets_is_refused(pair: tuple[Any, Any], first: EditDelta) -> None:
    bare = EditDelta(first.layers, first.base, {"requests": []})
    with pytest.raises(RoSEError, match="lacks requests, hparams, groups, losses, steps, targets"):
        extend(*pair, bare, ALL)


@pytest.mark.parametrize(
    "lie", [{"losses": [1.0]}, {"steps": [1]}, {"groups": [[99]]}, {"groups": 3}]
)
def test_an_edit_whose_record_does_not_fit_its_targets_is_refused(
    lie: dict[str, Any], first: EditDelta
) -> None:
    false = replace(first, provenance=replace(first.provenance, **lie))
    with pytest.raises(RoSEError, match="does not fit together.*compute one of all the facts"):
        cached_targets(false)


def test_known_targets_are_looked_up_by_their_facts(first: EditDelta) -> None:
    known = cached_targets(first)
    newton = tuple((r.subject, r.prompt, r.target_new) for r in as_requests(requests(BATCHES[1])))
    assert set(map(len, known)) == {1, 2}
    assert torch.equal(known[newton].value, first.targets[2])
    assert known[newton].losses == first.provenance.losses[2:]


def test_an_edit_of_an_earlier_version_names_the_settings_that_it_lacks(
    pair: tuple[Any, Any], first: EditDelta
) -> None:
    older = {name: value for name, value in hparams().as_dict().items() if name != "n_contexts"}
    del older["hierarchy"]["kl_factor"], older["tracking"]
    edit = EditDelta(
        first.layers, first.base, {**first.provenance.as_dict(), "hparams": older}, first.targets
    )
    with pytest.raises(RoSEError, match=r"(?s)lacks:\n  - n_contexts\n  - hierarchy.kl_factor$"):
        extend(*pair, edit, requests(BATCHES[3]))
    for one, other in ((edit, first), (first, edit)):
        with pytest.raises(RoSEError, match="n_contexts is .*missing"):
            combine(*pair, one, other)


def test_targets_of_another_width_are_refused(pair: tuple[Any, Any], first: EditDelta) -> None:
    assert first.targets is not None
    edit = EditDelta(first.layers, first.base, first.provenance, first.targets[:, :5])
    with pytest.raises(RoSEError, match="have 5 entries and the model's hidden states 32"):
        extend(*pair, edit, requests(BATCHES[3]))


def test_what_is_told_of_a_fact_stays(pair: tuple[Any, Any], first: EditDelta) -> None:
    plain = requests(BATCHES[0])[0]
    told = extend(*pair, first, [{**plain, "ground_truth": "French", "case_id": 7}])
    again = extend(*pair, told, [plain])
    record = again.provenance.requests[0]
    assert (record["ground_truth"], record["case_id"]) == ("French", 7)


def test_a_change_that_is_taken_back_leaves_no_trace(
    pair: tuple[Any, Any], first: EditDelta
) -> None:
    plain = requests(BATCHES[0])[0]
    there = update(*pair, first, [{**plain, "target_new": "Greek"}])
    further = update(*pair, there, [{**plain, "target_new": "Latin"}])
    assert [(c["old"], c["new"]) for c in further.provenance.replaced] == [("Polish", "Latin")]
    back = update(*pair, further, [plain])
    assert back.provenance.replaced == []


def test_a_failing_fact_that_may_be_left_out_leaves_the_edit_as_it_was(
    pair: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    careful = hparams(hierarchy={"on_failure": "leave_out"})
    edit = compute_edit(*pair, requests(BATCHES[0]), careful)
    loss = integration._loss

    def broken(*args: Any) -> Any:
        facts, drift = loss(*args)
        return facts * torch.nan, drift

    monkeypatch.setattr(integration, "_loss", broken)
    larger = extend(*pair, edit, requests(BATCHES[1]))
    assert_alike(larger, edit, 1e-6)
    assert sum("is left out" in line for line in larger.provenance.log) == 2
