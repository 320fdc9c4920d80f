"""The page shows every answer, needs nothing from elsewhere, and runs no text of a model."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pages import ATTACK, Tags, browse, needs_browser
from results import RECORD, RESULT

from rose_easyedit.errors import RoSEError
from rose_easyedit.evaluation.facts import LocalityPrompt
from rose_easyedit.evaluation.report import render_report, write_report
from rose_easyedit.evaluation.report_answers import TextPart, parts_of
from rose_easyedit.evaluation.report_front import front_of, tone_of
from rose_easyedit.evaluation.report_tables import summary_tables
from rose_easyedit.evaluation.result import LocalityText

CARD = r'<div class="card ?(\w*)"><span class="soft">([^<]*)</span>'


def report(**changes: Any) -> dict[str, Any]:
    names = {"title": "An edit", "model": "a model", "notes": ["a note"], "lm_eval": None}
    return {**names, **RESULT.as_dict(), **changes}


def test_every_answer_is_there_with_its_target_marked() -> None:
    page = render_report(report())
    assert "<mark>Peru</mark>, in <mark>peru</mark> &amp; more" in page
    for text in ("Oslo is in", "Where is Oslo?", "Two and two is", "five", "not edited: Akerselva"):
        assert text in page
    verdicts = re.findall(r'data-verdicts="([^"]*)"', page)
    assert verdicts == [
        "faithful",
        "target missed|subject replaced|broken|old answer",
        "not known before|another fact&#39;s target",
        "answer changed",
    ]
    assert "a note" in page and "An edit" in page


@pytest.mark.parametrize("field", ["title", "model", "notes"])
def test_nothing_in_it_is_run(field: str) -> None:
    page = render_report(report(**{field: [ATTACK] if field == "notes" else ATTACK}))
    tags = Tags(page).seen
    assert [attributes for tag, attributes in tags if tag == "script"] == [{}]
    assert not [tag for tag, _ in tags if tag == "img"]
    assert page.count("&lt;script&gt;") >= 3  # this field, the answer and the system prompt


def test_nothing_comes_from_elsewhere() -> None:
    page = render_report(report())
    for _, attributes in Tags(page).seen:
        assert not {"src", "href", "action", "style-src"} & attributes.keys()
    assert not re.search(r"https?://|@import|url\(", page)


@pytest.mark.parametrize(
    ("answer", "names", "parts"),
    [
        (" in Peru.", ["Peru"], ["in ", "[Peru]", "."]),
        ("Peruvian", ["Peru"], ["Peruvian"]),
        ("North Korea", ["Korea", "North Korea"], ["[North Korea]"]),
        ("C++ and c++", ["C++"], ["[C++]", " and ", "[c++]"]),
        ("S\u00e3o Paulo", ["Sa\u0303o Paulo"], ["[S\u00e3o Paulo]"]),
        ("no names", ["", " "], ["no names"]),
        ("  ", ["Peru"], []),
    ],
)
def test_parts_of_an_answer(answer: str, names: list[str], parts: list[str]) -> None:
    shown = [f"[{part.text}]" if part.marked else part.text for part in parts_of(answer, names)]
    assert shown == parts
    assert all(isinstance(part, TextPart) for part in parts_of(answer, names))


def test_tables_say_what_the_summary_says() -> None:
    front, forms, locality, per_subject, whole = summary_tables(RESULT.summary())
    assert [row.cells for row in front.rows][:5] == [
        ("faithful success", "50%", "", "poor"),
        ("names the target", "50%", "", ""),
        ("another subject in its place", "50%", "", "poor"),
        ("broken answers", "50%", "0% before", "poor"),
        ("exact prefix", "100%", "answers that begin with it", ""),
    ]
    rows = {row.cells[0]: row.cells[1:] for row in forms.rows}
    assert rows["statement"] == (
        "1", "100%", "100%", "0%", "0%", "0%", "100%", "50%", "+50", "0%", "0%", "\u2013",
    )  # fmt: skip
    assert rows["question"][1:6] == ("0%", "0%", "0%", "100%", "100%")
    assert rows["question"][-1] == "0%"
    assert rows["all forms"][:3] == ("2", "50%", "50%") and rows["all forms"][-1] == "0%"
    assert all(len(row.cells) == len(forms.columns) for row in forms.rows)
    assert [row.cells for row in locality.rows] == [
        ("all prompts", "1", "100%", "0.250", "0%", "0%", "0%"),
        ("unrelated", "1", "100%", "0.250", "0%", "0%", "0%"),
        ("generic text", "2", "50%", "0.200", "\u2013", "\u2013", "\u2013"),
    ]
    assert [row.cells[:2] for row in per_subject.rows] == [("2 facts", "1")]
    assert whole.rows[1].cells == ("perplexity of generic text", "10.00", "12.00")
    assert len(whole.rows) == 2  # no true answer was known before
    left_out = replace(RESULT, native={("country", "question"): 0.4})
    (_, of_forms, *_) = summary_tables(left_out.summary())
    assert "as not native: country (question)" in of_forms.hint
    assert of_forms.rows[-1].cells[:3] == ("all forms", "1", "100%")
    two_subjects = replace(RESULT, records=(*RESULT.records, replace(RECORD, subject="Rome")))
    _, of_forms, *_ = summary_tables(replace(two_subjects, edited={"Oslo": 2, "Rome": 1}).summary())
    assert of_forms.rows[0].cells[:3] == ("statement", "2", "100% [100\u2013100]")


def test_a_bad_number_looks_bad_and_says_so() -> None:
    page = render_report(report())
    cards = {name: tone for tone, name in re.findall(CARD, page)}
    assert cards["faithful success"] == cards["broken answers"] == "bad"
    assert cards["other prompts: same next token"] == "good"
    assert cards["names the target"] == ""
    cells = re.findall(r'<span class="verdict bad">poor</span><span class="bar bad">', page)
    poor = page.count('<span class="verdict bad">poor</span>')
    assert list(cards.values()).count("bad") == poor - len(cells) > 0 < len(cells)
    assert page.count('class="bar bad"') == len(cells)
    assert page.count("prefers-color-scheme: dark") == 1 and page.count("--bad-back:") == 2


@pytest.mark.parametrize(
    ("value", "limits", "tone"),
    [
        (0.8, (0.8, 0.5), "good"),
        (0.6, (0.8, 0.5), ""),
        (0.5, (0.8, 0.5), "bad"),
        (0.0, (0.02, 0.1), "good"),
        (0.05, (0.02, 0.1), ""),
        (0.1, (0.02, 0.1), "bad"),
    ],
)
def test_the_limits_of_good_and_poor(value: float, limits: Any, tone: str) -> None:
    assert tone_of(value, limits) == tone


def test_other_queries_of_the_subject_are_first_numbers_and_no_part_of_other_prompts() -> None:
    asked = LocalityPrompt("subject", "Tell me about Oslo.", True, "Oslo")
    result = replace(
        RESULT,
        locality=(*RESULT.locality, asked),
        kl=(0.25, 2.0),
        top1=(True, False),
        texts=(None, LocalityText("Oslo is old", "Peru is old", 0.0, 2 / 3)),
    )
    summary = result.summary()
    assert summary["locality"]["all"]["kl"] == 0.25
    assert summary["locality"]["all"]["words_kept"] is None
    assert summary["locality"]["subject"]["words_kept"] == pytest.approx(2 / 3)
    front = {of.name: of for of in front_of(summary)}
    shown = front["other answers about the subjects: words kept"]
    assert (shown.value, shown.tone) == ("67%", "")
    assert shown.more == "about the subject 0%, same next token 0%, KL 2.000"
    assert summary["locality"]["all"]["subject_kept"] is None
    page = render_report(report(**result.as_dict()))
    assert "about the subject" in page and "Tell me about Oslo." in page


def test_both_files_are_written_over_earlier_ones_and_a_file_is_no_folder(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "report"
    for title in ("first", "second"):
        page = write_report(folder, report(title=title))
    assert page == folder / "index.html" and "second" in page.read_text()
    assert json.loads((folder / "results.json").read_text())["title"] == "second"
    assert len(list(folder.iterdir())) == 2
    with pytest.raises(RoSEError, match="is a file"):
        write_report(page, report())


def test_scores_of_the_harness_are_a_table_of_their_own() -> None:
    scores = {"before": {"piqa": {"acc": 0.6}}, "after": {"piqa": {"acc": 0.55}}}
    page = render_report(report(lm_eval=scores))
    assert "piqa: acc" in page and "0.600" in page and "0.550" in page


@needs_browser
def test_a_browser_shows_and_filters_the_answers(tmp_path: Path) -> None:
    page = write_report(tmp_path / "report", report())
    shown = browse(tmp_path, page, "--dump-dom")
    assert "4 of 4" in shown and "<title>An edit</title>" in shown and "hacked" in shown
    picture = tmp_path / "page.png"
    browse(tmp_path, page, f"--screenshot={picture}", "--window-size=1200,1600")
    assert picture.stat().st_size > 20_000

    cases = {
        "search": {"oslo norway": 2, "where hacked": 1, "no such word": 0},
        "form": {"question": 1},
        "verdict": {"old answer": 1, "answer changed": 1},
    }
    script = (
        f"const cases = {json.dumps(cases)}; const seen = [];"
        "for (const [tool, values] of Object.entries(cases)) {"
        "  const element = document.getElementById(tool);"
        "  for (const value of [...Object.keys(values), '']) {"
        "    element.value = value; element.dispatchEvent(new Event('input'));"
        "    const visible = document.querySelectorAll('#answers tr:not([hidden])').length;"
        "    if (value) seen.push(`${visible} = ${document.getElementById('count').textContent}`);"
        "  }"
        "}"
        "document.title = seen.join(', ');"
    )
    copy = page.with_name("copy.html")
    copy.write_text(page.read_text().replace("</body>", f"<script>{script}</script></body>"))
    counts = ", ".join(f"{n} = {n} of 4" for values in cases.values() for n in values.values())
    assert f"<title>{counts}</title>" in browse(tmp_path, copy, "--dump-dom")
