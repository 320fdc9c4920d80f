"""The unit of stage 1: the spread of each coordinate over generic subjects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import FACTS, build_model, settings

from rose_easyedit.errors import RoSEError
from rose_easyedit.forward.activations import frozen
from rose_easyedit.method.edit import solve_edit
from rose_easyedit.method.generic import generic_subjects, held_out_subjects
from rose_easyedit.method.prepared import Prepared
from rose_easyedit.method.stage1.sinks import usual_norm
from rose_easyedit.method.stage1.targets import compute_targets
from rose_easyedit.method.stage1.units import coordinate_spread, subject_unit
from rose_easyedit.models.loading import load_model


def test_a_unit_is_the_standard_deviation_of_a_coordinate() -> None:
    hidden = torch.tensor([[100.0, 1.0], [104.0, 1.0], [96.0, 3.0], [100.0, 3.0]])
    torch.testing.assert_close(coordinate_spread(hidden), torch.tensor([8.0**0.5, 1.0]))


def test_what_all_subjects_share_is_no_part_of_it() -> None:
    own = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    shared = torch.full((8,), 1000.0)
    torch.testing.assert_close(
        coordinate_spread(own + shared), coordinate_spread(own), rtol=1e-3, atol=0
    )


def test_attention_sinks_do_not_count() -> None:
    hidden = torch.randn(30, 4, generator=torch.Generator().manual_seed(0)) + 2
    with_sink = torch.cat([hidden, torch.full((1, 4), 5000.0)])
    torch.testing.assert_close(coordinate_spread(with_sink), coordinate_spread(hidden))


def test_a_coordinate_in_which_subjects_agree_keeps_some_room() -> None:
    hidden = torch.tensor([[1.0, 5.0, 7.0, 0.0], [-1.0, 5.0, 7.0, 0.0]])
    torch.testing.assert_close(coordinate_spread(hidden), torch.tensor([1.0, 0.05, 0.05, 0.05]))


@pytest.mark.parametrize("value", [3.0, float("nan")])
def test_subjects_that_the_model_cannot_tell_apart_are_refused(value: float) -> None:
    with pytest.raises(RoSEError, match="tell them apart.*statistics_subjects"):
        coordinate_spread(torch.full((5, 4), value))


def test_a_unit_scales_with_the_residual_stream() -> None:
    """What makes one rate fit all models."""
    _, tokenizer = load_model("tiny-random")
    model = build_model("llama-tied", vocab_size=len(tokenizer))
    units = []
    for factor in (1.0, 10.0):
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if name.endswith(("embed_tokens.weight", "o_proj.weight", "down_proj.weight")):
                    weight *= factor
        with frozen(model):
            units.append(subject_unit(Prepared.of(model, tokenizer, settings())))
    torch.testing.assert_close(units[1], 10 * units[0], rtol=2e-2, atol=0)


def test_own_subjects_take_the_place_of_the_built_in_ones(tmp_path: Path) -> None:
    names = [f"Person {i}" for i in range(13)]
    (tmp_path / "people.txt").write_text("\n".join([*names, "", names[0]]), "utf-8")
    for path, model in ((str(tmp_path / "people.txt"), ""), ("people.txt", str(tmp_path))):
        assert held_out_subjects(path, model) == [names[0], names[6], names[12]]
        assert generic_subjects(path, model) == [n for i, n in enumerate(names) if i % 6]


def test_too_few_own_subjects_are_refused(tmp_path: Path) -> None:
    (tmp_path / "people.txt").write_text("Ada\nBob\n", "utf-8")
    with pytest.raises(RoSEError, match="statistics_subjects .* names 2 subjects; give 8 or more"):
        generic_subjects(str(tmp_path / "people.txt"))


def test_a_file_of_subjects_that_cannot_be_read_is_named() -> None:
    with pytest.raises(RoSEError, match="statistics_subjects 'nowhere.txt' cannot be read"):
        generic_subjects("nowhere.txt")


@pytest.mark.parametrize("family", ["llama-untied", "gemma2"])
def test_what_a_layer_lacks_is_told_in_units(family: str, tiny_tokenizer: Any) -> None:
    model, hparams = build_model(family), settings(n_contexts=3, layers=[1, 2])
    targets = compute_targets(model, tiny_tokenizer, FACTS[:1], hparams)
    edit = solve_edit(model, tiny_tokenizer, targets, hparams, check=False)
    lacking = (targets.values - targets.unedited[0]) / targets.unit  # [contexts, d]
    first = edit.provenance.layers[0]
    assert first.columns == len(lacking) == 3
    assert first.residual == pytest.approx(float(lacking.norm(dim=1).mean()), rel=1e-4)


def test_it_is_read_once_for_each_model(tiny_tokenizer: Any, own_cache: Path) -> None:
    model = build_model("llama-tied")
    hparams = settings(alignment={"protected_directions": 3, "statistics_tokens": 200})
    passes: list[int] = []
    model.base_model.register_forward_pre_hook(lambda *_: passes.append(1))

    def read(model: Any) -> tuple[Any, float]:
        with frozen(model):
            prepared = Prepared.of(model, tiny_tokenizer, hparams)
            return subject_unit(prepared), usual_norm(prepared)

    unit, usual = read(model)
    assert passes and len(list((own_cache / "units").glob("*.safetensors"))) == 2
    passes.clear()
    again, usual_again = read(model)
    assert not passes and torch.equal(again, unit) and usual_again == usual
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.mul_(3.0)
    other, usual_of_other = read(model)  # another model, which its weights tell
    assert passes and not torch.equal(other, unit) and usual_of_other != usual


def test_a_damaged_reading_is_read_again(
    tiny_tokenizer: Any, own_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = build_model("llama-tied")
    hparams = settings(alignment={"protected_directions": 3, "statistics_tokens": 200})
    with frozen(model):
        prepared = Prepared.of(model, tiny_tokenizer, hparams)
        usual = usual_norm(prepared)
        [path] = (own_cache / "units").glob("*.safetensors")
        path.write_bytes(path.read_bytes()[:-2])
        assert usual_norm(prepared) == usual
    assert "is damaged" in caplog.text
