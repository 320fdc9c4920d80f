"""One way in for facts: requests, a data file of the field, a bundled set; a table is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rose_easyedit.cli.facts import named_requests
from rose_easyedit.errors import RoSEError

COUNTERFACT = {
    "case_id": 3,
    "requested_rewrite": {
        "prompt": "{} is in",
        "subject": "Oslo",
        "target_new": {"str": "Peru"},
        "target_true": {"str": "Norway"},
    },
    "paraphrase_prompts": ["Oslo lies in"],
}


def test_requests_and_data_files_are_read_alike(tmp_path: Path) -> None:
    own = tmp_path / "own.jsonl"
    own.write_text(json.dumps({"prompt": "Oslo is in", "subject": "Oslo", "target_new": "Peru"}))
    data = tmp_path / "counterfact.json"
    data.write_text(json.dumps([COUNTERFACT]))
    for file in (own, data):
        (request,) = named_requests(str(file))
        told = (request.prompt, request.subject, request.target_new)
        assert told == ("Oslo is in", "Oslo", "Peru")


def test_a_bundled_set_is_named() -> None:
    assert len(named_requests("bundled")) == 124
    assert {request.subject for request in named_requests("laboratory")}
    with pytest.raises(RoSEError, match="did you mean 'bundled-wide'"):
        named_requests("bundled-wid")


@pytest.mark.parametrize("name", ["facts.csv", "facts.TSV"])
def test_a_table_is_told_to_be_one(name: str) -> None:
    with pytest.raises(RoSEError, match=f"{name} is a table .*one JSON object a line"):
        named_requests(name)


def test_the_faults_of_requests_are_told_where_it_is_no_data_file_either(tmp_path: Path) -> None:
    file = tmp_path / "own.jsonl"
    file.write_text(json.dumps({"prompt": "Oslo is in", "subject": "Oslo"}))
    with pytest.raises(RoSEError, match="target_new"):
        named_requests(str(file))
    with pytest.raises(RoSEError, match="no request file"):
        named_requests(str(tmp_path / "none.jsonl"))
