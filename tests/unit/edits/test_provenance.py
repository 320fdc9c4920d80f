"""What an edit says of itself: plain data and back, files of earlier versions, and none at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from tiny_models import FACTS, build_model, settings

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


def test_all_faults_are_told_together() -> None:
    record = {"version": VERSION + 1, "log": 3, "layers": [{}], "requests": [{"prompt": "a"}]}
    with pytest.raises(RoSEError) as error:
        Provenance.from_dict(record)
    for fault in (
        f"version is {VERSION + 1}, not a number up to {VERSION}",
        "log is 3, not a list of texts",
        "layers is [{}], not a list of mappings with layer, residual",
        "request 0: ",
    ):
        assert fault in str(error.value)
