"""`rose-edit evaluate`: which facts are asked for, what is printed, and what is written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_models import LENIENT

from rose_easyedit.cli import main
from rose_easyedit.errors import RoSEError
from rose_easyedit.evaluation.facts import load_facts, load_locality
from rose_easyedit.evaluation.queries import ALL_FORMS
from rose_easyedit.evaluation.selection import select_facts

BUNDLED = load_facts(demo=True)[:4]
REQUESTS = [fact.to_request().as_dict() for fact in BUNDLED[:3]]
TABLE = ("exact prefix", "teacher forced", "gap", "old answer", "interference", "normalised")


def write_edit(folder: Path, model: Path, requests: list[dict[str, Any]]) -> Path:
    """Facts and settings in a folder, and the edit that the command makes of them."""
    (folder / "facts.jsonl").write_text("".join(json.dumps(r) + "\n" for r in requests))
    (folder / "tiny.yaml").write_text(
        f"model_name: {model}\n"
        "layers: [1, 2]\n"
        "hierarchy: {fact_steps: 2, subject_steps: 2}\n"
        "alignment: {protected_directions: 0, preserved_columns: 0}\n"
        f"self_check: {json.dumps(LENIENT)}\n"
    )
    words = ["edit", "--hparams", str(folder / "tiny.yaml"), "--out", str(folder / "edit.st")]
    assert main([*words, "--requests", str(folder / "facts.jsonl")]) == 0
    return folder / "edit.st"


@pytest.fixture(scope="module")
def delta(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """An edit of three of the four facts about the demonstration's first subject."""
    return write_edit(tmp_path_factory.mktemp("evaluate"), tiny_folder, REQUESTS)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ROSE_EASYEDIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "evaluation"


def as_json(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    capsys.readouterr()
    assert main(["evaluate", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_help_is_quick_and_has_examples() -> None:
    script = (
        "import sys\n"
        "from rose_easyedit.cli import main\n"
        "try: main(['evaluate', '--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not {'torch', 'transformers', 'omegaconf', 'jinja2'} & set(sys.modules)\n"
    )
    words = [sys.executable, "-c", script]
    shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert "  rose-edit evaluate --delta" in shown and "Exit codes: 0 done" in shown


def test_the_edits_own_facts_are_asked_in_the_questions_that_are_known_for_them(
    delta: Path, capsys: pytest.CaptureFixture[str], cache: Path
) -> None:
    report = as_json(capsys, "--delta", str(delta))
    asked = {record["query"] for record in report["records"]}
    assert asked == {query.text for fact in BUNDLED[:3] for query in fact.queries}
    assert report["summary"]["headline"]["wrapped"] == 0
    locality = report["summary"]["locality"]
    assert {"neighbour", "unrelated", "subject"} < set(locality)
    assert 0 < locality["neighbour"]["prompts"] <= 144
    assert locality["subject"]["prompts"] > 0 and locality["subject"]["words_kept"] is not None
    assert report["notes"] == []
    assert report["summary"]["r_specificity"] is None
    assert report["settings"]["stop"] == "end-of-turn token"
    assert len(list(cache.iterdir())) == 1


def test_the_bundled_set_brings_its_wordings_and_the_facts_that_were_not_edited(
    delta: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = as_json(capsys, "--delta", str(delta), "--data", "bundled", "--split", "test")
    assert report["summary"]["facts"] == 3
    assert {r["query"] for r in report["records"]} == {
        query.text for fact in BUNDLED[:3] for query in fact.queries
    }
    assert {record["truth"] for record in report["others"]} == {BUNDLED[3].ground_truth}
    neighbours = report["summary"]["locality"]["neighbour"]
    assert neighbours["prompts"] > 0 and 0 <= neighbours["shared_text"] <= 1
    assert report["summary"]["facts_per_subject"].keys() == {"3"}
    # the rates of the embedded model say nothing about this one
    assert report["summary"]["headline"]["normalised"] is None


def test_the_wide_set_brings_its_own_wordings_and_neighbours() -> None:
    edited = load_facts("test", name="wide")[:2]
    requests = [fact.to_request().as_dict() for fact in edited]
    selection = select_facts(requests, "bundled-wide", split="test")
    assert list(selection.asked) == edited
    assert selection.others and {f.subject for f in selection.others} == {edited[0].subject}
    assert any(prompt.kind == "neighbour" for prompt in selection.locality)
    others = {prompt for prompt in selection.locality if prompt.kind != "subject"}
    assert others <= set(load_locality(edited, "wide")) and others < set(selection.locality)


def test_all_forms_and_autocast_are_passed_on(
    delta: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--delta", str(delta), "--data", "bundled", "--all-forms", "--autocast"]
    report = as_json(capsys, *words)
    assert {"multi-turn chat", "with distracting context"} < set(report["summary"]["forms"])
    assert report["settings"]["autocast"] == "bfloat16"


def test_tables_are_printed_and_a_report_is_written(
    delta: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    folder = tmp_path / "report"
    words = ["evaluate", "--delta", str(delta), "--data", "bundled", "--report", str(folder)]
    capsys.readouterr()
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert all(column in shown for column in TABLE)
    assert "same next token" in shown and "generic text" in shown and "3 facts" in shown
    assert str(folder / "index.html") in shown
    results = json.loads((folder / "results.json").read_text())
    assert results["summary"]["facts"] == 3
    page = (folder / "index.html").read_text()
    assert BUNDLED[0].questions[0] in page
    assert main(words) == 0  # over the earlier one
    assert sorted(path.name for path in folder.iterdir()) == ["index.html", "results.json"]


def test_tasks_of_the_harness_are_scored_with_the_rest(
    delta: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    seen: list[Any] = []

    def run(model: Any, tokenizer: Any, delta: Any, tasks: list[str], *, limit: int) -> Any:
        seen.append((tasks, limit))
        before = {"piqa": {"acc": 0.61, "ppl": float("inf")}}
        return {"settings": {}, "before": before, "after": {"piqa": {"acc": 0.6, "ppl": 9.0}}}

    monkeypatch.setattr("rose_easyedit.evaluation.harness.require_harness", lambda: None)
    monkeypatch.setattr("rose_easyedit.evaluation.harness.run_harness", run)
    words = ["evaluate", "--delta", str(delta), "--lm-eval", "piqa, arc_easy"]
    words += ["--report", str(tmp_path / "report")]
    capsys.readouterr()
    assert main([*words, "--lm-eval-limit", "10"]) == 0
    assert seen == [(["piqa", "arc_easy"], 10)]
    shown = capsys.readouterr().out
    assert "piqa: acc" in shown and "0.610" in shown and "0.600" in shown
    results = json.loads((tmp_path / "report" / "results.json").read_text())
    assert results["lm_eval"]["before"]["piqa"] == {"acc": 0.61, "ppl": None}


def test_a_narrow_terminal_gets_the_wide_table_in_parts(
    delta: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    capsys.readouterr()
    assert main(["evaluate", "--delta", str(delta)]) == 0
    shown = capsys.readouterr().out
    assert shown.count("Answers about the edited facts") == 3
    assert all(word in shown for word in ("statement", "faithful", "interference", "normalised"))


def test_a_data_file_is_matched_by_subject_prompt_and_target(
    delta: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    other = {"subject": "Oslo", "prompt": "Oslo is in", "target_new": "Peru"}
    changed = {**REQUESTS[1], "target_new": "something else"}
    data = tmp_path / "facts.json"
    data.write_text(json.dumps([other, REQUESTS[0], changed]))
    report = as_json(capsys, "--delta", str(delta), "--data", str(data))
    assert report["summary"]["facts"] == 1
    (missing,) = report["notes"]
    assert missing == "2 of the edit's 3 facts are not in the data"
    data.write_text(json.dumps([other, {"prompt": 3}, {"prompt": 4}, REQUESTS[0]]))
    assert main(["evaluate", "--delta", str(delta), "--data", str(data)]) == 2
    report = as_json(capsys, "--delta", str(delta), "--data", str(data), "--skip-bad")
    assert report["notes"][0].startswith(
        "2 records of the data do not fit and were left out; the first: record 1: "
    )


def test_data_without_an_edited_fact_is_refused(
    delta: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "--delta", str(delta), "--data", "bundled", "--split", "validation"]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "None of the 40 facts of 'bundled'" in error and REQUESTS[0]["prompt"] in error


@pytest.mark.parametrize(
    ("more", "part"),
    [
        (["--split", "test"], "--data bundled"),
        (["--data", "bundled", "--split", "train"], "validation, test"),
        (["--data", "nowhere.json"], "nowhere.json"),
        (["--facts-per-subject", "4"], "4 or more facts"),
        (["--model", "no/such-model"], "no/such-model"),
        (["--report", __file__], "is a file"),
    ],
)
def test_wrong_input_ends_with_2_and_names_it(
    delta: Path, capsys: pytest.CaptureFixture[str], more: list[str], part: str
) -> None:
    assert main(["evaluate", "--delta", str(delta), *more]) == 2
    assert part in capsys.readouterr().err


def test_a_report_that_cannot_be_written_is_found_out_before_the_model_loads(
    delta: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rose_easyedit.models.loading.load_model", None)
    assert main(["evaluate", "--delta", str(delta), "--report", "/proc/report"]) == 1
    assert "/proc cannot be written to" in capsys.readouterr().err


def test_another_model_is_refused_before_it_is_asked(
    delta: Path, tmp_path: Path, tiny_llama: Any, tiny_tokenizer: Any, cache: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    import torch

    with torch.no_grad():
        tiny_llama.model.layers[1].mlp.down_proj.weight.mul_(2)
    for part in (tiny_llama, tiny_tokenizer):
        part.save_pretrained(tmp_path / "other")
    assert main(["evaluate", "--delta", str(delta), "--model", str(tmp_path / "other")]) == 2
    assert "another model" in capsys.readouterr().err
    assert not cache.exists()


def test_a_model_without_a_chat_template_is_asked_as_a_base_model(
    tmp_path: Path, tiny_llama: Any, tiny_tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    import copy

    plain = copy.deepcopy(tiny_tokenizer)
    plain.chat_template = None
    for part in (tiny_llama, plain):
        part.save_pretrained(tmp_path / "plain")
    edit = write_edit(tmp_path, tmp_path / "plain", REQUESTS)
    report = as_json(capsys, "--delta", str(edit), "--data", "bundled", "--all-forms")
    assert set(report["summary"]["forms"]) == set(ALL_FORMS)
    assert any(prompt["chat"] for prompt in report["locality"])
    assert "Question: ... Answer:" in report["notes"][-1]
    assert report["settings"]["base_model"]


def test_drawn_facts_leave_the_other_edited_ones_out_of_what_was_not_edited() -> None:
    selection = select_facts(REQUESTS, "bundled", facts_per_subject=1)
    assert len(selection.asked) == 1 and len(selection.edited) == 3
    assert [fact.relation for fact in selection.others] == [BUNDLED[3].relation]
    assert selection.notes == ["1 of 3 facts were drawn, 1 each"]
    with pytest.raises(RoSEError, match="does not say which facts"):
        select_facts([], None)


def test_neighbours_of_a_large_file_are_thinned(tmp_path: Path) -> None:
    record = {
        "case_id": 0,
        "requested_rewrite": {
            "prompt": "{} is in",
            "subject": "Oslo",
            "target_new": {"str": "Peru"},
            "target_true": {"str": "Norway"},
            "relation_id": "P1",
        },
        "paraphrase_prompts": ["Oslo lies in"],
        "neighborhood_prompts": [f"City number {i} is in" for i in range(500)],
        "attribute_prompts": [],
        "generation_prompts": [],
    }
    data = tmp_path / "counterfact.json"
    data.write_text(json.dumps([record]))
    request = {"prompt": "Oslo is in", "subject": "Oslo", "target_new": "Peru"}
    selection = select_facts([request], str(data))
    neighbours = [p.text for p in selection.locality if p.kind == "neighbour"]
    assert len(neighbours) == len(set(neighbours)) == 200
    assert "200 of the data's 500 neighbours" in selection.notes[-1]
