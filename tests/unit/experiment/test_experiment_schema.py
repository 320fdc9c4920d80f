"""An experiment that cannot be run is refused before anything is loaded, with what was meant."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
from experiments import quick

from rose_easyedit.config.hparams import RoSEHyperParams
from rose_easyedit.errors import RoSEError
from rose_easyedit.evaluation.settings import EvaluationSettings
from rose_easyedit.experiment.keys import dotted_keys, nearest
from rose_easyedit.experiment.plan import compose_job, make_plan
from rose_easyedit.experiment.schema import (
    DiagnosisConfig,
    EvaluationConfig,
    ExperimentConfig,
)
from rose_easyedit.geometry.settings import DiagnosisSettings


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("alignment=identty", "did you mean alignment=identity?"),
        ("hparams.alignmnt.strength=1", "did you mean hparams.alignment.strength?"),
        ("strenght=1", "did you mean hparams.alignment.strength?"),
        ("+subject=1", "did you mean data.subjects?"),
        ("data.path=facts.json", "did you mean data.source?"),
        ("alignmnt=identity", "did you mean alignment?"),
        ("hparams=smollm2", "did you mean hparams=smollm2-135m?"),
        ("experiment=smok", "did you mean experiment=smoke?"),
        ("hparams.alignment.strength=strong", "could not be converted to Float"),
        ("data.subjects=two", "could not be converted to Integer"),
        ("hparams.layers=[3,1]", "list different layers"),
        ("hparams.alignment.constraint=identify", "choose one of protected"),
        ("through=peft", "through is 'peft'; choose one of native, easyedit"),
        ("data.split=tst", "data.split is 'tst'; choose one of validation, test"),
        ("data.source=facts.json", "a data file that exists"),
        ("data=file", "data.source is ''"),
        ("evaluation.forms=[essay]", "forms has 'essay'"),
        ("evaluation.autocast=int8", "evaluation.autocast is 'int8'"),
        ("evaluation.diagnosis.quantile=2", "quantile is 2"),
        ("tracking.kind=paper", "tracking.kind is 'paper'"),
        ("name=a/b", "name is 'a/b'"),
        ("name=..", "name is '..'"),
        ("name=.", "name is '.'"),
        ("data.subjects=0", "data: subjects is 0; give 1 or more"),
        ("data.at_least=-1", "data: at_least is -1; give 1 or more"),
        ("data.facts_per_subject=0", "data: facts_per_subject is 0; give 1 to 10"),
        ("data.subjects=1000", "data: 1000 subject(s) with 1 or more facts are asked for"),
        ("tracking=null", "tracking=null chooses nothing; leave it out, or choose of jsonl, none"),
        ("data=null", "data=null chooses nothing"),
        ("evaluation=null", "evaluation=null chooses nothing"),
        ("method=null", "method=null chooses nothing"),
        ("method=easyedit/memitt", "did you mean method=easyedit/memit?"),
        ("easyedit.algorithm=memit", "choose one of MEMIT, AlphaEdit"),
        ("easyedit.settings.v_lr=1", "v_lr"),
        ("hparams=null", "hparams=null chooses nothing"),
        ("hydra.sweeeper=1", "hydra.sweeeper"),
        ("alignment=identity,covariance", "add -m"),
    ],
)
def test_a_wrong_word_is_refused_with_what_would_do(word: str, meant: str) -> None:
    with pytest.raises(RoSEError) as error:
        make_plan([word], multirun=False)
    assert meant in str(error.value)
    assert "Traceback" not in str(error.value)


def test_faults_come_together() -> None:
    with pytest.raises(RoSEError) as error:
        make_plan(["alignment=identty", "nam=x"], multirun=False)
    assert "identity" in str(error.value) and "did you mean name?" in str(error.value)
    with pytest.raises(RoSEError) as error:
        make_plan(["through=x", "evaluation.batch_size=0", "data.split=y"], multirun=False)
    assert all(part in str(error.value) for part in ("through", "batch_size", "data.split"))


def test_one_wrong_job_of_a_sweep_refuses_all_of_it() -> None:
    words = ["alignment=identity", "hparams.layers=[1],[2,1]"]
    with pytest.raises(RoSEError, match="list different layers"):
        make_plan(words, multirun=True)


def test_the_split_belongs_to_the_bundled_sets(tmp_path: Path) -> None:
    file = tmp_path / "facts.json"
    file.write_text("[]")
    with pytest.raises(RoSEError, match="only the bundled sets have splits"):
        quick("data=file", f"data.source={file}", "data.split=test")


def test_a_seed_is_that_of_the_edit_and_of_the_draw() -> None:
    config = quick("seed=7", "data.seed=1")
    assert (config.hparams.seed, config.data.seed) == (7, 7)
    config = quick("data.seed=1")
    assert (config.hparams.seed, config.data.seed) == (0, 1)


def test_faults_of_the_facts_come_together_each_once() -> None:
    words = ["data.subjects=1000,2000", "hierarchy=joint,independent"]
    with pytest.raises(RoSEError) as error:
        make_plan(words, multirun=True)
    assert str(error.value).count("asked for") == 2


@pytest.mark.parametrize("words", [["name=na,nb"], ["folder=/a,/b"], ["seed=1,2", "name=${seed}"]])
def test_the_jobs_of_a_sweep_share_a_folder(words: list[str]) -> None:
    with pytest.raises(RoSEError, match="share a folder"):
        make_plan(words, multirun=True)
    assert make_plan(["name=na", "folder=/a"], multirun=True).folder == Path("/a")


@pytest.mark.parametrize("word", ["seed=range(0)", "alignment=glob(*x)"])
def test_a_sweep_has_a_job(word: str) -> None:
    with pytest.raises(RoSEError, match="has no job: see that") as error:
        make_plan([word], multirun=True)
    assert word in str(error.value)


def test_a_search_has_what_it_compares_by() -> None:
    search = ["hydra.sweeper._target_=a.Search", "hparams.alignment.strength=interval(1, 2)"]
    assert make_plan(search, multirun=True).jobs is None
    with pytest.raises(RoSEError) as error:
        make_plan([*search, "name=a,b", "evaluation.forms=[question]"], multirun=True)
    assert "name is searched" in str(error.value)
    assert "evaluation.forms lacks instruction" in str(error.value)


def test_a_sweep_is_every_combination_in_order() -> None:
    words = ["name=x", "alignment=identity,covariance", "data.subjects=1,2"]
    plan = make_plan(words, multirun=True)
    assert plan.jobs == [
        ["name=x", f"alignment={alignment}", f"data.subjects={number}"]
        for alignment in ("identity", "covariance")
        for number in (1, 2)
    ]
    assert plan.folder.name == "x"


def test_an_experiment_is_a_sweep_by_itself_and_the_command_line_has_the_last_word() -> None:
    plan = make_plan(["experiment=smoke", "alignment=protected"], multirun=False)
    assert plan.multirun
    assert plan.jobs is not None and len(plan.jobs) == 2
    assert all("alignment=protected" in job for job in plan.jobs)
    alone = make_plan(["experiment=smoke", "hydra.mode=RUN"], multirun=False)
    assert not alone.multirun


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rose_easyedit.experiment.words.find_spec", lambda name: None)
    with pytest.raises(RoSEError, match=r"pip install 'rose-easyedit\[joblib\]'"):
        make_plan(["launcher=joblib"], multirun=True)


@pytest.mark.parametrize("word", ["tracking=wandb", "tracking.kind=wandb"])
def test_wandb_must_be_installed(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rose_easyedit.tracking.choice.find_spec", lambda name: None)
    with pytest.raises(RoSEError, match="pip install wandb"):
        make_plan([word], multirun=False)
    assert make_plan([word, "tracking.mode=disabled"], multirun=False)


def test_settings_of_ones_own_are_found_in_another_folder(tmp_path: Path) -> None:
    (tmp_path / "hparams").mkdir()
    (tmp_path / "hparams" / "mine.yaml").write_text(
        "model_name: tiny-random\nlayers: [1, 2]\nalignment: {strength: 0.125}\n"
    )
    assert make_plan(["hparams=mine"], multirun=False, config_dir=str(tmp_path)).jobs
    (tmp_path / "hparams" / "typo.yaml").write_text("alignment: {strenght: 0.125}\n")
    with pytest.raises(RoSEError, match="In 'hparams/typo': ConfigKeyError .*'strenght'"):
        make_plan(["hparams=typo"], multirun=False, config_dir=str(tmp_path))
    with pytest.raises(RoSEError, match="hparams=mine does not exist"):
        make_plan(["hparams=mine"], multirun=False)
    with pytest.raises(RoSEError, match="no folder"):
        make_plan([], multirun=False, config_dir=str(tmp_path / "none"))


def test_the_schemas_of_the_evaluation_are_those_of_its_settings() -> None:
    own = {f.name for f in fields(EvaluationConfig)} - {"geometry", "diagnosis"}
    # which a job's evaluation takes from its edit
    assert own == {f.name for f in fields(EvaluationSettings)} - {"template_arguments"}
    assert EvaluationConfig().settings() == EvaluationSettings()
    assert DiagnosisConfig().settings() == DiagnosisSettings()
    named = {f.name for f in fields(DiagnosisSettings)}
    assert {f.name for f in fields(DiagnosisConfig)} == named


def test_a_composed_job_holds_the_models_settings() -> None:
    assert compose_job([]).hparams == RoSEHyperParams.from_hparams("smollm2-135m")
    composed = compose_job(["method=alphaedit", "hparams=gpt2-xl"]).hparams
    assert composed == RoSEHyperParams.preset("alphaedit", "gpt2-xl")


def test_the_nearest_name_may_be_anywhere() -> None:
    keys = dotted_keys(ExperimentConfig)
    assert nearest("protected_direction", keys) == "hparams.alignment.protected_directions"
    assert nearest("evaluaton.geometry", keys) == "evaluation.geometry"
