"""What a method of EasyEdit's is given, by a model's settings of ours; no EasyEdit needed."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_models import build_model

from rose_easyedit.config.hparams import RoSEHyperParams
from rose_easyedit.easyedit.settings import (
    METHODS,
    EasyEditSettings,
    easyedit_faults,
    host_hparams,
    host_name,
)
from rose_easyedit.easyedit.statistics import layer_statistics, moment_of
from rose_easyedit.errors import RoSEError
from rose_easyedit.method.stage2.statistics import spectrum_of
from rose_easyedit.models.architectures import read_architecture


@dataclass
class Locating:
    """Fields as the settings of MEMIT, ROME and PMET have them."""

    alg_name: str
    model_name: str
    device: str
    layers: list[int]
    rewrite_module_tmp: str
    mlp_module_tmp: str
    attn_module_tmp: str
    lm_head_module: str
    mom2_update_weight: Any
    v_loss_layer: int
    v_lr: float


@dataclass
class Inner:
    """Fields as the settings of UltraEdit, WISE and GRACE have them."""

    alg_name: str
    inner_params: list[str]
    batch_size: int
    batch_size_once: int = 0


def made(kind: Any, algorithm: str, model: str = "llama-tied", **settings: Any) -> Any:
    hparams = RoSEHyperParams.from_hparams("tiny-random").with_overrides(
        layers=[1, 2, 3], alignment={"covariance_weight": 7.0}
    )
    asked = EasyEditSettings(algorithm, settings=settings)
    return host_hparams(kind, asked, read_architecture(build_model(model)), hparams, 6)


def test_what_the_model_decides_is_filled_in() -> None:
    found = made(Locating, "MEMIT", v_lr=0.5, layers=None)
    assert found == Locating(
        alg_name="MEMIT",
        model_name="llama-llama",
        device="cpu",
        layers=[1, 2, 3],
        rewrite_module_tmp="model.layers.{}.mlp.down_proj",
        mlp_module_tmp="model.layers.{}.mlp",
        attn_module_tmp="model.layers.{}.self_attn",
        lm_head_module="model.embed_tokens",
        mom2_update_weight=7.0,
        v_loss_layer=3,
        v_lr=0.5,
    )
    assert made(Locating, "MEMIT", "llama-untied", v_lr=0.5).lm_head_module == "lm_head"
    assert made(Locating, "ROME", v_lr=0.5).layers == [2]
    assert made(Locating, "ROME", v_lr=0.5, layers=[3]).layers == [3]
    assert made(Locating, "EAMET", v_lr=0.5).mom2_update_weight == [7.0, 7.0, 7.0]
    gpt2 = made(Locating, "PMET", "gpt2", v_lr=0.5)
    assert gpt2.mlp_module_tmp == gpt2.rewrite_module_tmp == "transformer.h.{}.mlp.c_proj"
    assert gpt2.attn_module_tmp == "transformer.h.{}.attn.c_proj"
    assert made(Locating, "FT", v_lr=0.5).rewrite_module_tmp.endswith(".{}.mlp.down_proj.weight")


def test_inner_parameters_are_named_as_each_method_reads_them() -> None:
    assert made(Inner, "GRACE").inner_params == ["model.layers[3].mlp.down_proj.weight"]
    found = made(Inner, "ULTRAEDIT")
    assert found.inner_params == [
        f"model.layers.{layer}.mlp.{kind}_proj" for kind in ("gate", "up") for layer in (2, 3)
    ]
    assert (found.batch_size, found.batch_size_once) == (6, 1)


@pytest.mark.parametrize("model", ["gpt2", "gptj", "gpt_neox-serial", "qwen3", "gemma2", "phi3"])
def test_every_family_has_its_modules_found(model: str) -> None:
    editable = read_architecture(build_model(model))
    assert ("gpt2" in host_name(editable)) == (model == "gpt2")
    for algorithm in METHODS:
        found = made(Locating, algorithm, model, v_lr=0.5)
        for name in (found.mlp_module_tmp, found.attn_module_tmp, found.lm_head_module):
            editable.model.get_submodule(name.format(1))


def test_what_easyedit_does_not_know_or_lacks_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        made(Locating, "MEMIT", v_lr=0.5, newer=1)
    assert "Locating of this EasyEdit has no newer, which is left out" in caplog.text
    with pytest.raises(RoSEError, match=r"v_lr.*give what is missing as \+easyedit.settings"):
        made(Locating, "MEMIT")


def test_a_method_is_refused_before_a_model_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "models" / "memit").mkdir(parents=True)

    def fault(folder: Path | None = tmp_path, **words: Any) -> str:
        return " ".join(easyedit_faults(EasyEditSettings(**words), folder))

    assert fault() == fault(algorithm="MEMIT") == fault(None) == ""
    assert "choose one of MEMIT, AlphaEdit" in fault(algorithm="memit")
    assert "easyeditor is not installed; put a clone" in fault(None, algorithm="MEMIT")
    assert "does not have; put a clone" in fault(algorithm="AlphaEdit")
    assert "which is no file" in fault(algorithm="MEMIT", file="no.yaml")
    assert "easyedit.file is set, but easyedit.algorithm is not" in fault(file="no.yaml")


@pytest.mark.parametrize("n_keys", [5, 40])
def test_second_moments_are_those_of_the_keys(n_keys: int) -> None:
    keys = torch.randn(n_keys, 8, generator=torch.Generator().manual_seed(0))
    moment = keys.T @ keys
    spectrum = spectrum_of(keys)
    torch.testing.assert_close(moment_of(spectrum, invertible=False), moment)
    floor = 1e-3 * moment.trace() / 8
    torch.testing.assert_close(moment_of(spectrum, invertible=True), moment + floor * torch.eye(8))


def test_statistics_of_another_module_are_none() -> None:
    given = torch.eye(2)
    statistics = layer_statistics({"a": given})
    found: SimpleNamespace = statistics(None, None, "a", "stats", "wikipedia", to_collect=["mom2"])
    assert torch.equal(found.mom2.moment(), given) and found.mom2.moment() is not given
    with pytest.raises(RoSEError, match="no statistics of 'b', only of a"):
        statistics(None, None, "b")
