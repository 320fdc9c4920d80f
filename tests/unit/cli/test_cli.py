"""`rose-edit` on a tiny model: what each command writes, prints and returns."""

from __future__ import annotations

import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import LENIENT

from rose_easyedit.cli import main
from rose_easyedit.cli.assignments import assigned
from rose_easyedit.cli.settings import model_settings, shipped_settings
from rose_easyedit.config.hparams import RoSEHyperParams
from rose_easyedit.config.paths import hparams_dir
from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.method.stage1.integration import optimise
from rose_easyedit.models.loading import load_model

FACTS = [
    {"prompt": "Marie Curie worked in", "subject": "Marie Curie", "target_new": "London"},
    {"prompt": "Marie Curie speaks", "subject": "Marie Curie", "target_new": "Spanish"},
]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """A folder with facts, settings for the tiny model, and an edit made by the command itself."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "facts.jsonl").write_text("".join(json.dumps(fact) + "\n" for fact in FACTS))
    (folder / "tiny.yaml").write_text(
        f"model_name: {tiny_folder}\n"
        "layers: [1, 2]\n"
        "hierarchy: {fact_steps: 3, subject_steps: 3}\n"
        "alignment: {protected_directions: 0, preserved_columns: 0}\n"
        f"self_check: {json.dumps(LENIENT)}\n"
    )
    assert main(_edit_words(folder, "edit.safetensors")) == 0
    return folder


def _edit_words(folder: Path, out: str, *more: str) -> list[str]:
    words = ["edit", "--hparams", str(folder / "tiny.yaml")]
    return [*words, "--requests", str(folder / "facts.jsonl"), "--out", str(folder / out), *more]


def _json(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_help_is_quick_and_has_an_example_for_each_command() -> None:
    script = (
        "import sys\n"
        "from rose_easyedit.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'torch', 'transformers', 'omegaconf', 'easyeditor', 'wandb', 'pydantic'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    memory = ("add", "update", "forget", "list", "ask", "history", "export")
    commands = ["edit", "ask", "apply", "export", "combine", "info"]
    commands += [f"memory {name}" for name in memory]
    for command in commands:
        words = [sys.executable, "-c", script, *command.split(), "--help"]
        shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        assert f"  rose-edit {command} " in shown
        assert "Exit codes: 0 done" in shown


def test_edit_reports_every_fact_and_saves_the_edit(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = _json(capsys, *_edit_words(workplace, "again.safetensors"))
    assert [fact["target_new"] for fact in report["facts"]] == ["London", "Spanish"]
    assert all(fact["loss"] > 0 for fact in report["facts"])
    delta = EditDelta.load(report["out"])
    assert list(delta.layers) == [f"model.layers.{i}.mlp.down_proj.weight" for i in (1, 2)]
    assert report["bytes"] == Path(report["out"]).stat().st_size


def test_edit_prints_a_table(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(_edit_words(workplace, "table.safetensors")) == 0
    shown = capsys.readouterr().out
    assert "Marie Curie worked in" in shown
    assert "2 facts about 1 subject in " in shown


def test_settings_come_from_file_then_preset_then_words(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--method", "rose-paper", "--set", "hierarchy.fact_steps=2", "--seed", "7"]
    words += ["--set", "hierarchy.subject_steps=4"]
    main(_edit_words(workplace, "words.safetensors", *words))
    hparams = _json(capsys, "info", str(workplace / "words.safetensors"))["hparams"]
    assert hparams["layers"] == [1, 2]
    assert hparams["key_columns"] == "merged"
    assert hparams["hierarchy"]["fact_steps"] == 2
    assert hparams["hierarchy"]["subject_steps"] == 4
    assert hparams["hierarchy"]["context_batches"] == 4
    assert hparams["alignment"]["protected_directions"] == 0
    assert hparams["seed"] == 7


def test_an_edit_is_not_overwritten_unless_forced(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = workplace / "kept.safetensors"
    kept.write_bytes(b"precious")
    assert main(_edit_words(workplace, kept.name)) == 2
    assert "--force" in capsys.readouterr().err
    assert kept.read_bytes() == b"precious"
    assert main(_edit_words(workplace, kept.name, "--force")) == 0
    assert EditDelta.load(kept).layers


def test_what_was_optimised_before_is_not_optimised_again(
    workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROSE_EASYEDIT_CACHE", str(tmp_path))

    def interrupted(*arguments: Any) -> Any:
        if arguments[-1].name == "subjects":
            raise KeyboardInterrupt
        return optimise(*arguments)

    def refused(*_: Any) -> Any:
        raise AssertionError("optimised again")

    with monkeypatch.context() as patch:
        patch.setattr("rose_easyedit.method.stage1.targets.optimise", interrupted)
        assert main(_edit_words(workplace, "cut_off.safetensors")) == 130
    assert len(list((tmp_path / "shifts").iterdir())) == 1
    assert main(_edit_words(workplace, "first.safetensors")) == 0
    with monkeypatch.context() as patch:
        patch.setattr("rose_easyedit.method.stage1.targets.optimise", refused)
        assert main(_edit_words(workplace, "second.safetensors")) == 0
        softer = ["--set", "alignment.strength=2"]
        assert main(_edit_words(workplace, "softer.safetensors", *softer)) == 0
    first, second, soft = (
        (workplace / f"{name}.safetensors").read_bytes() for name in ("first", "second", "softer")
    )
    assert first == second != soft


def test_ask_shows_both_answers(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["ask", "--delta", str(workplace / "edit.safetensors"), "--max-new-tokens", "4"]
    words += ["--prompt", "Marie Curie worked in", "--plain"]
    report = _json(capsys, *words)
    (answer,) = report["answers"]
    assert answer["prompt"] == "Marie Curie worked in"
    assert answer["before"] != answer["after"]
    assert not report["chat"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "before" in shown and "after" in shown


def test_ask_refuses_more_than_the_model_reads(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["ask", "--delta", str(workplace / "edit.safetensors"), "--prompt"]
    for more in (["so " * 300], ["Who?", "--max-new-tokens", "300"]):
        assert main([*words, *more]) == 2
        captured = capsys.readouterr()
        assert "and the model reads 256 in all" in captured.err and captured.out == ""


def test_ask_reads_questions_until_the_input_ends(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = iter(["Who is Marie Curie?", ""])

    def read(prompt: str) -> str:
        try:
            return next(typed)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", read)
    delta = str(workplace / "edit.safetensors")
    assert main(["ask", "--delta", delta, "--max-new-tokens", "2"]) == 0
    assert capsys.readouterr().out.count("Who is Marie Curie?") == 1


def test_apply_writes_the_edited_model(
    workplace: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    delta_file = workplace / "edit.safetensors"
    out = workplace / "merged"
    capsys.readouterr()
    assert main(["apply", "--delta", str(delta_file), "--out", str(out), "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    report = json.loads(captured.out)
    assert report["out"] == str(out)
    base, _ = load_model(str(tiny_folder))
    merged, _ = load_model(str(out))
    ids = torch.arange(8)[None]
    with EditDelta.load(delta_file).applied(base), torch.no_grad():
        torch.testing.assert_close(merged(ids).logits, base(ids).logits)


def test_export_writes_an_adapter(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = workplace / "adapter"
    _json(capsys, "export", "--delta", str(workplace / "edit.safetensors"), "--lora", str(out))
    assert (out / "adapter_config.json").is_file()


def test_export_writes_an_adapter_for_llama_cpp(
    workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", "--delta", str(workplace / "edit.safetensors")]
    out = tmp_path / "adapter.gguf"
    report = _json(capsys, *words, "--gguf", str(out))
    assert report["kind"] == "GGUF LoRA adapter" and report["out"] == str(out)
    assert out.read_bytes()[:4] == b"GGUF"
    assert "Nothing was measured" in (tmp_path / "adapter.md").read_text()
    assert main([*words, "--gguf", str(out)]) == 2
    assert "exist already; name a new file" in capsys.readouterr().err
    with pytest.raises(SystemExit) as end:
        main([*words, "--gguf", "a", "--lora", "b"])
    assert end.value.code == 2


def test_what_evaluate_measured_is_on_the_card(
    workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    delta = ["--delta", str(workplace / "edit.safetensors")]
    _json(capsys, "evaluate", *delta, "--report", str(tmp_path / "report"))
    result = ["--result", str(tmp_path / "report" / "results.json")]
    for words, card in (
        (["apply", "--out", str(tmp_path / "merged")], "merged/README.md"),
        (["export", "--lora", str(tmp_path / "lora")], "lora/README.md"),
        (["export", "--gguf", str(tmp_path / "a.gguf")], "a.md"),
    ):
        assert main([*words, *delta, *result]) == 0
        text = (tmp_path / card).read_text()
        assert "### Answers about the edited facts" in text and "Marie Curie worked in" in text
    other = EditDelta.load(workplace / "edit.safetensors")
    other.layers.popitem()
    path = str(other.save(tmp_path / "other.safetensors"))
    assert main(["export", "--delta", path, "--lora", str(tmp_path / "other"), *result]) == 2
    assert "is of another edit" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_combine_solves_edits_together_or_adds_them(
    workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newton = {"prompt": "Isaac Newton spoke", "subject": "Isaac Newton", "target_new": "Polish"}
    (tmp_path / "facts.jsonl").write_text(json.dumps(newton))
    words = ["edit", "--hparams", str(workplace / "tiny.yaml")]
    words += ["--requests", str(tmp_path / "facts.jsonl"), "--out", str(tmp_path / "newton")]
    assert main(words) == 0
    edits = [str(workplace / "edit.safetensors"), str(tmp_path / "newton")]
    solved = _json(capsys, "combine", *edits, "-o", str(tmp_path / "solved"))
    total = _json(capsys, "combine", *edits, "--add", "--out", str(tmp_path / "total"))
    for report in (solved, total):
        assert [fact["target_new"] for fact in report["facts"]] == ["London", "Spanish", "Polish"]
    assert "neither solved against" in total["log"][-1] and not solved["log"]
    one, other, added, together = (
        EditDelta.load(path).layers["model.layers.1.mlp.down_proj.weight"].dense()
        for path in (*edits, tmp_path / "total", tmp_path / "solved")
    )
    torch.testing.assert_close(added, one + other, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(added, together, rtol=1e-4, atol=1e-6)
    assert main(["combine", *edits, "--out", edits[0], "--force"]) == 2
    assert "reads" in capsys.readouterr().err
    assert main(["combine", *edits, "--out", str(tmp_path / "total")]) == 2
    assert "--force" in capsys.readouterr().err
    assert main(["combine", edits[0], "--out", str(tmp_path / "one")]) == 2
    assert "one edit only" in capsys.readouterr().err


def test_a_folder_in_use_is_refused(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    delta = str(workplace / "edit.safetensors")
    assert main(["export", "--delta", delta, "--lora", str(workplace)]) == 2
    assert "not an empty folder" in capsys.readouterr().err


def test_info_shows_facts_and_settings(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(workplace / "edit.safetensors")]) == 0
    shown = capsys.readouterr().out
    assert "Marie Curie speaks" in shown
    assert "hierarchy.fact_steps = 3" in shown
    assert "model.layers.1.mlp.down_proj.weight, rank" in shown


def test_a_word_sets_what_the_chat_template_is_told() -> None:
    words = Namespace(
        set=["template_arguments.enable_thinking=true"], model=None, device=None, seed=None
    )
    assert assigned(words) == {"template_arguments": {"enable_thinking": True}}


@pytest.mark.parametrize(
    ("more", "part"),
    [
        (["--set", "hierarchy.fact_stepz=3"], "fact_stepz"),
        (["--set", "nonsense"], "KEY=VALUE"),
        (["--set", "=3"], "KEY=VALUE, not '=3'"),
        (["--set", "layers=[1,2"], "--set layers=[1,2: the value '[1,2' is not YAML"),
        (["--set", "contexts={a: b"], "--set contexts={a: b: the value '{a: b' is not YAML"),
        (["--set", "hierarchy.subject_steps="], "has no value; write one, or hierarchy.subject_st"),
        (["--set", "layers.0=1"], "layers is one setting without parts"),
        (["--set", "layers=1"], "layers is 1; give a list of whole numbers, or auto"),
        (
            ["--model", "a", "--set", "model_name=b"],
            "--model a and --set model_name=b set the same",
        ),
        (["--seed", "1", "--set", "seed=2"], "--seed 1 and --set seed=2 set the same"),
        (["--device", "cpu", "--set", "device=cpu"], "--device cpu and --set device=cpu"),
        (["--method", "magic"], "magic"),
        (["--model", "no/such-model"], "no/such-model"),
        (["--device", "99"], "CUDA"),
        (["--dtype", "int3"], "int3"),
    ],
)
def test_wrong_input_ends_with_2_and_names_it(
    more: list[str], part: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(_edit_words(workplace, "wrong.safetensors", *more)) == 2
    captured = capsys.readouterr()
    assert part in captured.err
    assert "Traceback" not in captured.err
    assert not (workplace / "wrong.safetensors").exists()


def test_a_fault_of_settings_names_their_file(
    workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unfit, empty = tmp_path / "facts.yaml", tmp_path / "empty.yaml"
    unfit.write_text("prompt: a\n")
    empty.touch()
    for file, part in ((unfit, "prompt is not a setting"), (empty, "holds no settings")):
        words = ["edit", "--hparams", str(file), "--requests", str(workplace / "facts.jsonl")]
        assert main([*words, "--out", str(tmp_path / "edit.safetensors")]) == 2
        fault = capsys.readouterr().err
        assert part in fault and fault.count(str(file)) == 1


@pytest.mark.parametrize(
    "words",
    [
        ["apply", "--out", ""],
        ["export", "--lora", ""],
        ["export", "--gguf", ""],
        ["evaluate", "--report", ""],
        ["diagnose", "--out", ""],
        ["locate", "--out", ""],
    ],
)
def test_an_empty_name_of_what_is_written_is_refused(
    words: list[str], workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    delta = [] if words[0] == "locate" else ["--delta", str(workplace / "edit.safetensors")]
    assert main([*words, *delta]) == 2
    assert f"{words[1]} is empty; name a" in capsys.readouterr().err


def test_another_precision_is_refused_in_words_of_the_shell(
    workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    delta = ["--delta", str(workplace / "edit.safetensors"), "--dtype", "bfloat16"]
    for words in (
        ["ask", "--prompt", "a"],
        ["evaluate"],
        ["apply", "--out", str(tmp_path / "model")],
        ["diagnose", "--out", str(tmp_path / "diagnosis")],
    ):
        assert main([*words, *delta]) == 2
        fault = capsys.readouterr().err
        assert "in float32, and the weights of" in fault and "Leave out --model and" in fault
        assert "verify" not in fault
    assert list(tmp_path.iterdir()) == []


def test_a_result_that_cannot_be_read_says_what_to_give(
    workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    delta = ["--delta", str(workplace / "edit.safetensors")]
    broken, other = tmp_path / "broken.json", tmp_path / "other.json"
    broken.write_text("{")
    other.write_text("[1]")
    for file in (tmp_path / "none.json", broken, other):
        words = ["export", "--lora", str(tmp_path / "lora"), "--result", str(file)]
        assert main([*words, *delta]) == 2
        fault = capsys.readouterr().err
        assert str(file) in fault and "give the results.json that `rose-edit evaluate" in fault


def test_a_missing_file_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "nowhere.safetensors"]) == 2
    assert "nowhere.safetensors" in capsys.readouterr().err


def test_an_error_is_json_where_json_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "nowhere.safetensors", "--json"]) == 2
    report = json.loads(capsys.readouterr().out)
    assert report["exit_code"] == 2
    assert "nowhere.safetensors" in report["error"]


@pytest.mark.parametrize(
    ("error", "code"),
    [(KeyboardInterrupt(), 130), (RuntimeError("out of memory"), 1), (OSError("disk full"), 1)],
)
def test_a_failure_leaves_no_file(
    error: BaseException,
    code: int,
    workplace: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: Any) -> None:
        raise error

    before = sorted(workplace.iterdir())
    monkeypatch.setenv("ROSE_EASYEDIT_CACHE", str(tmp_path))
    for name in ("os.replace", "os.link"):
        monkeypatch.setattr(name, fail)
    assert main(_edit_words(workplace, "failed.safetensors")) == code
    assert sorted(workplace.iterdir()) == before
    assert "rose-edit: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("out", "code", "part"),
    [
        ("facts.jsonl/edit.safetensors", 1, "facts.jsonl is a file; name another folder"),
        ("shut/edit.safetensors", 1, "shut cannot be written to (no space)"),
    ],
)
def test_a_place_that_takes_no_file_is_found_out_before_the_work(
    out: str,
    code: int,
    part: str,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "no space")

    def compute(*_: Any, **__: Any) -> None:
        raise AssertionError("this shall not be computed")

    (workplace / "shut").mkdir(exist_ok=True)
    monkeypatch.setattr(Path, "touch", full)
    monkeypatch.setattr("rose_easyedit.method.stage1.targets.find_targets", compute)
    assert main(_edit_words(workplace, out)) == code
    assert part in capsys.readouterr().err


def test_words_that_name_no_number_of_answers_are_wrong(workplace: Path) -> None:
    delta = str(workplace / "edit.safetensors")
    for words in (
        ["ask", "--delta", delta, "--prompt", "a", "--max-new-tokens", "0"],
        ["evaluate", "--delta", delta, "--facts-per-subject", "0"],
    ):
        with pytest.raises(SystemExit) as exit_:
            main(words)
        assert exit_.value.code == 2
    assert main(["evaluate", "--delta", delta, "--lm-eval-limit", "3"]) == 2


def test_a_reader_that_stops_early_is_no_failure(workplace: Path) -> None:
    command = [sys.executable, "-m", "rose_easyedit.cli", "info"]
    command.append(str(workplace / "edit.safetensors"))
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 0


def test_words_that_are_no_command_end_with_2() -> None:
    with pytest.raises(SystemExit) as end:
        main(["edti"])
    assert end.value.code == 2


def test_shipped_settings_are_found_by_model_name_and_by_folder() -> None:
    assert shipped_settings(None) == shipped_settings("embedded") == "smollm2-135m"
    assert shipped_settings("meta-llama/Llama-3.1-8B-Instruct") == "llama-3.1-8b-instruct"
    assert shipped_settings("/models/Qwen3-8B/") == "qwen3-8b"
    assert shipped_settings("gpt2") is None


def test_a_model_without_shipped_settings_has_the_defaults_and_its_layers_are_found() -> None:
    assert model_settings("gpt2") == RoSEHyperParams(model_name="gpt2", layers="auto")
    assert model_settings("embedded") == RoSEHyperParams.from_hparams("smollm2-135m")


def test_every_shipped_model_finds_its_settings() -> None:
    from omegaconf import OmegaConf

    files = sorted((hparams_dir() / "RoSE").glob("*.yaml"))
    assert [shipped_settings(OmegaConf.load(path).model_name) for path in files] == [
        path.stem for path in files
    ]


def test_what_the_report_has_is_not_logged_as_well(
    workplace: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    strict = ["--set", "self_check.most_loss=0.001"]
    assert main(_edit_words(workplace, "warned.safetensors", *strict)) == 3
    assert "warning: 2 of 2 facts not learned" in capsys.readouterr().out
    assert not [record for record in caplog.records if "not learned" in record.message]
