"""Each shipped settings file loads, has layers that its model has, and says how to run it."""

from __future__ import annotations

from pathlib import Path

import pytest

from rose_easyedit.config.hparams import RoSEHyperParams
from rose_easyedit.config.paths import conf_dir, hparams_dir

# hidden layers of each model, from its published config.json, tiny.py or the laboratory
DEPTHS = {
    "smollm2-135m": 30,
    "tiny-random": 4,
    "laboratory": 6,
    "gpt2-xl": 48,
    "gpt-j-6b": 28,
    "llama-3.2-1b-instruct": 16,
    "llama-3.2-3b-instruct": 28,
    "llama-3.1-8b-instruct": 32,
    "qwen2.5-7b-instruct": 28,
    "qwen3-4b": 36,
    "qwen3-8b": 36,
    "mistral-7b-instruct-v0.3": 32,
    "gemma-3-270m": 18,
    "gemma-3-1b-it": 26,
    "gemma-2-9b-it": 42,
}
MEASURED = ("smollm2-135m", "gemma-3-270m", "laboratory")
FILES = sorted(hparams_dir().rglob("*.yaml"))
PRESETS = sorted(path.stem for path in (conf_dir() / "method").glob("*.yaml"))


def test_there_is_one_file_for_each_model() -> None:
    assert [path.stem for path in FILES] == sorted(DEPTHS)
    assert {path.parent.name for path in FILES} == {"RoSE"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_loads_by_path_and_by_name(path: Path) -> None:
    hparams = RoSEHyperParams.from_hparams(path)
    assert hparams == RoSEHyperParams.from_hparams(path.stem)
    assert hparams.alg_name == "RoSE"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_layers_are_in_the_first_half_of_the_model(path: Path) -> None:
    """Where the literature has them; a model that was measured may have others."""
    layers = RoSEHyperParams.from_hparams(path).layers
    assert layers == list(range(layers[0], layers[-1] + 1))
    assert max(layers) <= DEPTHS[path.stem] / (1.5 if path.stem in MEASURED else 2)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_header_gives_its_run_lines_and_its_standing(path: Path) -> None:
    header = "".join(line for line in path.read_text().splitlines(True) if line.startswith("#"))
    assert f"rose-edit edit --hparams {path.stem} --requests" in header
    assert f'BaseEditor.from_hparams(RoSEHyperParams.from_hparams("{path.stem}"))' in header
    assert "# Layers:" in header
    assert ("# Measured:" in header) == (path.stem in MEASURED)
    if path.stem != "tiny-random":  # a model of no use
        assert RoSEHyperParams.from_hparams(path).measured == (path.stem in MEASURED)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_preset_fits_every_model(path: Path, preset: str) -> None:
    plain = RoSEHyperParams.from_hparams(path)
    assert RoSEHyperParams.preset(preset, base=path.stem).layers == plain.layers
