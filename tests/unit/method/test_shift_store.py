"""Stage 1 kept on disk: the same bytes, and only for the same question."""

from __future__ import annotations

import json

import pytest
import torch
from tiny_llama import build_llama, build_tokenizer

from rose_easyedit.cache.entries import Cache, CacheEntry
from rose_easyedit.config.hparams import RoSEHyperParams
from rose_easyedit.method.edit import compute_edit
from rose_easyedit.method.stage1 import integration
from rose_easyedit.method.stage1 import targets as targets_module
from rose_easyedit.method.stage1.store import ShiftStore

REQUESTS = [
    {"prompt": "Marie Curie was born in", "subject": "Marie Curie", "target_new": "London"},
    {"prompt": "Marie Curie speaks", "subject": "Marie Curie", "target_new": "Spanish"},
    {"prompt": "Albert Einstein was born in", "subject": "Albert Einstein", "target_new": "Paris"},
]
HPARAMS = RoSEHyperParams.from_dict(
    {
        "layers": [1, 2],
        "hierarchy": {"fact_steps": 4, "subject_steps": 5, "lone_fact_share": 1.0},
        "alignment": {"protected_directions": 2, "preserved_columns": 0, "statistics_tokens": 200},
    }
)


@pytest.fixture(scope="module")
def pair():
    return build_llama(), build_tokenizer()


@pytest.fixture
def levels(monkeypatch):
    """The names of the levels that were optimised and not read."""
    done = []
    optimise = targets_module.optimise

    def counted(setting, groups, start, level):
        done.append(level.name)
        return optimise(setting, groups, start, level)

    monkeypatch.setattr(targets_module, "optimise", counted)
    return done


def edit(pair, folder, **changes):
    hparams = HPARAMS.with_overrides(**changes)
    return compute_edit(*pair, REQUESTS, hparams, store=ShiftStore(folder) if folder else None)


def same(one, other):
    assert one.provenance == other.provenance
    assert torch.equal(one.targets, other.targets)
    for name, update in one.layers.items():
        assert torch.equal(update.left, other.layers[name].left)
        assert torch.equal(update.right, other.layers[name].right)


def test_what_is_read_is_what_was_computed_byte_for_byte(pair, tmp_path, levels):
    fresh = edit(pair, None)
    first, second = edit(pair, tmp_path), edit(pair, tmp_path)
    assert levels == ["facts", "subjects"] * 2
    same(fresh, first)
    same(first, second)


def test_alignments_share_both_levels_and_hierarchies_the_facts(pair, tmp_path, levels):
    edit(pair, tmp_path)
    levels.clear()
    edit(pair, tmp_path, alignment={"constraint": "covariance", "covariance_weight": 1.0})
    edit(pair, tmp_path, hierarchy={"integration": "independent"})
    assert levels == []
    edit(pair, tmp_path, hierarchy={"subject_steps": 6, "smoothing_radius": 0.1})
    assert levels == ["subjects"]
    edit(pair, tmp_path, hierarchy={"integration": "joint"})
    assert levels == ["subjects"] * 2  # from zero, not from the facts' mean


def test_the_share_of_a_lone_fact_is_of_no_account_to_several(pair, tmp_path, levels):
    several = [request for request in REQUESTS if request["subject"] == "Marie Curie"]
    assert len(several) > 1
    for share in (1.0, 0.5):
        hparams = HPARAMS.with_overrides(hierarchy={"lone_fact_share": share})
        compute_edit(*pair, several, hparams, store=ShiftStore(tmp_path))
    assert levels == ["facts", "subjects"]


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"n_contexts": 2},
        {"layers": [0, 1]},
        {"precision": "bfloat16"},
        {"micro_batch": 2},
        {"hierarchy": {"fact_steps": 3}},
        {"hierarchy": {"kl_factor": 0.5}},
        {"hierarchy": {"fact_learning_rate": 0.05}},
    ],
)
def test_what_stage_1_depends_on_is_computed_anew(pair, tmp_path, levels, changes):
    edit(pair, tmp_path, precision="weights")
    levels.clear()
    edit(pair, tmp_path, **{"precision": "weights", **changes})
    assert list(dict.fromkeys(levels)) == ["facts", "subjects"]  # in chunks, of a small micro-batch


def test_another_model_shares_nothing(pair, tmp_path, levels):
    edit(pair, tmp_path)
    levels.clear()
    other = build_llama()
    with torch.no_grad():
        other.get_parameter("model.layers.3.mlp.down_proj.weight").mul_(1.01)
    edit((other, pair[1]), tmp_path)
    assert levels == ["facts", "subjects"]


@pytest.mark.parametrize("damage", [b"", b"not safetensors", None])
def test_a_damaged_file_is_computed_again_and_replaced(pair, tmp_path, levels, caplog, damage):
    first = edit(pair, tmp_path)
    for path in tmp_path.glob("*.safetensors"):
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]) if damage is None else damage)
    levels.clear()
    second = edit(pair, tmp_path)
    assert levels == ["facts", "subjects"]
    assert "is damaged" in caplog.text
    same(first, second)
    edit(pair, tmp_path)
    assert levels == ["facts", "subjects"]


def test_a_folder_that_cannot_be_written_costs_no_edit(pair, tmp_path, caplog):
    file = tmp_path / "file"
    file.write_text("in the way")
    same(edit(pair, None), edit(pair, file))
    assert "not kept for the next time" in caplog.text


def test_an_entry_under_another_key_is_not_used(pair, tmp_path, levels):
    first = edit(pair, tmp_path)
    one, two = sorted(tmp_path.glob("*.safetensors"))[:2]
    contents = one.read_bytes(), two.read_bytes()
    two.write_bytes(contents[0])
    one.write_bytes(contents[1])
    levels.clear()
    same(first, edit(pair, tmp_path))
    assert levels
    assert (one.read_bytes(), two.read_bytes()) == contents


def interrupted_after(steps, monkeypatch):
    """An interrupt behind so many steps of the optimiser, counted over both levels."""
    step, left = integration._step, steps

    def counted(*args):
        nonlocal left
        step(*args)
        left -= 1
        if left == 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(integration, "_step", counted)


@pytest.mark.parametrize("changes", [{}, {"micro_batch": 3}, {"seed": 4}])
def test_an_interrupted_edit_goes_on_where_it_was_byte_for_byte(
    changes, pair, tmp_path, monkeypatch
):
    # steps enough that one subject has converged before the last interrupt
    changes = {**changes, "hierarchy": {"subject_steps": 12, "loss_threshold": 7.0}}
    counted, step = [], integration._step
    monkeypatch.setattr(integration, "_step", lambda *args: (counted.append(1), step(*args)))
    fresh = edit(pair, None, **changes)
    assert min(fresh.provenance.steps) < max(fresh.provenance.steps)
    whole, at = len(counted), (3, 1, 4, 4)  # within the facts, at the next step, and so on
    for steps in at:
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            interrupted_after(steps, patched)
            edit(pair, tmp_path, **changes)
        assert len(list(tmp_path.glob("begun-*"))) == 1
    counted.clear()
    same(fresh, edit(pair, tmp_path, **changes))
    assert len(counted) == whole - sum(steps - 1 for steps in at)  # but those that were cut off
    assert list(tmp_path.glob("begun-*")) == []


@pytest.mark.parametrize("content", ["cut", "other"])
def test_what_an_interrupt_has_left_damaged_is_computed_again(
    content, pair, tmp_path, monkeypatch, caplog
):
    fresh = edit(pair, None)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        interrupted_after(2, patched)
        edit(pair, tmp_path)
    (begun,) = tmp_path.glob("begun-*")
    if content == "cut":
        begun.write_bytes(begun.read_bytes()[:-5])
    else:  # of another optimisation, under this one's name
        entry = CacheEntry({"record": torch.zeros(2, dtype=torch.uint8)})
        Cache(tmp_path).write(begun.stem, entry)
    same(fresh, edit(pair, tmp_path))
    assert "computed again" in caplog.text
    assert list(tmp_path.glob("begun-*")) == []


def odd(tensors, name, value):
    """Tensors of an entry with another content at one place, or with another record."""
    if name in tensors:
        return {**tensors, name: value(tensors[name])}
    rest = json.loads(tensors["record"].numpy().tobytes())
    record = json.dumps({**rest, name: value(rest[name])}).encode()
    return {**tensors, "record": torch.frombuffer(bytearray(record), dtype=torch.uint8)}


ODD_SHIFTS = [
    ("deltas", lambda x: x * torch.nan),
    ("deltas", lambda x: x.half()),
    ("deltas", lambda x: x[:, :-1].contiguous()),
    ("losses", lambda x: x[:-1]),
    ("losses", lambda x: [["x"] for _ in x]),
    ("losses", lambda x: 1),
    ("steps", lambda x: [None for _ in x]),
    ("trajectories", lambda x: [x]),
    ("trajectories", lambda x: {"facts": [[{"loss": []}]]}),
    ("record", lambda x: torch.tensor([91] * 100_000, dtype=torch.uint8)),
    ("record", lambda x: x.float()),
]
ODD_CHECKPOINTS = [
    ("point", lambda x: x * torch.nan),
    ("point", lambda x: x.double()),
    ("moments", lambda x: x * torch.inf),
    ("losses", lambda x: x.to(torch.float8_e4m3fn)),
    ("steps", lambda x: x + 10**9),
    ("steps", lambda x: x.float()),
    ("converged", lambda x: x.long()),
    ("totals", lambda x: x * 100),
    ("totals", lambda x: []),
    ("totals", lambda x: [{"loss": []}]),
    ("draws", lambda x: {"Marie Curie": 10**15}),
    ("draws", lambda x: {"Marie Curie": "x"}),
    ("draws", lambda x: 3),
]


def rewrite(path, *change):
    """Puts odd tensors into an entry, as somebody who knows the format would."""
    entries = Cache(path.parent)
    tensors = entries.read(path.stem, lambda entry: dict(entry.tensors))
    entries.write(path.stem, CacheEntry(odd(tensors, *change)))


@pytest.mark.parametrize("case", range(len(ODD_SHIFTS)))
def test_odd_shifts_whose_digest_is_right_are_computed_again(case, pair, tmp_path, levels):
    first = edit(pair, tmp_path)
    for path in tmp_path.glob("*.safetensors"):
        rewrite(path, *ODD_SHIFTS[case])
    levels.clear()
    same(first, edit(pair, tmp_path))
    assert levels == ["facts", "subjects"]


@pytest.mark.parametrize("case", range(len(ODD_CHECKPOINTS)))
def test_an_odd_checkpoint_whose_digest_is_right_is_not_gone_on_from(
    case, pair, tmp_path, monkeypatch
):
    fresh = edit(pair, None, hierarchy={"smoothing_radius": 0.1})
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        interrupted_after(2, patched)
        edit(pair, tmp_path, hierarchy={"smoothing_radius": 0.1})
    (begun,) = tmp_path.glob("begun-*")
    rewrite(begun, *ODD_CHECKPOINTS[case])
    same(fresh, edit(pair, tmp_path, hierarchy={"smoothing_radius": 0.1}))
