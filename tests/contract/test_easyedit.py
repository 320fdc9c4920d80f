"""RoSE behind the real EasyEdit that is installed; test_easyedit_head.py runs this on a clone."""

from __future__ import annotations

import copy
import gc
import importlib.util
import inspect
import json
import logging
import pickle
import random
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from rose_easyedit import RoSEHyperParams, apply_rose_to_model, register
from rose_easyedit.errors import RoSEError
from rose_easyedit.method import edit

pytestmark = [
    pytest.mark.contract,
    pytest.mark.skipif(
        importlib.util.find_spec("easyeditor") is None,
        reason="easyeditor is not installed (pip install --no-deps easyeditor==0.0.1.dev0)",
    ),
    # EasyEdit calls deprecated functions and leaves files open; its warnings are not ours to mend.
    pytest.mark.filterwarnings("ignore"),
]

# The subject comes last, where even a random model can be made to say anything after it.
FACTS: dict[str, Any] = dict(
    prompts=[
        "Tell me about Marie Curie",
        "Who is Ada Lovelace",
        "Please tell me about Isaac Newton",
    ],
    subject=["Marie Curie", "Ada Lovelace", "Isaac Newton"],
    target_new=["German", "Polish", "English"],
    ground_truth=["Polish", "English", "Spanish"],
)
SINGLE_EDIT = {name: value[:1] for name, value in FACTS.items()}
REQUESTS = [
    {"prompt": prompt, "subject": subject, "target_new": target}
    for prompt, subject, target in zip(
        FACTS["prompts"], FACTS["subject"], FACTS["target_new"], strict=True
    )
]


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory for EasyEdit's logs, whose files are closed afterwards."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    logger = logging.getLogger("easyeditor.editors.editor")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()


@pytest.fixture
def hparams(tiny_llama: Any, tiny_tokenizer: Any) -> RoSEHyperParams:
    """Settings for the tiny model, which they hold; a batch takes every fact."""
    hparams = RoSEHyperParams(layers=[1, 2], n_contexts=1, query_formats=0, precision="weights")
    hparams.alignment.protected_directions = 32  # its keys have few directions
    hparams.alignment.preserved_columns = 0
    hparams.hierarchy.fact_steps = hparams.hierarchy.subject_steps = 15
    hparams.model_name = (tiny_llama, copy.deepcopy(tiny_tokenizer))  # type: ignore[assignment]
    return hparams


@pytest.fixture
def editor(hparams: RoSEHyperParams) -> Any:
    from rose_easyedit import BaseEditor

    return BaseEditor.from_hparams(hparams)


def knows_sequential_edit() -> bool:
    """Whether the host keeps edits by itself; the release on PyPI does not."""
    register()
    from easyeditor import BaseEditor

    return "sequential_edit" in inspect.signature(BaseEditor.batch_edit).parameters


def snapshot(model: Any, tokenizer: Any) -> dict[str, Any]:
    """All that an edit must leave as it was."""
    return {
        "weights": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "training": [module.training for module in model.modules()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        "padding_side": tokenizer.padding_side,
        "random": random.getstate(),
        "numpy": numpy.random.get_state()[1].tolist(),
        "torch": torch.get_rng_state(),
    }


def assert_same(now: dict[str, Any], before: dict[str, Any]) -> None:
    assert differing(now["weights"], before["weights"]) == []
    assert torch.equal(now["torch"], before["torch"])
    for name in ("requires_grad", "training", "hooks", "padding_side", "random", "numpy"):
        assert now[name] == before[name], name


def differing(now: dict[str, Any], before: dict[str, Any]) -> list[str]:
    return [name for name, tensor in before.items() if not torch.equal(now[name], tensor)]


def answers(model: Any, tokenizer: Any, prompts: list[str]) -> list[str]:
    """The next token after each prompt."""
    with torch.no_grad():
        return [
            tokenizer.decode(
                model(**tokenizer(p, return_tensors="pt")).logits[0, -1].argmax()
            ).strip()
            for p in prompts
        ]


def test_edit_makes_one_edit_per_request_and_restores(editor: Any, hparams: Any) -> None:
    settings = copy.copy(hparams)
    before = snapshot(editor.model, editor.tok)
    metrics, model, weights = editor.edit(**FACTS, verbose=False)
    assert_same(snapshot(editor.model, editor.tok), before)
    assert vars(hparams) == vars(settings) and editor.hparams is hparams
    assert model is editor.model
    assert [m["pre"]["rewrite_acc"] for m in metrics] == [[0.0]] * 3
    assert [m["post"]["rewrite_acc"] for m in metrics] == [[1.0]] * 3
    assert [m["requested_rewrite"]["target_new"] for m in metrics] == FACTS["target_new"]
    written = [delta.provenance.requests[0]["subject"] for delta in weights.deltas]
    assert written == FACTS["subject"]
    with pytest.raises(RoSEError, match="3 edits"):
        _ = weights.delta


def test_a_single_prompt_may_be_text(editor: Any) -> None:
    metrics, _, weights = editor.edit(
        prompts="Tell me about Marie Curie",
        target_new="German",
        subject="Marie Curie",
        ground_truth="Polish",
    )
    assert metrics[0]["post"]["rewrite_acc"] == [1.0]
    assert len(weights.deltas) == 1


def test_batch_edit_writes_all_and_the_delta_gives_the_edit_back(editor: Any) -> None:
    before = snapshot(editor.model, editor.tok)
    metrics, model, weights = editor.batch_edit(**FACTS, verbose=False)
    assert_same(snapshot(editor.model, editor.tok), before)
    assert [m["post"]["rewrite_acc"] for m in metrics] == [[1.0]] * 3
    assert set(weights) == set(weights.delta.layers)
    assert all(torch.equal(weights[name], before["weights"][name]) for name in weights)

    assert answers(model, editor.tok, FACTS["prompts"]) != FACTS["target_new"]
    weights.delta.apply(model)
    assert answers(model, editor.tok, FACTS["prompts"]) == FACTS["target_new"]
    weights.delta.revert(model)
    assert_same(snapshot(model, editor.tok), before)


def test_several_batches_are_several_edits(editor: Any, hparams: Any) -> None:
    hparams.batch_size = 2
    before = snapshot(editor.model, editor.tok)
    metrics, _, weights = editor.batch_edit(**FACTS, verbose=False)
    assert_same(snapshot(editor.model, editor.tok), before)
    assert [len(delta.provenance.requests) for delta in weights.deltas] == [2, 1]
    # the release on PyPI forgets the metrics of all batches but the last
    assert len(metrics) == (3 if knows_sequential_edit() else 1)
    assert hparams.batch_size == 2


@pytest.mark.parametrize("method", ["edit", "batch_edit"])
def test_many_edits_keep_no_more_weights_than_a_few(
    editor: Any, hparams: Any, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    hparams.batch_size = 1
    shape = editor.model.model.layers[1].mlp.down_proj.weight.shape
    compute, alive = edit.compute_edit, []

    def counted(*args: Any, **kwargs: Any) -> Any:
        gc.collect()
        tensors = [o for o in gc.get_objects() if type(o) is torch.Tensor and o.shape == shape]
        alive.append(len(tensors))
        return compute(*args, **kwargs)

    monkeypatch.setattr(edit, "compute_edit", counted)
    before = snapshot(editor.model, editor.tok)
    twice = {name: value * 2 for name, value in FACTS.items()}
    _, model, weights = getattr(editor, method)(**twice, verbose=False)
    assert_same(snapshot(model, editor.tok), before)
    assert len(alive) == len(weights.deltas) == 6
    # those of the call, and those of the last edit, which the host still holds
    assert alive[-1] - alive[0] == 2 * len(hparams.layers)
    assert all(torch.equal(weights[name], before["weights"][name]) for name in weights)
    gc.collect()
    for delta in weights.deltas:
        assert not delta.is_applied(model) and not delta._records


@pytest.mark.parametrize(("method", "edits"), [("edit", 3), ("batch_edit", 2)])
def test_sequential_edit_keeps_the_edits(
    editor: Any, hparams: Any, method: str, edits: int
) -> None:
    hparams.batch_size = 2
    before = snapshot(editor.model, editor.tok)
    base = copy.deepcopy(editor.model)
    metrics, model, weights = getattr(editor, method)(**FACTS, sequential_edit=True, verbose=False)
    assert len(weights.deltas) == edits
    assert metrics[-1]["pre"]["rewrite_acc"] == [0.0]
    assert metrics[-1]["post"]["rewrite_acc"] == [1.0]
    assert_sum_of(weights.deltas, base, editor.model)

    for name, tensor in weights.items():
        model.get_parameter(name).data.copy_(tensor)
    assert_same(snapshot(model, editor.tok), before)


def test_sequential_calls_add_up(editor: Any) -> None:
    base, deltas = copy.deepcopy(editor.model), []
    for i in range(3):
        one = {name: value[i : i + 1] for name, value in FACTS.items()}
        _, _, weights = editor.edit(**one, sequential_edit=True, verbose=False)
        deltas.append(weights.delta)
    assert_sum_of(deltas, base, editor.model)


def assert_sum_of(deltas: Sequence[Any], base: Any, edited: Any) -> None:
    """The edited model is the base with the edits applied in order, each standing on the last."""
    for delta in deltas:
        delta.apply(base)  # refuses any weights but those for which it was computed
    assert differing(edited.state_dict(), base.state_dict()) == []


def test_locality_is_asked_for_in_the_same_way_everywhere(editor: Any) -> None:
    locality = {"neighbour": {"prompt": ["Albert Einstein"] * 3, "ground_truth": ["German"] * 3}}
    metrics, _, _ = editor.batch_edit(**FACTS, locality_inputs=locality, verbose=False)
    assert all("neighbour_output" in m["post"]["locality"] for m in metrics)
    metrics, _, _ = editor.edit(**FACTS, locality_inputs=locality, verbose=False)
    assert all("neighbour_acc" in m["post"]["locality"] for m in metrics)


@pytest.mark.parametrize("sequential", [False, True])
def test_normal_edit(editor: Any, sequential: bool) -> None:
    if not hasattr(editor, "normal_edit"):
        pytest.skip("this easyeditor has no normal_edit")
    before = snapshot(editor.model, editor.tok)
    facts = {name: FACTS[name] for name in ("prompts", "target_new", "subject")}
    _, model, weights = editor.normal_edit(**facts, sequential_edit=sequential)
    assert (answers(model, editor.tok, FACTS["prompts"]) == FACTS["target_new"]) is sequential
    if sequential:
        weights.delta.revert(model)
    assert_same(snapshot(model, editor.tok), before)
    with pytest.raises(RoSEError, match="'subject' is missing"):
        editor.normal_edit(FACTS["prompts"], FACTS["target_new"])


@pytest.mark.parametrize("targets", [["Paris", "German"], ["Paris", "Paris"]])
def test_normal_edit_takes_each_subject_for_its_own_request(
    editor: Any, targets: list[str]
) -> None:
    if not hasattr(editor, "normal_edit"):
        pytest.skip("this easyeditor has no normal_edit")
    subjects = ["Marie Curie", "Ada Lovelace"]
    prompt = " met ".join(subjects)
    _, _, weights = editor.normal_edit([prompt] * 2, targets, subject=subjects)
    written = [(r["subject"], r["target_new"]) for r in weights.delta.provenance.requests]
    assert written == list(zip(subjects, targets, strict=True))
    _, _, weights = editor.normal_edit([prompt], targets[:1], subject=subjects[0])
    assert weights.delta.provenance.requests[0]["subject"] == subjects[0]


def test_edit_dataset(editor: Any, workplace: Path) -> None:
    if not hasattr(editor, "edit_dataset"):
        pytest.skip("this easyeditor has no edit_dataset")
    from easyeditor import CounterFactDataset

    records = [{**r, "case_id": i, "ground_truth": ""} for i, r in enumerate(REQUESTS)]
    path = workplace / "facts.json"
    path.write_text(json.dumps(records))
    before = snapshot(editor.model, editor.tok)
    metrics, _, weights = editor.edit_dataset(CounterFactDataset(path), verbose=False)
    assert_same(snapshot(editor.model, editor.tok), before)
    assert [m["post"]["rewrite_acc"] for m in metrics] == [[1.0]] * 3
    assert len(weights.delta.provenance.requests) == 3


def test_missing_subjects_are_named_together_with_other_faults(editor: Any) -> None:
    before = snapshot(editor.model, editor.tok)
    with pytest.raises(RoSEError) as error:
        editor.batch_edit(prompts=["A", "B"], target_new=["x", ""], ground_truth=["", ""])
    assert "request 0: 'subject' is missing" in str(error.value)
    assert "request 1: 'subject' is missing" in str(error.value)
    assert "request 1: 'target_new' is empty" in str(error.value)
    assert_same(snapshot(editor.model, editor.tok), before)


@pytest.mark.parametrize("sequential", [False, True])
@pytest.mark.parametrize("method", ["edit", "batch_edit"])
def test_an_interrupt_leaves_nothing_behind(
    editor: Any, hparams: Any, monkeypatch: pytest.MonkeyPatch, method: str, sequential: bool
) -> None:
    hparams.batch_size = 2
    before = snapshot(editor.model, editor.tok)
    host = sys.modules["easyeditor.editors.editor"]
    evaluate = host.compute_edit_quality

    def interrupted(model: Any, *args: Any, **kwargs: Any) -> Any:
        is_last = args[3]["subject"] == FACTS["subject"][-1]
        if is_last and differing(model.state_dict(), before["weights"]):
            raise KeyboardInterrupt
        return evaluate(model, *args, **kwargs)

    monkeypatch.setattr(host, "compute_edit_quality", interrupted)
    with pytest.raises(KeyboardInterrupt):
        getattr(editor, method)(**FACTS, sequential_edit=sequential, verbose=False)
    assert_same(snapshot(editor.model, editor.tok), before)
    monkeypatch.undo()
    metrics, _, _ = getattr(editor, method)(**SINGLE_EDIT, verbose=False)
    assert metrics[0]["post"]["rewrite_acc"] == [1.0]


def test_a_folder_is_loaded_whatever_it_is_called(
    hparams: Any, tiny_folder: Path, workplace: Path
) -> None:
    from rose_easyedit import BaseEditor

    # EasyEdit would take it for a T5 by this name
    folder = shutil.copytree(tiny_folder, workplace / "t5-gpt-runs" / "model")
    hparams.model_name = str(folder)
    editor = BaseEditor.from_hparams(hparams)
    metrics, _, weights = editor.batch_edit(**FACTS, verbose=False)
    assert metrics[-1]["post"]["rewrite_acc"] == [1.0]
    assert weights.delta.provenance.hparams["model_name"] == str(folder)
    assert hparams.model_name == str(folder)


def test_easyedit_writes_its_logs_and_nothing_else_is_written(editor: Any, workplace: Path) -> None:
    editor.edit(**SINGLE_EDIT, verbose=False)
    assert [path.name for path in workplace.iterdir()] == ["logs"]
    assert {p.name for p in (workplace / "logs").iterdir()} <= {"run.log", "results.json"}


def test_registering_twice_changes_nothing_more() -> None:
    register()
    from easyeditor.editors.batch_editor import BatchEditor
    from easyeditor.util.alg_dict import ALG_DICT

    algorithms, batchable = dict(ALG_DICT), BatchEditor.is_batchable_method
    register()
    assert ALG_DICT == algorithms and ALG_DICT["RoSE"] is apply_rose_to_model
    assert BatchEditor.is_batchable_method is batchable
    assert batchable("RoSE") and batchable("MEMIT") and not batchable("ROME")


def test_the_editor_is_a_plain_subclass_with_the_methods_that_the_host_has() -> None:
    from rose_easyedit import BaseEditor

    register()
    from easyeditor import BaseEditor as Host

    ways = {"edit", "edit_requests", "batch_edit", "normal_edit", "generate_edit", "edit_dataset"}
    own = {name for name in vars(BaseEditor) if not name.startswith("_")}
    assert own == {name for name in ways if hasattr(Host, name)} >= {"edit", "batch_edit"}
    for name in own:
        assert inspect.signature(getattr(BaseEditor, name)) == inspect.signature(
            getattr(Host, name)
        )
    assert "RoSE among its methods" in str(inspect.getdoc(BaseEditor))
    assert pickle.loads(pickle.dumps(BaseEditor)) is BaseEditor


def test_other_methods_run_through_the_same_editor(tiny_folder: Path, workplace: Path) -> None:
    from rose_easyedit import BaseEditor

    register()
    from easyeditor import FTHyperParams

    folder = shutil.copytree(tiny_folder, workplace / "tiny-llama")
    layer = "model.layers.{}"
    fine_tuning = FTHyperParams(
        alg_name="FT", model_name=str(folder), device="cpu", layers=[2], num_steps=2, lr=1e-3,
        weight_decay=0, kl_factor=0, norm_constraint=False, batch_size=1,
        rewrite_module_tmp=f"{layer}.mlp.down_proj.weight", layer_module_tmp=layer,
        mlp_module_tmp=f"{layer}.mlp", attn_module_tmp=f"{layer}.self_attn",
        ln_f_module="model.norm", lm_head_module="lm_head",
        **({"objective_optimization": "target_new"} if knows_sequential_edit() else {}),
    )  # fmt: skip
    editor = BaseEditor.from_hparams(fine_tuning)
    metrics, _, weights = editor.edit(**SINGLE_EDIT, verbose=False)
    assert set(metrics[0]) >= {"pre", "post", "requested_rewrite"}
    assert type(weights) is dict


@pytest.mark.parametrize("copied", [False, True])
def test_apply_rose_to_model(
    tiny_llama: Any, tiny_tokenizer: Any, hparams: Any, copied: bool
) -> None:
    before = snapshot(tiny_llama, tiny_tokenizer)
    edited, weights = apply_rose_to_model(tiny_llama, tiny_tokenizer, REQUESTS, hparams, copied)
    assert answers(edited, tiny_tokenizer, FACTS["prompts"]) == FACTS["target_new"]
    assert (edited is tiny_llama) is not copied
    changed = differing(tiny_llama.state_dict(), before["weights"])
    assert changed == ([] if copied else list(weights.delta.layers))


def test_the_edit_can_be_applied_again_after_a_host_has_taken_it_off(
    tiny_llama: Any, tiny_tokenizer: Any, hparams: Any
) -> None:
    before = snapshot(tiny_llama, tiny_tokenizer)
    model, weights = apply_rose_to_model(tiny_llama, tiny_tokenizer, REQUESTS, hparams)
    with torch.no_grad():  # as EasyEdit's own BaseEditor does
        for name, tensor in weights.items():
            model.get_parameter(name)[...] = tensor
    weights.delta.apply(model)
    assert answers(model, tiny_tokenizer, FACTS["prompts"]) == FACTS["target_new"]
    weights.delta.revert(model)
    assert_same(snapshot(model, tiny_tokenizer), before)


def test_the_edit_does_not_depend_on_the_padding_side(
    tiny_llama: Any, tiny_tokenizer: Any, hparams: Any
) -> None:
    factors = {}
    for side in ("left", "right"):
        tokenizer = copy.deepcopy(tiny_tokenizer)
        tokenizer.padding_side = side
        _, weights = apply_rose_to_model(tiny_llama, tokenizer, REQUESTS, hparams, copy=True)
        assert tokenizer.padding_side == side
        factors[side] = weights.delta.layers
    for name, left in factors["left"].items():
        assert torch.equal(left.left, factors["right"][name].left)
        assert torch.equal(left.right, factors["right"][name].right)


@pytest.mark.model
def test_the_embedded_model() -> None:
    from rose_easyedit import BaseEditor

    facts: dict[str, Any] = dict(
        prompts=["Albert Einstein is a citizen of", "The mother tongue of Albert Einstein is"],
        subject=["Albert Einstein", "Albert Einstein"],
        target_new=["Japan", "Spanish"],
        ground_truth=["Switzerland", "German"],
    )
    hparams = RoSEHyperParams.from_hparams("smollm2-135m")
    editor = BaseEditor.from_hparams(hparams)
    before = snapshot(editor.model, editor.tok)
    metrics, model, weights = editor.batch_edit(**facts, verbose=False)
    assert_same(snapshot(editor.model, editor.tok), before)
    assert [m["pre"]["rewrite_acc"] for m in metrics] == [[0.0]] * 2
    assert [m["post"]["rewrite_acc"] for m in metrics] == [[1.0]] * 2
    with weights.delta.applied(model):
        assert answers(model, editor.tok, facts["prompts"]) == facts["target_new"]
    assert_same(snapshot(editor.model, editor.tok), before)
