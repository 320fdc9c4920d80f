"""What is wrong with a data file is said with its position, all of it, or left out and listed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rose_easyedit.errors import RoSEError
from rose_easyedit.evaluation.datasets import load_dataset
from rose_easyedit.evaluation.selection import select_facts
from rose_easyedit.requests import load_requests

GOOD = {"subject": "Lothria", "prompt": "{} is ruled from", "target_new": "Graz"}


def write(folder: Path, text: str | bytes, name: str = "facts.json") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def dump(folder: Path, *records: Any) -> Path:
    return write(folder, json.dumps(records))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"target_new": None}, "'target_new' is missing; add it"),
        ({"target_new": []}, "'target_new' is missing; add it"),
        ({"target_new": 1969}, "'target_new' is 1969, not text"),
        ({"target_new": " \n"}, "'target_new' is empty"),
        ({"target_new": {"str": "Graz"}}, "'target_new' is {'str': 'Graz'}, not text"),
        ({"subject": ["Lothria", "Murania"]}, "'subject' is ('Lothria', 'Murania'); give one"),
        ({"subject": ""}, "'subject' is empty"),
        ({"prompt": "It is ruled from"}, "'It is ruled from' holds neither '{}' nor its subject"),
        ({"prompt": "lothria is ruled from"}, "nor its subject 'Lothria'"),
        ({"questions": {"q": "?"}}, "'questions' is {'q': '?'}, not text"),
        ({"target_new": "Graz \ud83d"}, "'target_new' is 'Graz \\ud83d', with half of a surrogate"),
    ],
)
def test_a_record_that_does_not_fit(tmp_path: Path, change: dict[str, Any], fault: str) -> None:
    path = dump(tmp_path, GOOD, {**GOOD, **change}, GOOD)
    with pytest.raises(RoSEError) as caught:
        load_dataset(path)
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("  - record 1: ") and fault in lines[1]
    assert "Part of" in lines[0] and "'requests'" in lines[0] and "skip_bad=True" in lines[0]
    dataset = load_dataset(path, skip_bad=True)
    assert len(dataset.facts) == 2
    assert len(dataset.faults) == 1 and fault in dataset.faults[0]


def test_all_faults_come_together(tmp_path: Path) -> None:
    with pytest.raises(RoSEError) as caught:
        load_dataset(dump(tmp_path, GOOD, {"subject": "", "prompt": 5}, ["x"]))
    assert [line.split("; ")[0] for line in str(caught.value).splitlines()[1:]] == [
        "  - record 1: 'subject' is empty",
        "  - record 1: 'prompt' is 5, not text",
        "  - record 1: 'target_new' is missing",
        "  - record 2: it is ['x'], not a JSON object",
    ]


def test_the_missing_field_has_the_name_that_it_has_in_the_file(tmp_path: Path) -> None:
    rewrite = {"subject": "Lothria", "prompt": "{} is ruled from", "target_new": {"id": "Q1"}}
    with pytest.raises(RoSEError, match="'requested_rewrite.target_new.str' is missing"):
        load_dataset(dump(tmp_path, {"requested_rewrite": rewrite}))
    with pytest.raises(RoSEError, match="'alt' or 'target_new' is missing"):
        load_dataset(dump(tmp_path, {"subject": "Lothria", "src": "Where is Lothria?"}))


def test_a_fault_among_the_facts_of_one_record_leaves_the_others(tmp_path: Path) -> None:
    good = {"prompt": "{} is ruled from", "target_new": "Graz", "target_true": "Aachen"}
    star = [{"requested_rewrite": r} for r in (good, {**good, "target_true": ""})]
    records = [
        {"subject": "Lothria", "Star_Topology": [*star, "x"]},
        {"subject": "Murania", "Star_Topology": "none"},
        {"subject": "Orsinia", "Star_Topology": []},
    ]
    dataset = load_dataset(dump(tmp_path, *records), skip_bad=True)
    assert [fact.prompt for fact in dataset.facts] == ["Lothria is ruled from"]
    assert [fault.split("; ")[0] for fault in dataset.faults] == [
        "record 0, Star_Topology 1: 'requested_rewrite.target_true' is empty",
        "record 0, Star_Topology 2: it is 'x', not a JSON object",
        "record 1, Star_Topology: it is 'none', not a JSON object",
        "record 2, Star_Topology: it is [], not a JSON object",
    ]
    assert dataset.left_out == 4


def test_thousands_of_faults_are_counted_and_the_first_shown(tmp_path: Path) -> None:
    bad = {**GOOD, "target_new": "x" * 10_000, "subject": "Murania", "prompt": "y" * 10_000}
    path = dump(tmp_path, GOOD, *[bad] * 3000)
    with pytest.raises(RoSEError) as caught:
        load_dataset(path)
    lines = str(caught.value).splitlines()
    assert len(lines) == 1 + 20 + 1 and lines[-1] == "  - ... and 2980 more"
    assert max(map(len, lines)) < 400
    assert len(load_dataset(path, skip_bad=True).faults) == 3000


@pytest.mark.parametrize(("number", "last"), [(20, "fill it in"), (21, "... and 1 more")])
def test_as_many_faults_as_are_shown_are_not_counted(
    tmp_path: Path, number: int, last: str
) -> None:
    with pytest.raises(RoSEError) as caught:
        load_dataset(dump(tmp_path, GOOD, *[{**GOOD, "target_new": ""}] * number))
    assert last in str(caught.value).splitlines()[-1]


def test_a_file_of_which_nothing_fits_is_refused_even_if_faults_are_skipped(tmp_path: Path) -> None:
    path = dump(tmp_path, {**GOOD, "prompt": "It is"})
    with pytest.raises(RoSEError, match="All of (.|\n)*neither") as caught:
        load_dataset(path, skip_bad=True)
    assert "skip_bad" not in str(caught.value)


def test_json_lines_have_line_numbers_and_may_hold_blank_lines(tmp_path: Path) -> None:
    lines = [json.dumps(GOOD), "", "{broken", json.dumps({**GOOD, "target_new": ""}), ""]
    path = write(tmp_path, "\r\n".join(lines), "facts.jsonl")
    dataset = load_dataset(path, skip_bad=True)
    assert len(dataset.facts) == 1 and dataset.left_out == 2
    assert dataset.faults[0].startswith("record 1 (line 3): it is not JSON")
    assert dataset.faults[1].startswith("record 2 (line 4): 'target_new' is empty")
    with pytest.raises(RoSEError, match=r"line 3.*\n.*line 4"):
        load_dataset(path)


@pytest.mark.parametrize("indent", [None, 2])
def test_one_object_is_one_record(tmp_path: Path, indent: int | None) -> None:
    assert len(load_dataset(write(tmp_path, json.dumps(GOOD, indent=indent) + "\n")).facts) == 1


def test_what_need_not_be_there_may_be_empty(tmp_path: Path) -> None:
    empty = {"ground_truth": "", "rephrase_prompt": " ", "paraphrases": ["Lothria's seat is", ""]}
    (fact,) = load_dataset(dump(tmp_path, {**GOOD, **empty, "target_aliases": ""})).facts
    assert (fact.ground_truth, fact.target_aliases) == ("", ())
    assert fact.paraphrases == ("Lothria's seat is",)


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": " Lothria is ruled from ", "subject": "Lothria", "target_new": " Graz"},
        {"prompt": "Lothria's {} is in", "subject": "Lothria ", "target_new": "Graz"},
        {"prompt": "In C, {} and", "subject": "C", "target_new": "Java", "ground_truth": ""},
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_the_file_that_was_edited_is_read_alike(
    tmp_path: Path, record: dict[str, Any], indent: int | None
) -> None:
    path = write(tmp_path, json.dumps(record, indent=indent))
    requests = load_requests(path)
    assert [fact.to_request().identity for fact in load_dataset(path).facts] == [
        request.identity for request in requests
    ]
    (asked,) = select_facts([request.as_dict() for request in requests], str(path)).asked
    assert asked.prompt == requests[0].prompt


def test_unicode_and_a_byte_order_mark_are_read_as_they_are(tmp_path: Path) -> None:
    record = {
        "subject": "Łódź\u2028城",
        "prompt": "{} liegt in {}",
        "target_new": "Ōsaka",
        "relation": "{x}",
    }
    line = json.dumps(record, ensure_ascii=False)
    for text in (f"[{line}, {line}]", f"{line}\n{line}"):
        for fact in load_dataset(write(tmp_path, text.encode("utf-8-sig"))).facts:
            assert fact.prompt == "Łódź\u2028城 liegt in Łódź\u2028城"
            assert (fact.target_new, fact.relation) == ("Ōsaka", "{x}")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "is empty"),
        (b"\xef\xbb\xbf \n", "is empty"),
        ("[]", "an empty list"),
        ("[{]", r"is not JSON \(.*column"),
        ('[{"a": 1},\n{"b": 2}\n', "is not JSON"),
        ("subject,prompt\nLothria,x\n", "neither JSON nor JSON Lines"),
        ('{\n"facts": [],\n"version": 2\n}', "no form that is known.* facts, version"),
        ('"text"', "a JSON str"),
        ("[" * 100_000, "is not JSON"),
        (json.dumps([GOOD]).encode("utf-16"), "is not UTF-8"),
        ("9" * 5000, "neither JSON nor JSON Lines"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, text: str | bytes, fault: str) -> None:
    with pytest.raises(RoSEError, match=fault) as caught:
        load_dataset(write(tmp_path, text))
    assert "facts.json" in str(caught.value)


def test_a_file_that_is_missing_or_a_folder_or_huge(tmp_path: Path) -> None:
    with pytest.raises(RoSEError, match="no data file .*none.json"):
        load_dataset(tmp_path / "none.json")
    with pytest.raises(RoSEError, match="no data file"):
        load_dataset(str(tmp_path))
    path = tmp_path / "huge.json"
    with path.open("wb") as file:
        file.truncate(513 * 2**20)
    with pytest.raises(RoSEError, match="513 MiB.* 512 MiB; give a smaller one"):
        load_dataset(path)


@pytest.mark.parametrize("read", [load_dataset, load_requests])
def test_a_file_that_the_system_does_not_give(
    tmp_path: Path, read: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RoSEError, match="file .*xxx"):
        read(tmp_path / ("x" * 300))

    def refuse(*_: Any, **__: Any) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("rose_easyedit.files.records.read_text", refuse)
    with pytest.raises(RoSEError, match=r"cannot be read \(.*Permission denied.*\); name one"):
        read(dump(tmp_path, GOOD))
