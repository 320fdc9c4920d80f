"""What users of Hydra know works as they know it; docs/sweeps.md has the table."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest
from experiments import QUICK, Runs
from omegaconf import OmegaConf

from rose_easyedit.errors import RoSEError
from rose_easyedit.experiment.callback import JobsCallback
from rose_easyedit.experiment.job_list import listed_jobs
from rose_easyedit.experiment.main import main
from rose_easyedit.experiment.summary_table import read_rows

SWEEP = ("-m", *QUICK, "alignment=identity,covariance")
pytestmark = pytest.mark.usefixtures("folder", "drawn")


def alone(sweep: Path, number: int) -> list[str]:
    """The words that repeat a job of a sweep by itself."""
    return shlex.split(read_rows(sweep)[number].command)[1:]


@pytest.fixture
def groups(tmp_path: Path) -> Path:
    """A folder with a method and a primary configuration of one's own."""
    own = tmp_path / "own groups"
    (own / "method").mkdir(parents=True)
    (own / "method" / "mine.yaml").write_text("# @package hparams\nseed: 4\n")
    (own / "method" / "typo.yaml").write_text("# @package hparams\nsed: 4\n")
    (own / "study.yaml").write_text("defaults: [config, _self_]\nname: study\n")
    return own


def test_the_folder_of_a_sweep_is_the_one_that_hydra_is_told(
    runs: Runs, tmp_path: Path, folder: Path
) -> None:
    there = tmp_path / "there"
    assert main([*SWEEP, f"hydra.sweep.dir={there}"]) == 0
    assert (there / "multirun.yaml").is_file() and len(listed_jobs(there)) == 2
    assert not folder.exists()
    assert f"hydra.run.dir={there}" in alone(there, 1)
    assert main(alone(there, 1)) == 0
    assert [job.kept for job in listed_jobs(there)] == [False, True]
    assert not folder.exists()


def test_the_folder_of_a_job_is_the_one_that_hydra_is_told(
    runs: Runs, tmp_path: Path, folder: Path
) -> None:
    there = tmp_path / "there"
    assert main([*QUICK, "alignment=identity", f"hydra.run.dir={there}"]) == 0
    assert (there / "summary.json").is_file() and len(listed_jobs(there)) == 1
    assert not folder.exists()


def test_a_sweep_that_was_moved_or_copied_goes_on(runs: Runs, tmp_path: Path, folder: Path) -> None:
    runs.raising = {"covariance": MemoryError("gone")}
    assert main(SWEEP) == 1
    runs.raising = {}
    shutil.copytree(folder, tmp_path / "copied")
    assert main([*SWEEP, f"folder={tmp_path / 'copied'}"]) == 0
    assert runs.done == ["identity", "covariance"]
    folder.rename(tmp_path / "moved")
    assert main([*SWEEP, "name=moved"]) == 0
    assert runs.done == ["identity", "covariance", "covariance"]
    assert [row.state for row in read_rows(tmp_path / "moved")] == ["finished"] * 2


def test_a_configuration_of_ones_own_is_named_and_kept_in_the_command(
    runs: Runs, tmp_path: Path, groups: Path
) -> None:
    words = ["--config-dir", str(groups), "--config-name", "study"]
    quick = [word for word in SWEEP if not word.startswith("name=")]
    assert main([*words, *quick, "method=mine"]) == 0
    sweep = tmp_path / "study"
    assert alone(sweep, 0)[:4] == words
    assert main(alone(sweep, 0)) == 0
    assert [job.kept for job in listed_jobs(sweep)] == [True, False]


@pytest.mark.parametrize("flag", ["--config-dir", "-cd"])
def test_faults_beside_groups_of_ones_own_are_told(
    flag: str, groups: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = [flag, str(groups)]
    assert main([*own, "method=mime"]) == 2
    assert "did you mean method=mine?" in capsys.readouterr().err
    assert main([*own, "method=typo"]) == 2
    assert "'sed'" in capsys.readouterr().err
    assert main(["method=mine"]) == 2
    assert "method=mine does not exist" in capsys.readouterr().err
    assert main([flag, str(groups / "none"), "method=mine"]) == 2
    assert "not found" in capsys.readouterr().err


def test_a_search_path_is_a_folder_of_groups_too(runs: Runs, groups: Path, folder: Path) -> None:
    where = f'hydra.searchpath=["file://{groups}"]'
    assert main([*SWEEP, where, "method=mine"]) == 0
    assert where in alone(folder, 0)
    assert main(alone(folder, 0)) == 0


def test_the_full_error_is_raised_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from hydra.errors import HydraException

    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(HydraException, match="identty"):
        main(["alignment=identty"])
    with pytest.raises(RoSEError, match="through is 'peft'"):
        main(["through=peft"])


def test_the_choices_of_a_group_complete(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COMP_LINE", "rose-experiment -m hparams=la")
    assert main(["--shell-completion", "query=bash"]) == 0
    assert capsys.readouterr().out.split() == ["hparams=laboratory"]
    monkeypatch.setenv("COMP_LINE", "rose-experiment hparams.alignment.stre")
    assert main(["-sc", "query=bash"]) == 0
    assert capsys.readouterr().out.split() == ["hparams.alignment.strength="]


def test_the_callback_alone_lists_nothing(tmp_path: Path) -> None:
    # as when another program composes our configuration and runs it
    JobsCallback().on_run_start(OmegaConf.create({"folder": str(tmp_path / "x")}))
    assert not (tmp_path / "x").exists()


def test_a_fault_of_ours_before_the_first_job_is_no_warning_of_hydras(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rose_easyedit.experiment.callback.run_id", lambda config: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(SWEEP)
    assert runs.done == []
