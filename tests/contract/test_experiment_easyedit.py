"""An experiment through the real EasyEdit: our edit, byte for byte, and its own methods."""

from __future__ import annotations

import importlib.util
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from rose_easyedit.experiment.identity import run_id
from rose_easyedit.experiment.job import run_once
from rose_easyedit.experiment.metrics import main_metrics
from rose_easyedit.experiment.models_once import LoadedModel
from rose_easyedit.experiment.plan import compose_job
from rose_easyedit.experiment.run import compute, requests_of, run_experiment, select_data
from rose_easyedit.experiment.status import BROKEN_OFF, FINISHED, RUNS, read_status
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


def test_a_method_of_easyedits_is_evaluated_and_leaves_no_edit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = compose_job([*WORDS, "method=easyedit/ft", "evaluation.geometry=true"])
    with caplog.at_level(logging.INFO):
        report = run_experiment(config, tmp_path, NoTracker())
    written = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert written == {"config.yaml", "result.json"}
    result = json.loads((tmp_path / "result.json").read_text())
    assert report["metrics"] == main_metrics(result["summary"])
    assert report["metrics"]["kl"] > 0
    assert set(report["seconds"]) == {"model", "baseline", "edit", "evaluation"}
    said = "EasyEdit's FT leaves no edit: without delta.safetensors there is no diagnosis"
    assert caplog.text.count(said) == 1


def test_a_run_of_easyedits_is_found_again(tmp_path: Path) -> None:
    config = compose_job([*WORDS, "resume=true", "method=easyedit/ft"])
    first = run_once(config, tmp_path, 0, ["method=easyedit/ft"])
    assert (first.state, first.has_edit) == (FINISHED, False), first.error
    assert run_once(config, tmp_path, 0, ["method=easyedit/ft"]) == first
    folder = tmp_path / RUNS / first.id
    (folder / "result.json").unlink()
    broken = read_status(folder)
    assert broken is not None and broken.state == BROKEN_OFF

    failing = compose_job([*WORDS, "method=easyedit/rome", "hparams.layers=[9]"])
    failed = run_once(failing, tmp_path, 1, ["method=easyedit/rome"])
    assert failed.state == "failed" and "EasyEdit's ROME failed" in failed.error


def test_a_run_of_easyedits_is_named_by_what_it_depends_on(tmp_path: Path) -> None:
    def of(*words: str) -> str:
        return run_id(compose_job([*WORDS, *words]))

    file = tmp_path / "ft.yaml"
    file.write_text("lr: 1")
    named = f"easyedit.file={file}"
    names = [
        of(),
        of("method=easyedit/ft"),
        of("method=easyedit/rome"),
        of("method=easyedit/ft", "easyedit.settings.lr=0.1"),
        of("method=easyedit/ft", named),
    ]
    file.write_text("lr: 2")
    names.append(of("method=easyedit/ft", named))
    assert len(set(names)) == len(names)
    assert of("method=easyedit/ft") == names[1]
