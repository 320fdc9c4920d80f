"""An experiment through the real EasyEdit makes the edit that it makes natively."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from rose_easyedit.experiment.models_once import LoadedModel
from rose_easyedit.experiment.plan import compose_job
from rose_easyedit.experiment.run import compute, requests_of, run_experiment, select_data
from rose_easyedit.tracking.tracker import NoTracker

pytestmark = [
    pytest.mark.contract,
    pytest.mark.skipif(
        importlib.util.find_spec("easyeditor") is None,
        reason="easyeditor is not installed (pip install --no-deps easyeditor==0.0.1.dev0)",
    ),
    # EasyEdit calls deprecated functions and leaves files open; its warnings are not ours to mend.
    pytest.mark.filterwarnings("ignore"),
]
WORDS = ["hparams=tiny-random", "debug=fast", "data.subjects=2"]


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory; EasyEdit's log files are closed afterwards."""
    monkeypatch.setenv("ROSE_EASYEDIT_CACHE", str(tmp_path / "cache"))
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    yield here
    logger = logging.getLogger("easyeditor.editors.editor")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()


@pytest.mark.parametrize("method", ["rose", "memit"])
def test_both_ways_give_the_same_edit_byte_for_byte(
    method: str, tmp_path: Path, workplace: Path
) -> None:
    models, written = LoadedModel(), []
    for through in ("native", "easyedit"):
        config = compose_job([*WORDS, f"method={method}", f"through={through}"])
        folder = tmp_path / through
        folder.mkdir()
        run_experiment(config, folder, NoTracker(), models=models)
        written.append((folder / "delta.safetensors").read_bytes())
    assert written[0] == written[1]
    assert list(workplace.iterdir()) == []


def test_facts_that_do_not_share_a_batch_are_refused() -> None:
    from rose_easyedit.errors import RoSEError

    config = compose_job([*WORDS, "through=easyedit", "hparams.batch_size=3"])
    model, tokenizer = LoadedModel().get(config.hparams)
    requests = requests_of(select_data(config.data).edited)
    with pytest.raises(RoSEError, match="batch_size that holds them"):
        compute(model, tokenizer, requests, config)
