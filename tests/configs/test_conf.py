"""Every file of conf/ composes, does what its name says, and says how it is run."""

from __future__ import annotations

import json
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest
from experiments import planned

from rose_easyedit.config.hparams import CONSTRAINTS, INTEGRATIONS, RoSEHyperParams
from rose_easyedit.config.paths import conf_dir, hparams_dir
from rose_easyedit.experiment.plan import compose_job

GROUPS = {
    "alignment": {"identity", "protected", "shrinkage", "covariance", "null_space"},
    "hierarchy": {"hierarchical", "joint", "independent"},
    "method": {"rose", "rose_paper", "memit_merge", "memit", "alphaedit"},
    "data": {"core", "wide", "laboratory", "file"},
    "evaluation": {"default", "quick", "full", "geometry"},
    "tracking": {"none", "jsonl", "wandb"},
    "launcher": {"basic", "joblib", "submitit_local", "submitit_slurm", "ray"},
    "sweeper": {"basic", "optuna"},
    "debug": {"fast", "verbose"},
}
FILES = sorted(conf_dir().rglob("*.yaml"))
EXPERIMENTS = sorted((conf_dir() / "experiment").glob("*.yaml"))
HPARAMS = sorted(path.stem for path in (hparams_dir() / "RoSE").glob("*.yaml"))
# Choice to the module of the extra that it needs.
PLUGINS = {
    "joblib": "hydra_joblib_launcher",
    "submitit_local": "hydra_submitit_launcher",
    "submitit_slurm": "hydra_submitit_launcher",
    "ray": "hydra_ray_launcher",
    "optuna": "hydra_optuna_sweeper",
    "pareto": "hydra_optuna_sweeper",
}


def is_missing(choice: str) -> bool:
    """Whether a choice needs an extra that is not installed."""
    module = PLUGINS.get(choice)
    return module is not None and (
        find_spec("hydra_plugins") is None or find_spec(f"hydra_plugins.{module}") is None
    )


def needs(choice: str) -> None:
    """Skips where the extra of a choice is missing."""
    if is_missing(choice):
        pytest.skip(f"{PLUGINS[choice]} is not installed")


def test_there_are_these_files() -> None:
    found = {
        (path.parent.name, path.stem)
        for path in FILES
        if path.parent.name not in ("experiment", "easyedit")
    } - {("conf", "config")}
    assert found == {(group, name) for group, names in GROUPS.items() for name in names}
    assert len(EXPERIMENTS) >= 8


@pytest.mark.parametrize("group", GROUPS)
def test_every_choice_composes_and_its_comment_says_what_it_is(group: str, tmp_path: Path) -> None:
    facts = [
        {"prompt": f"Oslo is {word}", "subject": "Oslo", "target_new": "Peru"}
        for word in ("in", "near")
    ]
    (tmp_path / "facts.json").write_text(json.dumps(facts))
    for name in sorted(GROUPS[group]):
        more = [f"data.source={tmp_path / 'facts.json'}"] if name == "file" else []
        if is_missing(name):
            continue
        assert planned([f"{group}={name}", *more])
        assert comments(conf_dir() / group / f"{name}.yaml")


@pytest.mark.parametrize("choice", sorted(set(PLUGINS) - {"pareto"}))
def test_a_launcher_or_sweeper_of_an_extra_composes(choice: str) -> None:
    needs(choice)
    group = "sweeper" if choice == "optuna" else "launcher"
    assert planned([f"{group}={choice}"])


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_an_experiment_composes_and_begins_with_its_run_line(path: Path) -> None:
    needs(path.stem)
    words = shlex.split(comments(path)[0])
    assert words[:2] == ["rose-experiment", "-m"]
    plan = planned(words[2:])
    assert f"experiment={path.stem}" in words
    assert plan.folder.name == path.stem
    if path.stem == "pareto":
        assert plan.jobs is None
    else:
        assert plan.jobs is not None and len(plan.jobs) >= 4


def test_the_first_sweep_is_two_by_two_in_the_laboratory() -> None:
    plan = planned(["experiment=smoke"])
    assert plan.jobs is not None
    jobs = [compose_job(words).hparams for words in plan.jobs]
    assert [(job.alignment.constraint, job.hierarchy.integration) for job in jobs] == [
        ("protected", "hierarchical"),
        ("protected", "joint"),
        ("covariance", "hierarchical"),
        ("covariance", "joint"),
    ]
    assert {job.model_name for job in jobs} == {"laboratory"}


@pytest.mark.parametrize("name", HPARAMS)
def test_a_models_settings_are_those_of_its_file(name: str) -> None:
    assert compose_job([f"hparams={name}"]).hparams == RoSEHyperParams.from_hparams(name)


@pytest.mark.parametrize("method", sorted(GROUPS["method"]))
def test_a_method_comes_on_top_of_the_model(method: str) -> None:
    composed = compose_job([f"method={method}"]).hparams
    assert composed == RoSEHyperParams.preset(method)


def test_alignment_and_hierarchy_come_on_top_of_the_method_and_words_last() -> None:
    words = ["method=memit", "alignment=protected", "hierarchy=joint"]
    composed = compose_job(words).hparams
    assert composed.alignment.constraint == "protected"
    assert composed.alignment.protected(1536) == 256
    assert composed.alignment.subject_weight == 0.0  # the method's
    assert composed.alignment.covariance_weight == 150  # the model's
    assert composed.hierarchy.integration == "joint"
    assert composed.key_columns == "merged"
    last = compose_job([*words, "hparams.alignment.protected_directions=8"]).hparams
    assert last.alignment.protected_directions == 8


def test_every_constraint_and_integration_has_its_file() -> None:
    constraints = {
        compose_job([f"alignment={n}"]).hparams.alignment.constraint for n in GROUPS["alignment"]
    }
    assert constraints == set(CONSTRAINTS)
    for name in GROUPS["hierarchy"]:
        assert compose_job([f"hierarchy={name}"]).hparams.hierarchy.integration == name
    assert GROUPS["hierarchy"] == set(INTEGRATIONS)


def comments(path: Path) -> list[str]:
    """The comments at a file's head, without the line that is meant for Hydra."""
    lines = path.read_text().splitlines()
    head = [line.lstrip("# ") for line in lines if line.startswith("#")]
    return [line for line in head if not line.startswith("@package")]
