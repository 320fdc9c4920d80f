"""The page of a sweep: what is on it, what it makes of damage, and that a browser can use it."""

from __future__ import annotations

import html
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from pages import ATTACK, Tags, browse, needs_browser
from sweeps import CODE, STARTED, a_result, end_sweep, write_failure, write_run, write_sweep

from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.edits.factors import Factors
from rose_easyedit.errors import RoSEError
from rose_easyedit.experiment.job_list import Job, write_list
from rose_easyedit.experiment.report import PAGE, main, write_sweep_report
from rose_easyedit.experiment.report_data import DAMAGED, _evaluation, read_sweep
from rose_easyedit.experiment.report_metrics import metrics_of
from rose_easyedit.experiment.report_points import read_curves
from rose_easyedit.experiment.report_queries import query_data
from rose_easyedit.experiment.status import JOBS
from rose_easyedit.experiment.summary_table import SUMMARY_JSON
from rose_easyedit.tracking.curves import log_edit
from rose_easyedit.tracking.jsonl import JsonlTracker
from rose_easyedit.tracking.layout import DELTA_FILE
from rose_easyedit.tracking.tracker import RunInfo, TrackingSettings


def test_its_help_has_examples_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    assert "  rose-report outputs/" in shown and "Exit codes: 0 done" in shown


def test_the_page_names_the_sweep_and_has_a_row_for_each_job(tmp_path: Path) -> None:
    page = write_sweep_report(write_sweep(tmp_path / "grid"))
    assert page == tmp_path / "grid" / PAGE
    text = page.read_text()
    for words in ("<h1>grid</h1>", "a-model, facts of core (test)", CODE, STARTED, "10"):
        assert words in text
    jobs = text[text.index('id="jobs-body"') : text.index("</tbody>")]
    assert jobs.count("<tr data-job") == 4
    status = json.loads((tmp_path / "grid" / "runs" / "r2" / "status.json").read_text())
    result = json.loads((tmp_path / "grid" / "runs" / "r2" / "result.json").read_text())
    rate, (low, high) = (
        status["metrics"]["question"],
        result["summary"]["forms"]["question"]["interval"],
    )
    row = jobs.split("<tr data-job")[3]
    assert f"{rate:.0%} <small>[{100 * low:.0f}\u2013{100 * high:.0f}]</small>" in row
    assert "covariance" in row and "0.300" in row and ">2.5 s<" in row
    assert "data=core" not in row  # all jobs have it


def test_poor_numbers_say_so_and_only_judged_ones_are(tmp_path: Path) -> None:
    text = write_sweep_report(write_sweep(tmp_path / "grid")).read_text()
    jobs = text[text.index('id="jobs-body"') : text.index("</tbody>")]
    cells = re.findall(r'<td class="number (\w+)(?: more)?" data-value="([^"]*)">(.*?)</td>', jobs)
    assert {tone for tone, _, _ in cells} == {"good", "bad"}
    assert all(("poor" in shown) == (tone == "bad") for tone, _, shown in cells)
    metrics = {metric.name: metric for metric in metrics_of(read_sweep(tmp_path / "grid"))}
    assert (metrics["question"].tone(0.5), metrics["question"].tone(0.8)) == ("bad", "good")
    assert metrics["named"].tone(0.0) == metrics["kl"].tone(9.0) == metrics["top1"].tone(None) == ""
    assert metrics["broken"].less_is_better and not metrics["broken"].length


def test_a_job_that_has_not_finished_is_there_with_its_error_and_command(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    write_run(sweep, "good", ["alignment=isotropic"], a_result(0.5, 0.1))
    write_failure(sweep, "bad", ["alignment=covariance"], "no memory\nat layer 3")
    end_sweep(
        sweep,
        [
            ("good", ["alignment=isotropic"]),
            ("bad", ["alignment=covariance"]),
            ("", ["alignment=null_space"]),
        ],
    )
    text = write_sweep_report(sweep).read_text()
    assert "no memory\nat layer 3" in text
    for alignment in ("covariance", "null_space"):
        assert f"<pre>rose-experiment alignment={alignment}</pre>" in text
    assert "<pre>rose-experiment alignment=isotropic</pre>" not in text
    assert re.search(r"not started</span><b>1</b>", text)


def test_jobs_that_never_began_are_no_damage_and_the_command_that_goes_on_is_shown(
    tmp_path: Path,
) -> None:
    write_sweep(tmp_path)
    jobs = [Job(n, f"r{n}", [f"seed={n}"]) for n in range(4)]
    write_list(tmp_path, jobs, "rose-experiment -m seed=0,1,2,3 'name=a b'")
    (tmp_path / SUMMARY_JSON).unlink()  # an interrupted sweep has none
    for run in ("r2", "r3"):
        shutil.rmtree(tmp_path / "runs" / run)
    text = write_sweep_report(tmp_path).read_text()
    assert DAMAGED not in text and "resume=false" not in text and "cannot be read" not in text
    assert re.search(r"not started</span><b>2</b>", text)
    assert "2 jobs of 4 are left" in text
    assert "<pre>rose-experiment -m seed=0,1,2,3 &#39;name=a b&#39;</pre>" in text


def test_a_run_that_is_gone_is_damage(tmp_path: Path) -> None:
    shutil.rmtree(write_sweep(tmp_path) / "runs" / "r2")
    assert [row.state for row in read_sweep(tmp_path).rows].count(DAMAGED) == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "it is cut short, or no such file as rose-experiment writes"),
        (b'{"summary": {}}', "it lacks 'r_specificity'"),
        (b"[]", "it holds something else than rose-experiment writes"),
    ],
)
def test_faults_are_said_in_words(tmp_path: Path, content: bytes, said: str) -> None:
    (write_sweep(tmp_path) / "runs" / "r1" / "result.json").write_bytes(content)
    text = html.unescape(write_sweep_report(tmp_path).read_text())
    assert (
        f"result.json cannot be read ({said})" in text and "Error" not in text.split("<script")[0]
    )


def test_amounts_are_in_words(tmp_path: Path) -> None:
    write_run(tmp_path, "r0", ["seed=1"], a_result(0.5, 0.1, facts=1))
    path = tmp_path / "runs" / "r0" / "status.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seconds": {"all": 200.1}}))
    end_sweep(tmp_path, [("r0", ["seed=1"])])
    text = write_sweep_report(tmp_path).read_text()
    assert "1 fact about 1 subject, 3 queries" in text
    assert "3 min 20 s" in text and "of 1 job<" in text


def test_without_a_finished_run_the_page_tells_why(tmp_path: Path) -> None:
    write_failure(tmp_path, "bad", ["seed=1"], "no memory")
    end_sweep(tmp_path, [("bad", ["seed=1"])])
    text = write_sweep_report(tmp_path).read_text()
    assert "no memory" in text and "No job has finished" in text
    assert "data-plot=" not in text and 'id="answers-of"' not in text
    assert len(text) < 50_000  # Plotly has nothing to draw


@pytest.mark.parametrize(
    ("file", "content", "named"),
    [
        ("result.json", b'{"summary": {"forms"', "result.json cannot be read"),
        ("result.json", b'{"summary": {}}', "result.json cannot be read"),
        ("result.json", b"\xff\xfe", "result.json cannot be read"),
        ("result.json", None, "result.json cannot be read"),
        ("metrics.jsonl", b'{"event": "log", "axis": "fact/st', "curves cannot be read"),
        ("metrics.jsonl", b"[1]\n", "curves cannot be read"),
        ("metrics.jsonl", None, "damaged or no edit"),
        ("config.yaml", b"hparams: [", "config.yaml cannot be read"),
        ("status.json", b'{"id": "r1", "st', "status.json is missing or damaged"),
        ("status.json", b'{"id": "r1", "state": "finished", "metrics": null}', "or damaged"),
        ("status.json", b'{"id": "r1", "state": "finished", "started": 3}', "or damaged"),
        ("status.json", None, "status.json is missing or damaged"),
    ],
)
def test_a_damaged_run_is_named_and_the_rest_is_shown(
    tmp_path: Path, file: str, content: bytes | None, named: str
) -> None:
    path = write_sweep(tmp_path) / "runs" / "r1" / file
    path.unlink() if content is None else path.write_bytes(content)
    text = write_sweep_report(tmp_path).read_text()
    (fault,) = re.findall(r"<li>runs/r1: (.*)</li>", text)
    assert named in fault
    assert "by job 3." in text and text.count("<tr data-job") == 4
    lost = file == "status.json"
    assert (f'"verdict bad">{DAMAGED}' in text) == lost
    assert ("by job 1." in text) == (file not in ("status.json", "result.json"))


@pytest.mark.parametrize("made", ["missing", "empty", "file", "run", "damaged"])
def test_a_folder_that_is_no_sweep_is_refused(tmp_path: Path, made: str) -> None:
    folder = tmp_path / "folder"
    if made == "file":
        folder.write_text("")
    elif made == "run":
        folder = write_sweep(folder) / "runs" / "r0"
    elif made == "damaged":
        write_sweep(folder)
        (folder / JOBS / "0.json").write_text("{")
        (folder / SUMMARY_JSON).write_text("{")
    elif made == "empty":
        folder.mkdir()
    said = {"run": "is a single run", "empty": "is no sweep", "damaged": "list of jobs cannot be"}
    with pytest.raises(RoSEError, match=said.get(made, "There is no folder")):
        write_sweep_report(folder)
    assert not (folder / PAGE).exists()


def test_the_list_of_jobs_or_the_summary_will_do(tmp_path: Path) -> None:
    write_sweep(tmp_path)
    (tmp_path / JOBS / "0.json").write_text("{")
    sweep = read_sweep(tmp_path)
    assert len(sweep.done) == 4
    assert "The list of jobs cannot be read" in sweep.notes[0]
    write_sweep(tmp_path / "other")
    (tmp_path / "other" / SUMMARY_JSON).unlink()
    assert len(read_sweep(tmp_path / "other").done) == 4


def test_a_summary_of_another_command_is_not_believed(tmp_path: Path) -> None:
    write_sweep(tmp_path)
    for path in (tmp_path / JOBS).iterdir():
        path.unlink()
    summary = (tmp_path / SUMMARY_JSON).read_bytes()
    write_run(tmp_path, "new", ["seed=3"], a_result(0.5, 0.1))
    end_sweep(tmp_path, [("new", ["seed=3"])])
    (tmp_path / SUMMARY_JSON).write_bytes(summary)
    sweep = read_sweep(tmp_path)
    assert [row.run for row in sweep.rows] == ["new"]
    assert "4 more runs in runs/ of earlier commands are not on this page" in sweep.notes[0]


def test_numbers_that_are_none_are_left_out(tmp_path: Path) -> None:
    path = write_sweep(tmp_path) / "runs" / "r0" / "status.json"
    status = json.loads(path.read_text())
    status["metrics"] |= {"kl": float("nan"), "question": "many", "top1": 10**400}
    path.write_text(json.dumps(status))
    row = read_sweep(tmp_path).rows[0]
    assert row.metrics.keys() & {"kl", "question", "top1", "statement"} == {"statement"}
    assert "many" not in write_sweep_report(tmp_path).read_text()


def test_a_rate_of_one_subject_has_no_interval(tmp_path: Path) -> None:
    found = _evaluation(write_run(tmp_path, "r0", [], a_result(0.5, 0.1)))
    assert set(found.intervals) == {"statement", "question", "instruction"}


@pytest.mark.parametrize("values", ["number", "damage"])
def test_a_summary_of_other_types_is_named_and_the_list_is_shown(
    tmp_path: Path, values: str
) -> None:
    path = write_sweep(tmp_path) / SUMMARY_JSON
    summary = json.loads(path.read_text())
    summary["jobs"][1]["swept"] = {"alignment": 3} if values == "number" else None
    path.write_text(json.dumps(summary))
    sweep = read_sweep(tmp_path)
    assert len(sweep.done) == 4
    assert "summary.json cannot be read" in sweep.notes[0]
    assert write_sweep_report(tmp_path).is_file()


def test_points_that_are_no_numbers_are_left_out_of_curves(tmp_path: Path) -> None:
    path = write_sweep(tmp_path) / "runs" / "r0" / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    lines[2] = lines[2].replace('"values": {"fact/loss": ', '"values": {"fact/loss": NaN, "x": ')
    path.write_text("".join(lines))
    whole = read_curves(tmp_path / "runs" / "r1")["fact/loss"]
    assert len(read_curves(path.parent)["fact/loss"]) == len(whole) - 1


def test_pictures_of_many_jobs_are_shown_as_far_as_a_page_can_be_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, jobs = ("deviation", "landscape"), [(f"r{n}", [f"seed={n}"]) for n in range(4)]
    for name, words in jobs:
        folder = write_run(tmp_path, name, words, a_result(0.5, 0.1)) / "figures"
        (folder / "radius.png").unlink()
        for figure in names:
            (folder / f"{figure}.svg").write_text(f"<svg>{'x' * 995}")  # 1000 bytes
    end_sweep(tmp_path, jobs)

    def shown() -> tuple[str, list[int]]:
        page = write_sweep_report(tmp_path).read_text()
        return page, [page.count(f'alt="{name} of ') for name in names]

    page, counts = shown()
    assert counts == [4, 4] and "deviation (4)" in page
    for most, each in ((2 * 2500, 2), (1, 1)):
        monkeypatch.setattr("rose_easyedit.experiment.report._MOST_OF_PICTURES", most)
        page, counts = shown()
        assert counts == [each, each]
        assert f"deviation (4, the first {each} shown; the others are in their runs" in page


def hostile(folder: Path) -> Path:
    """A sweep in which every text is an attack."""
    name = ATTACK.replace("/", "")
    sweep = folder / f"{name} & \u4e2d '\""
    words = [f"data.source={ATTACK}", "seed=1"]
    result = a_result(0.5, 0.1).as_dict()
    for record in result["records"]:
        record |= {key: ATTACK for key in ("subject", "query", "target", "before", "answer")}
        record["answer"] += "</script>\ud800"
    run = write_run(sweep, "r0", words, a_result(0.5, 0.1))
    (run / "result.json").write_text(json.dumps(result))
    (run / "figures" / f"{name}.svg").write_text(f"<svg>{ATTACK}</svg>")
    config = {"hparams": {"model_name": ATTACK}, "data": {"source": ATTACK, "split": ATTACK}}
    (run / "config.yaml").write_text(json.dumps(config))
    write_failure(sweep, "r1", ["seed=2"], ATTACK)
    end_sweep(sweep, [("r0", words), ("r1", ["seed=2"])])
    return sweep


def test_nothing_in_it_is_run_or_fetched(tmp_path: Path) -> None:
    page = write_sweep_report(hostile(tmp_path), tmp_path / "page.html").read_text()
    tags = Tags(page).seen
    scripts = [attributes for tag, attributes in tags if tag == "script"]
    assert scripts == [
        {"type": "application/json", "id": "plots"},
        {"type": "application/octet-stream", "id": "plotly"},
        {"type": "application/json", "id": "data"},
        {},
    ]
    for tag, attributes in tags:
        assert not [name for name in attributes if name.startswith("on")]
        assert not {"action", "srcset", "xlink:href"} & attributes.keys()
        assert attributes.get("href", "#").startswith("#")
        if "src" in attributes:
            assert tag == "img" and str(attributes["src"]).startswith("data:image/")
    assert page.count("&lt;script&gt;") > 5 and "\\u003cscript" in page
    outside = re.sub(r"data:image/[^\"]*", "", page)
    assert not re.search(r"https?://|@import|url\(", outside)
    (policy,) = (str(a["content"]) for t, a in tags if t == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'")


def test_what_jobs_share_is_embedded_once(tmp_path: Path) -> None:
    data = query_data(read_sweep(write_sweep(tmp_path)))
    assert len(data["queries"]) == 12 + 1 + 1  # edited, another fact, another prompt
    assert {len(answers) for answers in data["runs"].values()} == {14}
    assert [job[0] for job in data["jobs"]] == [0, 1, 2, 3]
    number, after, verdicts = data["runs"]["r3"][0]
    assert data["queries"][number][:3] == ["Town 0", "country", "statement"]
    assert after == ["It is in ", "Peru", ", by job 3."] or after == "It is in Norway, by job 3."
    assert [data["verdicts"][verdict][0] for verdict in verdicts]


def test_the_command_says_where_the_page_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_sweep(tmp_path / "sweep")
    out = tmp_path / "pages" / "one.html"
    assert main([str(tmp_path / "sweep"), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n" and out.is_file()
    assert main([str(tmp_path / "nothing")]) == 2
    assert "There is no folder" in capsys.readouterr().err
    assert main([str(tmp_path / "sweep"), "--out", "/proc/page.html"]) == 1
    told = capsys.readouterr().err
    assert "'/proc/page.html' cannot be written" in told and "in the folder '/proc'" in told
    assert ".part" not in told
    assert main([str(tmp_path / "sweep"), "--out", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err


@needs_browser
def test_a_browser_runs_nothing_of_a_hostile_sweep(tmp_path: Path) -> None:
    page = write_sweep_report(hostile(tmp_path), tmp_path / "page.html")
    script = "found('answers-of').open = true; found('job').value = ''; showAnswers();"
    shown = browse(tmp_path, with_script(page, script), "--dump-dom", "--virtual-time-budget=5000")
    assert 'class="main-svg"' in shown  # the pictures are there
    assert "&lt;script&gt;" in title_of(shown)
    body = shown[shown.index('id="answers-body"') :]
    assert body.count("&lt;script&gt;") > 10
    assert not [a for tag, a in Tags(shown).seen if tag == "img" and "onerror" in a]


@needs_browser
def test_a_browser_sorts_finds_and_shows(tmp_path: Path) -> None:
    page = write_sweep_report(write_sweep(tmp_path / "sweep", facts=60))
    script = """
      const said = {};
      const set = (id, value) => {
        found(id).value = value;
        found(id).dispatchEvent(new Event("input"));
      };
      const order = () => [...body.rows].map((row) => row.cells[0].textContent).join("");
      const heading = (name) => titles.find((title) => title.textContent === name);
      heading("KL").click(); said.up = order();
      heading("KL").click(); said.down = order();
      heading("alignment").click(); said.words = order();
      set("search-jobs", "covariance joint"); said.jobs = found("count-jobs").textContent;
      set("search-jobs", "");
      said.before_opening = document.querySelectorAll("#answers-body tr").length;
      found("answers-of").open = true;
      found("answers-of").addEventListener("toggle", () => {
        const rows = () => document.querySelectorAll("#answers-body tr").length;
        said.first = [rows(), found("count").textContent];
        found("more").click(); said.more = [rows(), found("more").hidden];
        set("job", ""); said.all = found("count").textContent;
        set("form", "question"); said.form = found("count").textContent;
        set("search", "NORWAY \\"job 2.\\"".replaceAll('"', ""));
        said.marks = document.querySelectorAll("#answers-body mark").length;
        set("verdict", "faithful"); said.named = rows();
        document.title = JSON.stringify(said);
      }, { once: true });
    """
    copy = with_script(page, script)
    shown = browse(tmp_path, copy, "--dump-dom", "--virtual-time-budget=5000")
    said = json.loads(html.unescape(title_of(shown)))
    marks, named = said.pop("marks"), said.pop("named")
    assert marks == named  # "Norway" is what was answered before
    assert said == {
        "up": "0123",
        "down": "3210",
        "words": "3210",
        "jobs": "1 of 4",
        "before_opening": 0,
        "first": [100, "182 of 182"],
        "more": [182, True],
        "all": "728 of 728",
        "form": "240 of 728",
    }


@needs_browser
def test_a_browser_draws_and_brushes_under_the_policy_of_the_page(tmp_path: Path) -> None:
    page = write_sweep_report(write_sweep(tmp_path / "sweep"))
    script = """
      const said = { refused: [] };
      addEventListener("securitypolicyviolation", (event) => said.refused.push(event.blockedURI));
      addEventListener("unhandledrejection", (event) => said.refused.push(String(event.reason)));
      const lit = () => [...document.querySelectorAll(".scatterlayer .lit")];
      const shown = () => [...body.rows].filter((row) => !row.hidden).map((row) => row.dataset.job);
      const heat = (name) => document.querySelector(`[data-metric=${name}] [data-plot]`);
      ready.then(async () => {
        const [first] = places;
        said.undrawn = places.filter((place) => place.checkVisibility() && !place.on).length;
        said.visible = found("undrawn").hidden;
        const line = first.querySelector(".tracejob0 path.js-line");
        said.colour = getComputedStyle(line).stroke;
        said.before = Boolean(heat("kl").on);
        found("metric").value = "kl";
        found("metric").dispatchEvent(new Event("input"));
        await drawAll();
        said.after = [Boolean(heat("kl").on),
          Boolean(heat("kl").querySelector(".heatmaplayer image")),
          document.querySelectorAll("figure[data-metric]:not([hidden])").length];
        body.rows[2].dispatchEvent(new FocusEvent("focusin", { bubbles: true }));
        said.lit = [lit().length > 3, lit().every((one) => one.classList.contains("tracejob2"))];
        document.body.dispatchEvent(new Event("pointerover", { bubbles: true }));
        said.dark = document.body.classList.contains("told");
        const plane = first.querySelector(".nsewdrag");
        const { left, top } = plane.getBoundingClientRect();
        const { _fullLayout: { xaxis, yaxis } } = first;
        const mouse = (kind, x, y) => (kind === "mousedown" ? plane : document).dispatchEvent(
          new MouseEvent(kind, { bubbles: true, buttons: kind === "mouseup" ? 0 : 1,
            clientX: left + xaxis.d2p(x), clientY: top + yaxis.d2p(y) }));
        mouse("mousedown", -0.2, 0.05);
        mouse("mousemove", 0.1, 0.4);
        mouse("mousemove", 0.2, 0.5);
        mouse("mouseup", 0.2, 0.5);
        await new Promise((done) => setTimeout(done, 300));
        said.brushed = [shown(), found("all-jobs").hidden, lit().length > 3];
        await drawAll();
        said.kept = first.layout.selections.length;
        found("all-jobs").click();
        await new Promise((done) => setTimeout(done, 50));
        said.all = [shown().length, lit().length, found("all-jobs").hidden];
        document.title = JSON.stringify(said);
      });
    """
    shown = browse(tmp_path, with_script(page, script), "--dump-dom", "--virtual-time-budget=9000")
    assert json.loads(html.unescape(title_of(shown))) == {
        "refused": [],
        "undrawn": 0,
        "visible": True,
        "colour": "rgb(0, 114, 178)",
        "before": False,
        "after": [True, True, 1],
        "lit": [True, True],
        "dark": False,
        "brushed": [["2", "3"], False, True],
        "kept": 1,
        "all": [4, 0, True],
    }


def title_of(shown: str) -> str:
    return shown.partition("<title>")[2].partition("</title>")[0]


def with_script(page: Path, script: str) -> Path:
    """A copy of the page that runs the script at its end."""
    copy = page.with_name("copy.html")
    end = f"<script>{{{script}}}</script></body>"
    copy.write_text(page.read_text().replace("</body>", end))
    return copy


def test_the_curves_are_the_same_from_the_events_and_from_the_edit(tmp_path: Path) -> None:
    curve = {"loss": [8.0, 7.0], "drift": [0.5, None], "norm": [0.0, 0.1]}
    layer = {"layer": 3, "residual": 2.0, "update_norm": 1.5, "rounding_loss": 0.0}
    provenance = {"curves": {"facts": curve, "subjects": curve}, "layers": [layer]}
    factors = Factors(torch.ones(4, 1), torch.ones(1, 6), False)
    delta = EditDelta({"layers.3.weight": factors}, "base", provenance)
    delta.save(tmp_path / DELTA_FILE)
    of_edit = read_curves(tmp_path)
    assert of_edit["fact/loss"] == of_edit["subject/loss"] == [(0, 8), (1, 7)]
    assert of_edit["fact/kl"] == [(0, 0.5)]
    assert of_edit["layer/update_norm"] == [(3, 1.5)]
    tracker = JsonlTracker(TrackingSettings(kind="jsonl"))
    for _ in range(2):  # a run that is tried again
        tracker.start(RunInfo("r0", "a run", "sweep", "rose", (), "", tmp_path, {}))
        log_edit(tracker, delta)
    (tmp_path / DELTA_FILE).unlink()
    assert read_curves(tmp_path) == of_edit
