"""What is asked for is checked as a whole, before anything is computed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rose_easyedit.errors import RoSEError
from rose_easyedit.requests import EditRequest, as_requests, group_by_subject, load_requests

CURIE = {"prompt": "Marie Curie was born in", "subject": "Marie Curie", "target_new": "London"}
TONGUE = {
    "prompt": "The mother tongue of Marie Curie is",
    "subject": "Marie Curie",
    "target_new": "Spanish",
}
NEWTON = {"prompt": "Isaac Newton speaks", "subject": "Isaac Newton", "target_new": "German"}


def test_easyedits_fields_are_read_and_others_ignored() -> None:
    (request,) = as_requests(
        [
            {
                **CURIE,
                "ground_truth": "Warsaw",
                "case_id": 7,
                "rephrase_prompt": "Where was Marie Curie born?",
                "locality": {"x": {"prompt": "p", "ground_truth": "g"}},
                "portability": None,
            }
        ]
    )
    assert request == EditRequest(**CURIE, ground_truth="Warsaw", case_id=7)
    assert EditRequest.from_mapping(request.as_dict()) == request


def test_white_space_at_the_edges_goes() -> None:
    request = EditRequest.from_mapping(
        {"prompt": "Marie Curie was born in ", "subject": " Marie Curie", "target_new": " London\n"}
    )
    assert request == EditRequest(**CURIE)


def test_requests_and_mappings_mix() -> None:
    assert as_requests([EditRequest(**CURIE), NEWTON]) == [
        EditRequest(**CURIE),
        EditRequest(**NEWTON),
    ]
    with pytest.raises(RoSEError, match="request 0: 'subject' is empty"):
        as_requests([EditRequest("a", "", "b")])


def test_all_faults_are_reported_together_with_their_index() -> None:
    records: list[Any] = [
        CURIE,
        {"prompt": "x", "subject": ""},
        {"prompt": 5, "subject": "Marie Curie", "target_new": "London"},
        "Marie Curie",
        {"prompt": "He was born in", "subject": "Marie Curie", "target_new": "London"},
        {**CURIE, "target_new": "Paris"},
        {**CURIE, "target_new": ["London"]},
    ]
    with pytest.raises(RoSEError) as caught:
        as_requests(records)
    lines = str(caught.value).splitlines()
    assert lines[0] == "The edit requests cannot be used:"
    assert lines[1:] == [
        "  - request 1: 'subject' is empty; fill it in",
        "  - request 1: 'target_new' is missing; add it",
        "  - request 2: 'prompt' is 5, not text; give one string",
        "  - request 3: expected a mapping or an EditRequest, got str",
        "  - request 6: 'target_new' is ['London'], not text; give one string",
        "  - request 4: the prompt 'He was born in' does not contain its subject 'Marie Curie'; "
        "write the subject in the prompt exactly as given",
        "  - requests 0 and 5 contradict each other: 'Marie Curie was born in' is to be 'London' "
        "and 'Paris'; keep one",
    ]


def test_a_fact_is_named_by_its_place_shortened() -> None:
    assert EditRequest(**CURIE).label == "'Marie Curie was born in' (subject 'Marie Curie')"
    assert len(EditRequest("word " * 300 + "Rome is", "Rome", "Italy").label) < 400


def test_exact_duplicates_count_once_and_order_stays() -> None:
    again = {**CURIE, "prompt": CURIE["prompt"] + " "}
    requests = as_requests([NEWTON, CURIE, TONGUE, again, NEWTON])
    assert requests == [EditRequest(**r) for r in (NEWTON, CURIE, TONGUE)]


def test_the_first_of_duplicates_is_kept() -> None:
    requests = as_requests([{**CURIE, "case_id": 1}, {**CURIE, "case_id": 2}])
    assert [request.case_id for request in requests] == [1]


def test_several_facts_of_one_subject_do_not_contradict() -> None:
    assert len(as_requests([CURIE, TONGUE])) == 2


def test_each_contradiction_names_the_first() -> None:
    records = [{**CURIE, "target_new": target} for target in ("London", "Paris", "Rome")]
    with pytest.raises(RoSEError) as caught:
        as_requests(records)
    assert "requests 0 and 1 contradict" in str(caught.value)
    assert "requests 0 and 2 contradict" in str(caught.value)


@pytest.mark.parametrize("records", [[], ()])
def test_no_request_at_all(records: Any) -> None:
    with pytest.raises(RoSEError, match="there is no request; give at least one"):
        as_requests(records)


def test_a_single_fault_is_an_error_of_its_own() -> None:
    with pytest.raises(RoSEError, match="'target_new' is missing"):
        EditRequest.from_mapping({"prompt": "a b", "subject": "a"})


def test_subjects_are_grouped_in_order_of_appearance() -> None:
    requests = as_requests([NEWTON, CURIE, TONGUE])
    assert list(group_by_subject(requests).items()) == [
        ("Isaac Newton", [0]),
        ("Marie Curie", [1, 2]),
    ]


@pytest.mark.parametrize(
    "text", ["\u05e9\u05dc\u05d5\u05dd", "\u6771\u4eac", "Garc\u00eda M\u00e1rquez"]
)
def test_any_script(text: str) -> None:
    (request,) = as_requests([{"prompt": f"{text} is", "subject": text, "target_new": text}])
    assert request.subject == text


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "facts.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    "text",
    [
        json.dumps([CURIE, NEWTON]),
        json.dumps([CURIE, NEWTON], indent=2),
        json.dumps(CURIE) + "\n" + json.dumps(NEWTON) + "\n",
        "\n" + json.dumps(CURIE) + "\n\n" + json.dumps(NEWTON),
        json.dumps(CURIE) + "\r\n" + json.dumps(NEWTON) + "\r\n",
        "\ufeff" + json.dumps([CURIE, NEWTON]),
    ],
    ids=["list", "indented list", "lines", "blank lines", "windows lines", "byte order mark"],
)
def test_json_and_json_lines_are_read(text: str, tmp_path: Path) -> None:
    assert load_requests(write(tmp_path, text)) == [EditRequest(**CURIE), EditRequest(**NEWTON)]


def test_a_file_with_one_request(tmp_path: Path) -> None:
    assert load_requests(write(tmp_path, json.dumps(CURIE))) == [EditRequest(**CURIE)]


def test_a_line_separator_inside_a_string_does_not_end_the_line(tmp_path: Path) -> None:
    fact = {**CURIE, "ground_truth": "War\u2028saw"}
    text = json.dumps(fact, ensure_ascii=False) + "\n" + json.dumps(NEWTON)
    requests = load_requests(write(tmp_path, text))
    assert [request.ground_truth for request in requests] == ["War\u2028saw", None]


def test_every_faulty_line_is_named(tmp_path: Path) -> None:
    text = "\n".join([json.dumps(CURIE), "{broken", json.dumps(NEWTON), "[1,"])
    with pytest.raises(RoSEError, match="neither JSON nor JSON Lines") as caught:
        load_requests(write(tmp_path, text))
    assert "(line 2): " in str(caught.value) and "(line 4): " in str(caught.value)
    assert "(line 1)" not in str(caught.value)


def test_a_deeply_nested_file_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(RoSEError, match="is not JSON"):
        load_requests(write(tmp_path, "[" * 200_000))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3", "holds a JSON int; give a list of records, or one record a line"),
        ('"text"', "holds a JSON str"),
        ("[]", "holds an empty list"),
        ("", "is empty; give a file with records"),
        ("[1, 2]", "request 1: expected a mapping or an EditRequest, got int"),
        (b"\xff\xfe\x00\x01", "is not UTF-8 text .*save it as UTF-8"),
    ],
)
def test_other_files(text: str | bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(RoSEError, match=f"(?s){message}"):
        load_requests(write(tmp_path, text))


def test_a_field_of_nearly_the_right_name_is_pointed_at() -> None:
    with pytest.raises(RoSEError, match="'target_new' is missing; add it, or .* of 'target'"):
        as_requests([{"prompt": "Japan is", "subject": "Japan", "target": "Madrid"}])


def test_a_line_has_one_position(tmp_path: Path) -> None:
    with pytest.raises(RoSEError, match=r"\(line 2\): .*Expecting .*, at column 2\)$"):
        load_requests(write(tmp_path, '{"prompt": "a"}\n{prompt}'))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(RoSEError, match="There is no request file .*nowhere.json"):
        load_requests(tmp_path / "nowhere.json")
    with pytest.raises(RoSEError, match="is a folder, and no request file"):
        load_requests(tmp_path)
