"""The page of a sweep: what is on it, what it makes of damage, and that a browser can use it."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import pytest
import torch
from pages import ATTACK, Tags, browse, needs_browser
from sweeps import CODE, STARTED, a_result, end_sweep, write_failure, write_run, write_sweep

from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.edits.factors import Factors
from rose_easyedit.errors import RoSEError
from rose_easyedit.experiment.job_list import JOBS
from rose_easyedit.experiment.report import PAGE, main, write_sweep_report
from rose_easyedit.experiment.report_charts import curve_charts, parallel_chart, scatter_chart
from rose_easyedit.experiment.report_data import DAMAGED, Sweep, _evaluation, read_sweep
from rose_easyedit.experiment.report_grid import grids_of
from rose_easyedit.experiment.report_looks import Looks, looks_of
from rose_easyedit.experiment.report_metrics import metrics_of
from rose_easyedit.experiment.report_points import read_curves
from rose_easyedit.experiment.report_queries import query_data
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
    assert f"{rate:.0%} [{100 * low:.0f}\u2013{100 * high:.0f}]" in row
    assert "covariance" in row and "0.300" in row and "2.5" in row
    assert "data=core" not in row  # all jobs have it


def test_poor_numbers_say_so_and_only_judged_ones_are(tmp_path: Path) -> None:
    text = write_sweep_report(write_sweep(tmp_path / "grid")).read_text()
    jobs = text[text.index('id="jobs-body"') : text.index("</tbody>")]
    cells = re.findall(r'<td class="number (\w+)" data-value="([^"]*)">(.*?)</td>', jobs)
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


def test_without_a_finished_run_the_page_tells_why(tmp_path: Path) -> None:
    write_failure(tmp_path, "bad", ["seed=1"], "no memory")
    end_sweep(tmp_path, [("bad", ["seed=1"])])
    text = write_sweep_report(tmp_path).read_text()
    assert "no memory" in text and "No job has finished" in text
    assert "<svg" not in text and 'id="answers-of"' not in text


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
    assert "4 more in runs/ are of earlier commands" in sweep.notes[0]


def test_numbers_that_are_none_are_left_out(tmp_path: Path) -> None:
    path = write_sweep(tmp_path) / "runs" / "r0" / "status.json"
    status = json.loads(path.read_text())
    status["metrics"] |= {"kl": float("nan"), "question": "many", "top1": None}
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
    assert "nan" not in str(curve_charts(*charted(tmp_path)))


def charted(folder: Path) -> tuple[Sweep, Looks]:
    sweep = read_sweep(folder)
    return sweep, looks_of(sweep.done)


def test_an_edit_of_one_layer_is_a_mark_and_a_front_of_one_job_a_ring(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "r0", ["seed=1"], a_result(0.5, 0.1))
    event = {"event": "log", "axis": "layer", "step": 4, "values": {"layer/residual": 0.5}}
    (folder / "metrics.jsonl").write_text(json.dumps(event) + "\n")
    end_sweep(tmp_path, [("r0", ["seed=1"])])
    sweep, looks = charted(tmp_path)
    (chart,) = curve_charts(sweep, looks)
    assert [tag for tag, _ in Tags(chart).seen if tag in ("circle", "polygon")] == ["circle"]
    scatter = Tags(str(scatter_chart(sweep, metrics_of(sweep), looks))).seen
    rings = [tag for tag, a in scatter if a.get("class") == "front" and tag == "circle"]
    assert rings == ["circle"]


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
    assert scripts == [{"type": "application/json", "id": "data"}, {}]
    for tag, attributes in tags:
        assert not [name for name in attributes if name.startswith("on")]
        assert not {"href", "action", "srcset", "xlink:href"} & attributes.keys()
        if "src" in attributes:
            assert tag == "img" and str(attributes["src"]).startswith("data:image/")
    assert page.count("&lt;script&gt;") > 5 and "\\u003cscript" in page
    outside = re.sub(r"data:image/[^\"]*", "", page)
    assert not re.search(r"https?://|@import|url\(", outside)
    (policy,) = (str(a["content"]) for t, a in tags if t == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'")


def test_pictures_draw_each_finished_job(tmp_path: Path) -> None:
    write_sweep(tmp_path)
    sweep = read_sweep(tmp_path)
    metrics, looks = metrics_of(sweep), looks_of(sweep.done)
    assert (looks.colour_key, looks.shape_key) == ("alignment", "hierarchy")
    lines = Tags(parallel_chart(sweep, metrics, looks)).seen
    jobs = [attributes for _, attributes in lines if "data-job" in attributes]
    assert [job["data-job"] for job in jobs] == ["0", "1", "2", "3"]
    assert [job["class"] for job in jobs] == ["job c0", "job c0", "job c1", "job c1"]
    scatter = scatter_chart(sweep, metrics, looks)
    assert scatter is not None
    marks = [tag for tag, _ in Tags(scatter).seen if tag in ("circle", "polygon")]
    assert marks == ["circle", "polygon"] * 2
    (front,) = [a["d"] for _, a in Tags(scatter).seen if a.get("class") == "front"]
    by_kl = sorted(sweep.done, key=lambda row: row.metrics["kl"] or 0)
    best = -1.0
    for row in by_kl:
        best = max(best, row.metrics["asked"] or 0)
    corners = sum(
        (row.metrics["asked"] or 0)
        > max([other.metrics["asked"] or 0 for other in by_kl[:place]], default=-1)
        for place, row in enumerate(by_kl)
    )
    assert front is not None and front.count("L") == 2 * (corners - 1)


def test_scatter_takes_a_form_where_nothing_was_asked_in_chat(tmp_path: Path) -> None:
    path = write_sweep(tmp_path) / "runs" / "r0" / "status.json"
    for path in tmp_path.glob("runs/*/status.json"):
        status = json.loads(path.read_text())
        status["metrics"] = {"statement": 0.5, "kl": 0.1, "asked": None}
        path.write_text(json.dumps(status))
    sweep = read_sweep(tmp_path)
    scatter = scatter_chart(sweep, metrics_of(sweep), looks_of(sweep.done))
    assert scatter is not None and "success: statement" in scatter


def test_grids_hold_means_and_frame_the_best(tmp_path: Path) -> None:
    jobs = []
    for number, (seed, alignment, hierarchy) in enumerate(
        (s, a, h) for s in "01" for a in ("isotropic", "covariance") for h in ("joint", "none")
    ):
        words = [f"alignment={alignment}", f"hierarchy={hierarchy}"]
        words += [f"hparams.alignment.strength={number}", "experiment=x"]
        write_run(tmp_path, f"r{number}", words, a_result(0.5, 0.1 * (number + 1), seed=int(seed)))
        jobs.append((f"r{number}", words))
    end_sweep(tmp_path, jobs)
    sweep = read_sweep(tmp_path)
    grids = [grid for grid in grids_of(sweep, metrics_of(sweep)) if grid.metric.name == "kl"]
    pairs = [(grid.down.rpartition(".")[2], grid.across.rpartition(".")[2]) for grid in grids]
    assert pairs == [
        ("alignment", "hierarchy"),
        ("alignment", "strength"),
        ("hierarchy", "strength"),
    ]
    rows = dict(grids[0].rows)
    assert list(grids[0].columns) == ["joint", "none"]
    cells = [cell for name in ("isotropic", "covariance") for cell in rows[name] if cell]
    assert [cell.text for cell in cells] == ["0.300", "0.400", "0.500", "0.600"]
    assert [cell.best for cell in cells] == [True, False, False, False]
    assert [cell.heat for cell in cells] == [0, 0.333, 0.667, 1]
    assert cells[1].jobs == [1, 5]
    assert None in dict(grids[1].rows)["isotropic"]


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
    shown = browse(tmp_path, with_script(page, script), "--dump-dom")
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
      const cell = document.querySelector("[data-metric=kl] [data-jobs]");
      set("metric", "kl"); said.grid = [cell.checkVisibility(),
        document.querySelectorAll("[data-metric]:not([hidden])").length];
      const line = document.querySelector("svg [data-job='2']");
      // a window without focus, as on a busy machine, tells nobody of focus()
      line.dispatchEvent(new FocusEvent("focusin", {bubbles: true}));
      said.told = found("told").textContent;
      said.lit = [...document.querySelectorAll(".lit")].every((one) => one.dataset.job === "2");
      said.everywhere = document.querySelectorAll(".lit").length;
      document.body.dispatchEvent(new Event("pointerover", {bubbles: true}));
      said.after = document.querySelectorAll(".lit").length;
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
    told = said.pop("told")
    assert told.startswith("job 2: covariance, hierarchical; statement ")
    assert said.pop("everywhere") >= 4
    marks, named = said.pop("marks"), said.pop("named")
    assert marks == named  # "Norway" is what was answered before
    assert said == {
        "up": "0123",
        "down": "3210",
        "words": "3210",
        "jobs": "1 of 4",
        "grid": [True, 1],
        "lit": True,
        "after": 0,
        "before_opening": 0,
        "first": [100, "182 of 182"],
        "more": [182, True],
        "all": "728 of 728",
        "form": "240 of 728",
    }
    picture = tmp_path / "page.png"
    browse(tmp_path, page, f"--screenshot={picture}", "--window-size=1200,1600")
    assert picture.stat().st_size > 40_000


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
