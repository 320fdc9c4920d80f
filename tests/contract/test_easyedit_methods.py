"""EasyEdit's own methods, by its own functions: they write, and the model is as before afterwards.

With a clone each writes six facts into the real SmolLM2; what the release has, into a tiny model.
"""

from __future__ import annotations

import importlib.util
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from rose_easyedit.easyedit import methods
from rose_easyedit.easyedit.importing import easyeditor_folder, import_easyeditor
from rose_easyedit.easyedit.methods import edited_by_easyedit
from rose_easyedit.easyedit.settings import METHODS, EasyEditSettings
from rose_easyedit.errors import RoSEError
from rose_easyedit.evaluation.facts import load_facts
from rose_easyedit.experiment.plan import compose_job
from rose_easyedit.experiment.schema import ExperimentConfig
from rose_easyedit.models.loading import load_model
from rose_easyedit.models.lock import model_lock

pytestmark = [
    pytest.mark.contract,
    pytest.mark.skipif(
        importlib.util.find_spec("easyeditor") is None,
        reason="easyeditor is not installed (pip install --no-deps easyeditor==0.0.1.dev0)",
    ),
    # EasyEdit calls deprecated functions; its warnings are not ours to mend.
    pytest.mark.filterwarnings("ignore"),
]
FOLDER = easyeditor_folder()
CLONE = FOLDER is not None and (FOLDER / "util" / "device.py").is_file()
# The choice of method= to fewer steps than its settings have.
FEWER: dict[str, tuple[str, ...]] = {
    "memit": ("v_num_grad_steps=3",),
    "alphaedit": ("v_num_grad_steps=3",),
    "ft": (),
    "rome": ("v_num_grad_steps=3", "context_template_length_params=[[5,5]]"),
    "r_rome": ("v_num_grad_steps=3", "context_template_length_params=[[5,5]]"),
    "emmet": ("v_num_grad_steps=3",),
    "ultraedit": (),
    "lora": ("num_steps=6",),
    "pmet": ("v_num_grad_steps=3",),
    "wise": ("n_iter=2",),
    "grace": ("n_iter=3",),
    "eamet": ("v_num_grad_steps=3",),
    "sphere": ("v_num_grad_steps=3",),
}
# AdaLoRA, which is the release's LoRA, is refused by today's PEFT.
RUNS = [name for name in FEWER if CLONE or name in ("memit", "ft", "rome")]


@pytest.fixture(scope="module")
def pair() -> tuple[Any, Any]:
    """The model that methods are tried on, and its tokenizer; leave them as they are."""
    return load_model("embedded" if CLONE else "tiny-random")


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    if not CLONE:
        monkeypatch.setenv("ROSE_EASYEDIT_CACHE", str(tmp_path / "cache"))
    yield here


def job(name: str, *words: str) -> ExperimentConfig:
    base = "smollm2-135m" if CLONE else "tiny-random"
    fewer = [f"easyedit.settings.{word}" for word in FEWER[name]]
    if not CLONE:
        words = ("hparams.alignment.statistics_tokens=1024", *words)
    return compose_job([f"hparams={base}", f"method=easyedit/{name}", *fewer, *words])


def requests(number: int = 6) -> list[Any]:
    return [fact.to_request() for fact in load_facts("validation")[:number]]


def whole_state(model: Any, tokenizer: Any) -> list[Any]:
    """All that a method could leave behind, but for the weights."""
    return [
        list(model.state_dict()),
        [(name, type(module), module.training) for name, module in model.named_modules()],
        [len(module._forward_hooks) for module in model.modules()],
        [(parameter.requires_grad, parameter.grad) for parameter in model.parameters()],
        model.config.to_dict(),
        model.name_or_path,
        (tokenizer.padding_side, tokenizer.pad_token, tokenizer.unk_token),
        random.getstate(),
        numpy.random.get_state()[1].tolist(),
        torch.get_rng_state().tolist(),
        os.getcwd(),
        os.listdir(),
    ]


def answer(model: Any, tokenizer: Any) -> torch.Tensor:
    rows = [torch.tensor([tokenizer.encode(request.prompt)]) for request in requests()]
    # GRACE's layer draws random numbers when it is asked
    with torch.no_grad(), torch.random.fork_rng():
        return torch.stack([model(ids).logits[0, -1].clone() for ids in rows])


@pytest.mark.parametrize("name", RUNS)
def test_a_method_writes_and_the_model_is_as_before(name: str, pair: tuple[Any, Any]) -> None:
    model, tokenizer = pair
    config = job(name)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    state, unedited = whole_state(model, tokenizer), answer(model, tokenizer)
    with edited_by_easyedit(model, tokenizer, requests(), config.easyedit, config.hparams):
        edited = answer(model, tokenizer)
        assert not model.training
    assert not torch.equal(edited, unedited)
    assert torch.equal(answer(model, tokenizer), unedited)
    assert whole_state(model, tokenizer) == state
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", ["memit", "alphaedit"])
def test_nothing_is_left_over_for_the_next_call(name: str, pair: tuple[Any, Any]) -> None:
    if name not in RUNS:
        pytest.skip(f"the easyeditor that is installed has no {name}")
    model, tokenizer = pair
    answers = []
    for number in (2, 3, 2):
        config = job(name)
        with edited_by_easyedit(
            model, tokenizer, requests(number), config.easyedit, config.hparams
        ):
            answers.append(answer(model, tokenizer))
    assert torch.equal(answers[0], answers[2])
    assert not torch.equal(answers[0], answers[1])


def test_a_failure_is_told_in_easyedits_words(pair: tuple[Any, Any]) -> None:
    model, tokenizer = pair
    config = job("rome")
    config.easyedit.settings["fact_token"] = "nowhere"
    state, unedited = whole_state(model, tokenizer), answer(model, tokenizer)
    words = "EasyEdit's ROME failed at .*fact_token=nowhere not recognized.*rome/.*py, line"
    with (
        pytest.raises(RoSEError, match=words),
        edited_by_easyedit(model, tokenizer, requests(1), config.easyedit, config.hparams),
    ):
        raise AssertionError("it was to fail")
    assert torch.equal(answer(model, tokenizer), unedited)
    assert whole_state(model, tokenizer) == state


def test_what_it_cannot_do_is_refused_by_name() -> None:
    if CLONE:
        pytest.skip("a clone has all of them")
    with pytest.raises(RoSEError, match="'AlphaEdit', which the EasyEdit in .* does not have"):
        job("alphaedit")


def test_a_hparams_file_of_easyedits_takes_the_settings_place(
    pair: tuple[Any, Any], tmp_path: Path
) -> None:
    model, tokenizer = pair
    layer = 9 if CLONE else 2
    file = tmp_path / "rome.yaml"
    file.write_text(
        "alg_name: ROME\nmodel_name: ./hugging_cache/llama\nstats_dir: ./data\ndevice: 0\n"
        f"layers: [{layer}]\nfact_token: subject_last\nv_num_grad_steps: 2\nv_lr: 5e-1\n"
        "v_loss_layer: 3\nv_weight_decay: 1e-3\nclamp_norm_factor: 4\nkl_factor: 0.0625\n"
        "mom2_adjustment: false\ncontext_template_length_params: [[5, 5]]\n"
        "rewrite_module_tmp: model.layers.{}.mlp.down_proj\nlayer_module_tmp: model.layers.{}\n"
        "mlp_module_tmp: model.layers.{}.mlp\nattn_module_tmp: model.layers.{}.self_attn\n"
        "ln_f_module: model.norm\nlm_head_module: lm_head\nmom2_dataset: wikipedia\n"
        "mom2_n_samples: 100000\nmom2_dtype: float32\n"
    )
    config = job("rome", f"easyedit.file={file}")
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with edited_by_easyedit(model, tokenizer, requests(1), config.easyedit, config.hparams):
        changed = [k for k, v in model.state_dict().items() if not torch.equal(v, before[k])]
    assert changed == [f"model.layers.{layer}.mlp.down_proj.weight"]

    other = EasyEditSettings("MEMIT", file=str(file))
    with (
        pytest.raises(RoSEError, match="MEMITHyperParams cannot be read from"),
        edited_by_easyedit(model, tokenizer, requests(1), other, config.hparams),
    ):
        raise AssertionError("it was to fail")


def test_every_method_has_its_choice() -> None:
    from omegaconf import OmegaConf

    from rose_easyedit.config.paths import conf_dir

    files = sorted((conf_dir() / "method" / "easyedit").glob("*.yaml"))
    named = {path.stem: OmegaConf.load(path).algorithm for path in files}
    assert set(named) == set(FEWER) and set(named.values()) == set(METHODS)


def is_free(lock: Any) -> bool:
    """Whether another thread could take a lock now."""

    def take() -> None:
        taken.append(lock.acquire(blocking=False))
        if taken[0]:
            lock.release()

    taken: list[bool] = []
    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    return taken[0]


def test_other_threads_wait_for_the_model_and_for_easyedit(
    pair: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, seen, call = job("ft"), [], methods._call

    def spy(*args: Any) -> None:
        seen.append((is_free(model_lock(pair[0])), is_free(model_lock(import_easyeditor()))))
        call(*args)

    monkeypatch.setattr(methods, "_call", spy)
    with edited_by_easyedit(*pair, requests(), config.easyedit, config.hparams):
        assert not is_free(model_lock(pair[0])) and is_free(model_lock(import_easyeditor()))
    assert set(seen) == {(False, False)} and is_free(model_lock(pair[0]))
