"""What is logged of a run, and how its events lie in a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tracked_runs import CONFIG, RESULT, log_everything, run_info, some_edit

from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.errors import RoSEError
from rose_easyedit.tracking.choice import make_tracker
from rose_easyedit.tracking.logged import flattened, log_run
from rose_easyedit.tracking.tracker import NoTracker, TrackingSettings


@pytest.fixture(scope="module")
def delta() -> EditDelta:
    return some_edit()


def jsonl() -> Any:
    return make_tracker(TrackingSettings(kind="jsonl", group="of the settings", tags=["paper"]))


def events(folder: Path, kind: str | None = None) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    return [event for event in found if kind in (None, event["event"])]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, delta: EditDelta) -> Path:
    """Of a run with all there is to log, tracked in a file."""
    folder = tmp_path_factory.mktemp("run")
    log_everything(jsonl(), folder, delta)
    return folder


def test_events_begin_with_the_configuration_and_end_with_how_it_went(folder: Path) -> None:
    first, *_, last = events(folder)
    assert first["event"] == "config" and first["config"] == CONFIG
    assert (first["id"], first["group"]) == ("abc123", "of the settings")
    assert first["tags"] == ["tiny", "paper"]
    assert last["event"] == "finish" and last["failed"] is False


def test_curves_have_the_numbers_of_the_edit(folder: Path, delta: EditDelta) -> None:
    for level, name in (("facts", "fact"), ("subjects", "subject")):
        points = [e for e in events(folder, "log") if e["axis"] == f"{name}/step"]
        curve = delta.provenance.curves[level]
        assert [e["step"] for e in points] == list(range(len(curve["loss"])))
        assert [e["values"][f"{name}/loss"] for e in points] == curve["loss"]
        assert [e["values"].get(f"{name}/kl") for e in points] == curve["drift"]
        assert [e["values"][f"{name}/active_facts"] for e in points] == curve["facts"]
    layers = [e for e in events(folder, "log") if e["axis"] == "layer"]
    assert [e["step"] for e in layers] == [0, 1]
    assert [e["values"]["layer/residual"] for e in layers] == [
        layer.residual for layer in delta.provenance.layers
    ]


def test_every_evaluation_metric_is_logged(folder: Path) -> None:
    values: dict[str, Any] = {}
    for event in events(folder, "summary"):
        values |= event["values"]
    logged = {name for name in values if name.startswith("evaluation/")}
    assert logged == set(flattened(RESULT.summary(), "evaluation"))
    assert values["evaluation/headline/success"] == pytest.approx(2 / 3)
    assert values["evaluation/headline/faithful"] == pytest.approx(1 / 3)
    assert values["evaluation/locality/subject/words_kept"] == pytest.approx(2 / 3)
    assert values["edit/facts"] == 3 and values["edit/subjects"] == 2
    assert values["geometry/conflict/mean"] == pytest.approx(0.97)
    assert values["geometry/rivals/joint, protected/deviation"] > values["geometry/deviation"]
    assert not any("/R/subjects" in name for name in values)
    by_facts = [e for e in events(folder, "log") if e["axis"] == "facts_per_subject"]
    assert [e["step"] for e in by_facts] == [1, 2]
    assert by_facts[0]["values"] == {
        "facts_per_subject/faithful": 0.0,
        "facts_per_subject/success": 1.0,
    }


def test_tables_have_a_row_per_query(folder: Path) -> None:
    tables = {event["name"]: event for event in events(folder, "table")}
    assert list(tables) == ["facts", "answers", "other_facts", "locality"]
    assert [len(table["rows"]) for table in tables.values()] == [3, 3, 1, 2]
    for table in tables.values():
        assert all(len(row) == len(table["columns"]) for row in table["rows"])
    answer = dict(zip(tables["answers"]["columns"], tables["answers"]["rows"][1], strict=True))
    assert (answer["form"], answer["answer"], answer["success"]) == ("question", "Norway", False)
    assert tables["answers"]["rows"][2][-2:] == [None, None]
    assert tables["locality"]["rows"] == [
        ["unrelated", "Two and two is", 0.25, True, None, None, None, None],
        [
            "subject",
            "Tell me about Oslo.",
            0.5,
            False,
            "Oslo is old",
            "Oslo is in Peru",
            0.5,
            2 / 3,
        ],
    ]


def test_files_are_named_from_the_folder(folder: Path) -> None:
    assert [e["path"] for e in events(folder, "figure")] == ["figures/radius.png"]
    artifacts = [(e["kind"], e["path"]) for e in events(folder, "artifact")]
    assert artifacts == [("requests", "requests.json"), ("edit", "delta.safetensors")]


def test_a_retry_adds_to_the_file(tmp_path: Path, delta: EditDelta) -> None:
    first = jsonl()
    first.start(run_info(tmp_path))
    first.log({"fact/loss": float("nan")}, axis="fact/step", step=0)
    first.finish(failed=True)
    log_everything(jsonl(), tmp_path, delta)
    assert len(events(tmp_path, "config")) == 2
    assert [event["failed"] for event in events(tmp_path, "finish")] == [True, False]
    assert events(tmp_path, "log")[0]["values"] == {"fact/loss": None}


def test_what_is_written_survives_the_process(tmp_path: Path) -> None:
    tracker = jsonl()
    tracker.start(run_info(tmp_path))
    tracker.summarise({"a": 1})
    assert [event["event"] for event in events(tmp_path)] == ["config", "summary"]


def test_an_edit_alone_is_enough(tmp_path: Path, delta: EditDelta) -> None:
    tracker = jsonl()
    tracker.start(run_info(tmp_path))
    log_run(tracker, EditDelta(delta.layers, delta.base), folder=tmp_path)
    log_run(tracker, delta)
    assert {event["event"] for event in events(tmp_path)} == {"config", "table", "summary", "log"}
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_no_tracker_takes_everything_and_writes_nothing(tmp_path: Path, delta: EditDelta) -> None:
    assert isinstance(make_tracker(TrackingSettings()), NoTracker)
    log_everything(NoTracker(), tmp_path, delta)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_faulty_settings_are_named_together() -> None:
    with pytest.raises(RoSEError, match="(?s)kind is 'tensorboard'.*mode is 'on'"):
        make_tracker(TrackingSettings(kind="tensorboard", mode="on"))


def test_the_settings_are_a_schema_for_hydra() -> None:
    from omegaconf import OmegaConf
    from omegaconf.errors import ConfigKeyError

    schema = OmegaConf.structured(TrackingSettings)
    given = OmegaConf.merge(schema, {"kind": "jsonl", "tags": ["a"], "entity": None})
    assert OmegaConf.to_object(given) == TrackingSettings(kind="jsonl", tags=["a"])
    with pytest.raises(ConfigKeyError):
        OmegaConf.merge(schema, {"knd": "jsonl"})


def test_totals_are_flattened() -> None:
    nested = {"a": {"b": 1, "c": None, 3: {"interval": (0.5, 1.0)}}, "names": ["x", "y"], "no": []}
    assert flattened(nested, "top") == {
        "top/a/b": 1,
        "top/a/3/interval/low": 0.5,
        "top/a/3/interval/high": 1.0,
        "top/names": "x, y",
    }
