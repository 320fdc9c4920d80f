"""What an edit says of itself: plain data and back, files of earlier versions, and none at all."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from tiny_models import FACTS, build_model, settings

from rose_easyedit.edits.checks import check_record
from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.edits.file import FORMAT
from rose_easyedit.edits.provenance import VERSION, LayerReport, Provenance
from rose_easyedit.errors import RoSEError
from rose_easyedit.method.edit import compute_edit

# `update` of an edit of tiny-random with a locality budget, before records had a version
OLD = Path(__file__).parents[2] / "helpers" / "edit_of_0_1_0.safetensors"
FINGERPRINT = "6d79a06004c13380a9149fba22b4708a8e74e2f8f5b0bd3d7d116365094fbf7d"


def old_record() -> dict[str, Any]:
    with safe_open(OLD, framework="pt") as file:
        record: dict[str, Any] = json.loads(file.metadata()[FORMAT])["provenance"]
    return record


def test_a_file_from_before_records_had_a_version_is_read_whole() -> None:
    record, delta = old_record(), EditDelta.load(OLD)
    assert "version" not in record and delta.fingerprint == FINGERPRINT
    known = delta.provenance
    assert known.requests[0]["target_new"] == "Lima" and known.others == {}
    (change,) = known.replaced
    assert (change["old"], change["new"]) == ("Madrid", "Lima")
    assert known.calibration is not None and known.calibration["budget"] == 1e6
    (layer,) = known.layers
    assert layer == LayerReport(**record["layers"][0]) and layer.columns
    assert known.self_check is not None and len(known.self_check.facts) == 1
    # nothing is lost: what is left out is empty, or was null
    said = known.as_dict()
    assert said.pop("version") == VERSION
    assert {name: value for name, value in record.items() if name not in said} == {
        "disturbance": None,
        "template_arguments": {},
    }
    assert said == {name: value for name, value in record.items() if name in said}


def test_an_old_file_saved_again_says_the_same(tmp_path: Path) -> None:
    old = EditDelta.load(OLD)
    new = EditDelta.load(old.save(tmp_path / "new"))
    assert new.provenance == old.provenance and new.fingerprint == old.fingerprint


def test_an_edit_says_the_same_as_plain_data(tiny_tokenizer: Any) -> None:
    known = compute_edit(build_model("llama-untied"), tiny_tokenizer, FACTS, settings()).provenance
    record = json.loads(json.dumps(known.as_dict(), allow_nan=False))
    assert record["version"] == VERSION and len(record["layers"]) == 2
    assert Provenance.from_dict(record).as_dict() == record


def test_an_edit_made_elsewhere_may_say_nothing() -> None:
    assert Provenance.from_dict({}) == Provenance() == EditDelta({}, "").provenance
    assert Provenance().as_dict() == {"version": VERSION}
    assert Provenance().missing(["requests", "hparams", "self_check"]) == [
        "requests",
        "hparams",
        "self_check",
    ]


def test_what_this_version_does_not_know_is_kept() -> None:
    known = Provenance.from_dict({"note": [1], "disturbance": 0.0})
    assert known.others == {"note": [1]} and known.disturbance == 0.0
    assert known.as_dict() == {"note": [1], "disturbance": 0.0, "version": VERSION}


REQUEST = {"prompt": "Rome lies in", "subject": "Rome", "target_new": "France"}
FACT = {"reached": 1.0, "least_reached": 0.5, "written": None, "answered": True}
CHECKED = {
    "facts": [FACT],
    "drift": {"generic": {"kl": None, "top1": 1.0, "prompts": 24}},
    "limits": {
        "most_loss": 1.0,
        "least_reached": 0.5,
        "most_drift": 0.1,
        "most_neighbour_drift": 0.2,
        "must_answer": False,
    },
    "warnings": [],
}
WHOLE = {
    "requests": [REQUEST],
    "losses": [1],
    "groups": [[0]],
    "steps": [3],
    "self_check": CHECKED,
    "layers": [{"layer": 7, "residual": 1, "update_norm": 0.5, "rounding_loss": 0.0}],
    "replaced": [{"subject": "Rome", "prompt": "Rome lies in", "old": "Italy", "new": "France"}],
    "curves": {"facts": {"loss": [1.5, None], "groups": [1, 1]}},
    "calibration": {"budget": 1, "drift": 0.5},
    "disturbance": 0.25,
}


def with_check(**changes: Any) -> dict[str, Any]:
    return {"self_check": {**CHECKED, **changes}}


# Each is put into a record that is whole.
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"version": VERSION + 1}, f"version is {VERSION + 1}, not a number up to {VERSION}"),
    ({"version": -1}, "version is -1, not a number up to"),
    ({"version": "1"}, "version is '1', not a whole number"),
    ({"requests": {}}, "requests is {}, not a list"),
    ({"requests": [3]}, "requests[0] is 3, not a mapping"),
    ({"requests": [{**REQUEST, "subject": 3}]}, "requests[0]: 'subject' is 3, not text"),
    ({"hparams": []}, "hparams is [], not a mapping"),
    ({"hparams": {"a": [{"b": "${oc.env:HOME}"}]}}, "hparams: it holds a reference (`${...}`)"),
    ({"architecture": 3}, "architecture is 3, not text"),
    ({"dtype": ["float32"]}, "dtype is ['float32'], not text"),
    ({"groups": [0]}, "groups[0] is 0, not a list"),
    ({"groups": [["0"]]}, "groups[0][0] is '0', not a whole number"),
    ({"groups": [[True]]}, "groups[0][0] is True, not a whole number"),
    ({"groups": [[1]]}, "groups[0][0] is 1, not the number of a request, from 0 and below 1"),
    ({"groups": [[-1]]}, "groups[0][0] is -1, not the number of a request"),
    ({"losses": ["1"]}, "losses[0] is '1', not a number"),
    ({"losses": [10**400]}, "not a number"),
    ({"steps": [1.5]}, "steps[0] is 1.5, not a whole number"),
    ({"steps": [1, 2]}, "steps is [1, 2], not a list of 1, one for each group"),
    ({"curves": {"facts": {"loss": ["x"]}}}, "curves.facts.loss[0] is 'x', not a number"),
    ({"curves": {"facts": [1]}}, "curves.facts is [1], not a mapping"),
    ({"layers": [{}]}, "layers[0].layer is missing"),
    ({"layers": [{**WHOLE["layers"][0], "residual": None}]}, "layers[0].residual is None, not a"),
    ({"log": 3}, "log is 3, not a list"),
    ({"log": "text"}, "log is 'text', not a list"),
    ({"log": [3]}, "log[0] is 3, not text"),
    ({"versions": {"torch": 2}}, "versions.torch is 2, not text"),
    ({"template_arguments": "a"}, "template_arguments is 'a', not a mapping"),
    ({"disturbance": "0.1"}, "disturbance is '0.1', not a number"),
    ({"disturbance": True}, "disturbance is True, not a number"),
    ({"calibration": {"budget": "1"}}, "calibration.budget is '1', not a number"),
    ({"replaced": [{"subject": "Rome"}]}, "replaced[0].prompt is missing"),
    ({"self_check": {}}, "self_check.facts is missing"),
    (with_check(facts=[{**FACT, "reached": "far"}]), "self_check.facts[0].reached is 'far', not a"),
    (with_check(facts=[{**FACT, "answered": 1}]), "self_check.facts[0].answered is 1, not true or"),
    (with_check(facts=[]), "self_check.facts is [], not a list with one for each request and its"),
    (with_check(drift={"other": {}}), "self_check.drift.other is {}, and nothing of that name"),
    (with_check(drift={"neighbours": {}}), "self_check.drift.neighbours.top1 is missing"),
    (with_check(limits={}), "self_check.limits.most_drift is missing"),
    (with_check(warnings="none"), "self_check.warnings is 'none', not a list"),
]


@pytest.mark.parametrize(("changes", "fault"), WRONG)
def test_an_entry_of_another_type_is_named(changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(RoSEError, match="^What the edit says of itself cannot be read:") as error:
        Provenance.from_dict({**WHOLE, **changes})
    assert fault in "\n".join(error.value.faults)


def test_every_entry_is_looked_at() -> None:
    names = {each.name for each in fields(Provenance)} - {"others"}
    assert names == {name for changes, _ in WRONG for name in changes}


def test_what_is_right_is_not_changed() -> None:
    read = Provenance.from_dict(WHOLE)
    (layer,) = WHOLE["layers"]
    wanted = {**WHOLE, "layers": [{**layer, "columns": None}], "version": VERSION}
    # `==` takes 1 and 1.0 for equal; the bytes of a file do not
    as_json = [json.dumps(each, sort_keys=True) for each in (read.as_dict(), wanted)]
    assert as_json[0] == as_json[1]


def test_a_record_may_be_read_that_another_part_of_the_program_has_made() -> None:
    read = Provenance.from_dict({"requests": (REQUEST,), "groups": ((0,),), "losses": (0.5,)})
    assert list(read.losses) == [0.5]


def test_numbers_that_are_not_finite_are_read() -> None:
    record = json.loads('{"disturbance": NaN, "losses": [Infinity]}')
    read = Provenance.from_dict({**record, "requests": [REQUEST]})
    assert str(read.disturbance) == "nan" and read.losses == [float("inf")]


def test_all_faults_are_told_together() -> None:
    record = {
        "version": VERSION + 1,
        "log": 3,
        "layers": [{}],
        "requests": [{"prompt": "a"}],
        "losses": [1.0, 2.0],
        "groups": [[5]],
        "steps": [1, 2],
    }
    with pytest.raises(RoSEError) as error:
        Provenance.from_dict(record)
    for fault in (
        f"version is {VERSION + 1}, not a number up to {VERSION}",
        "log is 3, not a list",
        "layers[0].layer is missing",
        "layers[0].residual is missing",
        "requests[0]: 'subject' is missing",
        "requests[0]: 'target_new' is missing",
        "losses is [1.0, 2.0], not a list of 1, one for each request",
        "groups[0][0] is 5, not the number of a request",
        "steps is [1, 2], not a list of 1, one for each group",
    ):
        assert fault in str(error.value)


def test_what_cannot_be_counted_is_not_compared_with() -> None:
    with pytest.raises(RoSEError) as error:
        Provenance.from_dict({**WHOLE, "requests": 3, "groups": 4})
    assert list(error.value.faults) == ["requests is 3, not a list", "groups is 4, not a list"]


@pytest.mark.parametrize(
    ("record", "faults"),
    [
        (3, ["it is 3, not a mapping"]),
        (
            {"base": 1, "layers": {"a.b": 1, "c": None}, "provenance": {"log": 3, "dtype": 1}},
            [
                "base is 1, not text",
                "sha256 is missing",
                "layers['a.b'] is 1, not true or false",
                "layers.c is None, not true or false",
                "provenance: dtype is 1, not text",
                "provenance: log is 3, not a list",
            ],
        ),
        (
            {"base": "", "sha256": "", "layers": [], "provenance": None},
            ["layers is [], not a mapping", "provenance is None, not a mapping"],
        ),
    ],
)
def test_all_that_is_wrong_with_a_files_record_is_told(record: Any, faults: list[str]) -> None:
    with pytest.raises(RoSEError, match="^'a' is damaged; save or copy it again:") as error:
        check_record(record, "'a'")
    assert list(error.value.faults) == faults
