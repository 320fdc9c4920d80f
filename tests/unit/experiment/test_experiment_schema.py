"""An experiment that cannot be run is refused before anything is loaded, with what was meant."""

from __future__ import annotations

import shlex
from dataclasses import fields
from pathlib import Path

import pytest
from experiments import planned, quick

from rose_easyedit.config.hparams import RoSEHyperParams
from rose_easyedit.errors import RoSEError
from rose_easyedit.evaluation.settings import EvaluationSettings
from rose_easyedit.experiment.keys import dotted_keys, nearest
from rose_easyedit.experiment.plan import compose_job
from rose_easyedit.experiment.schema import ExperimentConfig, faults_of
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
        ("evaluation.autocast=int8", "autocast is 'int8'"),
        ("evaluation.diagnosis.quantile=2", "quantile is 2"),
        ("tracking.kind=paper", "tracking.kind is 'paper'"),
        ("name=a/b", "name is 'a/b'"),
        ("name=..", "name is '..'"),
        ("name=.", "name is '.'"),
        ("data.subjects=0", "data.subjects is 0; give a whole number of 1 or more"),
        ("data.at_least=-1", "data.at_least is -1; give a whole number of 1 or more"),
        (
            "data.facts_per_subject=0",
            "data.facts_per_subject is 0; give a whole number from 1 to 10",
        ),
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
        planned([word], multirun=False)
    assert meant in str(error.value)
    assert "Traceback" not in str(error.value)


def test_faults_come_together() -> None:
    with pytest.raises(RoSEError) as error:
        compose_job(["alignment=identty", "nam=x"])
    assert "identity" in str(error.value) and "did you mean name?" in str(error.value)
    with pytest.raises(RoSEError) as error:
        compose_job(["through=x", "evaluation.batch_size=0", "data.split=y"])
    assert all(part in str(error.value) for part in ("through", "batch_size", "data.split"))


def test_faults_of_groups_within_groups_are_told_by_their_whole_names() -> None:
    words = ["evaluation.batch_size=0", "evaluation.diagnosis.quantile=3", "hparams.seed=-1"]
    with pytest.raises(RoSEError) as error:
        compose_job([*words, "hparams.alignment.strength=0", "tracking=jsonl", "tracking.mode=on"])
    assert sorted(faults_of(error.value)) == [
        "evaluation.batch_size is 0; give a whole number of 1 or more",
        "evaluation.diagnosis.quantile is 3.0; give a number from 0 to 1",
        "hparams.alignment.strength is 0.0; give a number above 0",
        "hparams.seed is -1; give a whole number of 0 or more",
        "tracking.mode is 'on'; choose one of offline, online, disabled",
    ]


def test_one_wrong_job_of_a_sweep_refuses_all_of_it() -> None:
    words = ["alignment=identity", "hparams.layers=[1],[2,1]"]
    with pytest.raises(RoSEError, match="list different layers"):
        planned(words)


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
        planned(words)
    assert str(error.value).count("asked for") == 2


@pytest.mark.parametrize("words", [["name=na,nb"], ["folder=/a,/b"], ["seed=1,2", "name=${seed}"]])
def test_the_jobs_of_a_sweep_share_a_folder(words: list[str]) -> None:
    with pytest.raises(RoSEError, match="share a folder"):
        planned(words)
    assert planned(["name=na", "folder=/a"]).folder == Path("/a")


@pytest.mark.parametrize("word", ["seed=range(0)", "alignment=glob(*x)"])
def test_a_sweep_has_a_job(word: str) -> None:
    with pytest.raises(RoSEError, match="has no job: see that") as error:
        planned([word])
    assert word in str(error.value)


def test_a_search_has_what_it_compares_by() -> None:
    search = ["hydra.sweeper._target_=a.Search", "hparams.alignment.strength=interval(1, 2)"]
    assert planned(search).jobs is None
    with pytest.raises(RoSEError) as error:
        planned([*search, "name=a,b", "evaluation.forms=[question]"])
    assert "name is searched" in str(error.value)
    assert "evaluation.forms lacks instruction" in str(error.value)


def test_a_sweep_is_every_combination_in_order() -> None:
    words = ["name=x", "alignment=identity,covariance", "data.subjects=1,2"]
    plan = planned(words)
    assert plan.jobs == [
        ["name=x", f"alignment={alignment}", f"data.subjects={number}"]
        for alignment in ("identity", "covariance")
        for number in (1, 2)
    ]
    assert plan.folder.name == "x"


def test_an_experiment_is_a_sweep_by_itself_and_the_command_line_has_the_last_word() -> None:
    plan = planned(["experiment=smoke", "alignment=protected"])
    assert plan.jobs is not None and len(plan.jobs) == 2
    assert all("alignment=protected" in job for job in plan.jobs)
    alone = planned(["experiment=smoke", "hydra.mode=RUN"], multirun=False)
    assert alone.jobs == [["experiment=smoke"]] and len(alone.configs) == 1


def test_what_hydra_says_of_a_job_is_that_of_the_job() -> None:
    plan = planned(["alignment=identity,covariance", "hparams.seed=${hydra:job.num}"])
    assert [config.hparams.seed for config in plan.configs] == [0, 1]


def test_a_fault_is_that_of_the_first_job_which_has_it() -> None:
    with pytest.raises(RoSEError) as error:
        planned(["through=native,peft", "data.subjects=2,3"])
    assert "job 2: through is 'peft'" in str(error.value)
    assert str(error.value).count("peft") == 1


@pytest.mark.parametrize("value", ["/a=b/c.json", "/a(b.json", "/a, b].json"])
def test_a_value_that_hydra_cannot_read_is_named_and_quoted(value: str) -> None:
    with pytest.raises(RoSEError) as error:
        compose_job([f"data.source={value}", "nam=x"])
    told = str(error.value)
    assert "did you mean name?" in told and f"'data.source={value}' cannot be read" in told
    quoted = next(word for word in shlex.split(told.splitlines()[1]) if f'="{value}"' in word)
    with pytest.raises(RoSEError, match="a data file that exists"):
        compose_job([quoted])


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rose_easyedit.experiment.words.find_spec", lambda name: None)
    with pytest.raises(RoSEError, match=r"pip install 'rose-easyedit\[joblib\]'"):
        planned(["launcher=joblib"])


@pytest.mark.parametrize("word", ["tracking=wandb", "tracking.kind=wandb"])
def test_wandb_must_be_installed(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rose_easyedit.tracking.choice.find_spec", lambda name: None)
    with pytest.raises(RoSEError, match="pip install wandb"):
        compose_job([word])
    assert compose_job([word, "tracking.mode=disabled"])


def test_a_jobs_evaluation_is_that_of_the_package() -> None:
    own = compose_job([]).evaluation
    assert isinstance(own, EvaluationSettings)
    shared = {f.name: getattr(own, f.name) for f in fields(EvaluationSettings)}
    assert EvaluationSettings(**shared) == EvaluationSettings()
    assert own.diagnosis == DiagnosisSettings()


def test_a_composed_job_holds_the_models_settings() -> None:
    assert compose_job([]).hparams == RoSEHyperParams.from_hparams("smollm2-135m")
    composed = compose_job(["method=alphaedit", "hparams=gpt2-xl"]).hparams
    assert composed == RoSEHyperParams.preset("alphaedit", "gpt2-xl")


def test_the_nearest_name_may_be_anywhere() -> None:
    keys = dotted_keys(ExperimentConfig)
    assert nearest("protected_direction", keys) == "hparams.alignment.protected_directions"
    assert nearest("evaluaton.geometry", keys) == "evaluation.geometry"
