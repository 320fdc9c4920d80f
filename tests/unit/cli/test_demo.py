"""The demonstration's tables say what the records say, and the model comes back unedited."""

from __future__ import annotations

import html
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from rose_easyedit.cli.demo import demo_facts, main, run_demo
from rose_easyedit.cli.demo_page import render_demo
from rose_easyedit.cli.demo_tables import (
    answers_text,
    kept_text,
    mark_target,
    shares,
    totals_table,
)
from rose_easyedit.config.hparams import RoSEHyperParams
from rose_easyedit.evaluation.evaluate import EvaluationSettings

METHODS = ("memit-merge", "rose")


@pytest.fixture
def quick_methods() -> list[tuple[str, RoSEHyperParams]]:
    hparams = [RoSEHyperParams.preset(name) for name in METHODS]
    for each in hparams:
        each.layers = [1, 2]
        each.n_contexts = 2
        each.alignment.statistics_tokens = 300
        each.alignment.protected_directions = 8  # of the tiny model's few
        each.alignment.preserved_columns = min(8, each.alignment.preserved_columns)
        each.hierarchy.fact_steps = each.hierarchy.subject_steps = 2
    return list(zip(("A", "B"), hparams, strict=True))


def test_tables_show_every_query_and_the_model_is_restored(
    tiny_llama: Any,
    tiny_tokenizer: Any,
    quick_methods: list[tuple[str, RoSEHyperParams]],
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ROSE_EASYEDIT_CACHE", str(tmp_path))
    facts, others = (some[:5] for some in demo_facts())
    weights = {name: value.clone() for name, value in tiny_llama.state_dict().items()}
    settings = EvaluationSettings(max_new_tokens=2)
    parts: list[str] = []

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        parts.append(name)
        yield

    outcomes = run_demo(tiny_llama, tiny_tokenizer, facts, others, quick_methods, settings, stage)
    assert all(torch.equal(value, weights[key]) for key, value in tiny_llama.state_dict().items())
    assert [outcome.name for outcome in outcomes] == ["A", "B"]
    assert all(max(outcome.result.kl) > 0 for outcome in outcomes)

    assert parts == [
        "asking the unedited model",
        *("editing with A", "asking the edited model"),
        *("editing with B", "asking the edited model"),
    ]
    console = Console(file=io.StringIO(), width=400)
    console.print(totals_table(outcomes), answers_text(outcomes), kept_text(outcomes))
    text = console.file.getvalue()
    page = render_demo("What was done.", outcomes)
    for fact in facts:
        assert len(fact.queries) == 4
        assert all(html.escape(query.text) in page for query in fact.queries)
        assert any(query.text in text for query in fact.queries if query.form == "question")
    assert "seconds for the edit" in text and text.count("before") == 5

    written, kept = shares(outcomes)
    assert [list(written), list(kept)] == [["A", "B"]] * 2
    answers = [r.faithful for r in outcomes[1].result.records if r.form == "question"]
    assert written["B"]["questions"] == sum(answers) / len(answers)
    near = outcomes[0].result.summary()["locality"]["neighbour"]["top1"]
    assert kept["A"]["next token\nof other subjects"] == near


def test_two_facts_of_each_subject_are_written_and_the_others_asked() -> None:
    facts, others = demo_facts()
    assert [len(facts), len(others)] == [8, 8]
    assert {f.subject for f in facts} == {f.subject for f in others}
    assert [len(some) for some in demo_facts(every=True)] == [24, 0]


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        (" The capital is\n Lisbon, yes.", "The capital is [Lisbon], yes."),
        ("Tirana, not Lisbonne", "Tirana, not Lisbonne"),
        ("In portugal they say so", "In [portugal] they say so"),
        ("[link] to lisbon [1]", "[link] to [lisbon] [1]"),
        ("x" * 50, "x" * 30 + "..."),
        ("word " * 10 + "Lisbon and more", "... word word word word [Lisbon]..."),
        ("", ""),
    ],
)
def test_the_target_is_marked_in_one_line(answer: str, shown: str) -> None:
    assert mark_target(answer, ["Lisbon", "Portugal"], width=30).plain == shown


def test_the_mark_is_bold_green_on_terminals() -> None:
    marked = mark_target("to Lisbon", ["Lisbon"])
    assert [(marked.plain[span.start : span.end], span.style) for span in marked.spans] == [
        ("[Lisbon]", "bold green")
    ]


def test_its_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    assert "  rose-edit demo --all-facts" in shown and "Exit codes: 0 done" in shown


def test_a_model_is_edited_with_its_own_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "demo.html"
    assert main(["--model", "tiny-random", "--out", str(page)]) == 0
    assert page.is_file() and "In total" in capsys.readouterr().out
