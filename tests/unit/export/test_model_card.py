"""The model card beside an export: what it says, and that what strangers wrote is only shown."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from tiny_models import build_model

from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.edits.factors import Factors
from rose_easyedit.errors import RoSEError
from rose_easyedit.export.model_card import (
    LORA,
    MERGED,
    escaped,
    gguf_form,
    load_result,
    model_card,
)
from rose_easyedit.export.save import save_gguf_lora, save_merged, save_peft_lora

NASTY = [
    "a | b",
    "<script>alert(1)</script>",
    "[click](https://example.com) ![x](y) www.example.com",
    "**bold** _it_ ~~no~~ `code` $x$ &amp; # x :smile: a@b.c",
    "two\nlines\r\n\n# heading\n---\n```",
    "\\| \\\\ |",
    "- [ ] 1. > x",
    "St. Mary's (the 2nd), \u6771\u4eac \u201cx\u201d!",
]
SETTINGS = {
    "model_name": "meta-llama/Llama-3.2-1B",
    "layers": [1, 2],
    "hierarchy": {"fact_steps": 3},
}


def edit_of(texts: list[str], **more: Any) -> EditDelta:
    """A random edit whose facts say these texts."""
    requests = [{"prompt": f"{t} is", "subject": t, "target_new": f"not {t}"} for t in texts]
    draw = torch.Generator().manual_seed(0)
    layers = {
        f"model.layers.{n}.mlp.down_proj.weight": Factors(
            torch.randn(32, 2, generator=draw), torch.randn(2, 64, generator=draw)
        )
        for n in (1, 2)
    }
    known = {"requests": requests, "hparams": SETTINGS, "architecture": "llama", **more}
    return EditDelta(layers, "f00d" * 16, known)


def result_of(delta: EditDelta, **more: Any) -> dict[str, Any]:
    """A result of an evaluation as `rose-edit evaluate` writes it; its numbers are made up."""
    headline = {
        **{"queries": 4, "faithful": 0.625, "faithful_interval": [0.5, 0.75]},
        **{"success": 0.75, "interval": [0.5, 1.0], "replaced": 0.125, "broken": 0.25},
        **{"broken_before": 0.0, "exact_prefix": 0.5, "normalised": None},
    }
    form = {
        **headline,
        **{"wrapped": 0, "success_before": 0.0, "teacher_forcing": 0.625},
        **{"gap": 0.125, "old_answer": None, "other_target": 0.0, "headline": headline},
    }
    place = {
        **{"prompts": 9, "top1": 0.875, "interval": None, "kl": 0.25, "shared_text": 0.5},
        **{"words_kept": 0.5, "words_interval": None, "same_text": 0.25},
    }
    entropy = {"ngram_entropy": 3.5, "ngram_entropy_before": 4.5}
    summary = {
        "facts": 1,
        "subjects": 1,
        "headline": {**headline, "not_native": ["<b>odd</b> (question)"]},
        "forms": {"question": form},
        "facts_per_subject": {"1": {"subjects": 1, **headline}},
        "locality": {"all": place},
        "r_specificity": None,
        "fluency": {**entropy, "perplexity": 21.25, "perplexity_before": 20.5},
    }
    return {"edit": delta.fingerprint, "summary": summary, "notes": ["a *note*"], **more}


def rendered(card: str) -> tuple[str, list[str]]:
    """The HTML of a card without its head, and the text of its cells."""
    body = card.split("---\n", 2)[2]
    html = MarkdownIt("commonmark").enable("table").render(body)
    return html, [unescape(cell) for cell in re.findall(r"<td>(.*?)</td>", html, re.DOTALL)]


def test_what_a_locality_budget_did_is_on_the_card() -> None:
    found = {"budget": 0.1, "drift": 0.4, "scale": 0.5, "scaled_drift": 0.09}
    card = model_card(edit_of(["Rome"], calibration=found), LORA)
    assert "| calibration.scale | 0.5 |" in card
    assert "| calibration.scaled\\_drift | 0.09 |" in card
    assert "calibration" not in model_card(edit_of(["Rome"]), LORA)


def test_the_card_says_what_the_edit_is() -> None:
    delta = edit_of(["Japan", "Marie Curie"], dtype="float32", versions={"torch": "2.9"})
    html, cells = rendered(model_card(delta, LORA))
    assert "<h1>2 edited facts about 2 subjects</h1>" in html
    assert cells[:6] == ["Japan", "Japan is", "not Japan", "Marie Curie", "Marie Curie is"] + [
        "not Marie Curie"
    ]
    pairs = dict(zip(cells[6::2], cells[7::2], strict=True))
    assert pairs["model"] == "meta-llama/Llama-3.2-1B"
    assert pairs["architecture"] == "llama" and pairs["type of its weights"] == "float32"
    assert pairs["SHA-256 of the weights that the edit changes, before it"] == "f00d" * 16
    assert pairs["SHA-256 of the edit"] == delta.fingerprint
    assert pairs["model.layers.1.mlp.down_proj.weight"] == "changed, rank 2"
    assert pairs["torch (computed with)"] == "2.9"
    assert pairs["layers"] == "[1, 2]" and pairs["hierarchy.fact_steps"] == "3"
    assert html.rstrip().endswith("<p>Nothing was measured of this edit.</p>")


def test_an_edit_without_a_record_has_a_card() -> None:
    bare = EditDelta(edit_of([]).layers, "0" * 64)
    html, _ = rendered(model_card(bare, MERGED))
    assert html.count("<p>Not on record.</p>") == 2  # facts and settings


@pytest.mark.parametrize(
    ("form", "wanted"),
    [
        (LORA, {"library_name": "peft", "base_model_relation": "adapter"}),
        (gguf_form("a.gguf"), {"library_name": None, "base_model_relation": "adapter"}),
        (MERGED, {"library_name": "transformers", "base_model_relation": "finetune"}),
    ],
)
def test_the_hub_reads_its_head(form: Any, wanted: dict[str, Any]) -> None:
    data = ModelCard(model_card(edit_of(["Japan"]), form)).data.to_dict()
    assert data["base_model"] == "meta-llama/Llama-3.2-1B"
    assert {"knowledge-editing", "rose-easyedit"} <= set(data["tags"])
    assert data["pipeline_tag"] == "text-generation"
    for name, value in wanted.items():
        assert data.get(name) == value


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("embedded", "HuggingFaceTB/SmolLM2-135M-Instruct"),
        ("tiny-random", None),
        ("/home/somebody/model", None),
        ("a/b\n---\ntags: [x]", None),
        (f"a/{'b' * 5000}", None),
        (["a/b"], None),
        (None, None),
    ],
)
def test_only_a_name_on_the_hub_is_the_base_model(name: Any, base: str | None) -> None:
    card = model_card(edit_of(["Japan"], hparams={"model_name": name}), LORA)
    assert yaml.safe_load(card.split("---\n")[1]).get("base_model") == base
    assert "somebody" not in card


def test_a_folder_of_ones_own_is_no_name_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    card = model_card(edit_of(["Japan"], hparams={"model_name": "models/mine"}), LORA)
    assert "base_model" not in yaml.safe_load(card.split("---\n")[1])


@pytest.mark.parametrize("text", NASTY)
def test_what_strangers_wrote_is_shown_and_not_obeyed(text: str) -> None:
    delta = edit_of(
        [text],
        log=[text],
        dtype=text,
        hparams={"model_name": text, text: text, "h": {text: [text]}},
        versions={text: text},
    )
    delta.layers[text] = next(iter(delta.layers.values()))
    plain = model_card(edit_of(["x"], log=["x"], versions={"x": "x"}), LORA)
    html, cells = rendered(model_card(delta, LORA, result_of(delta, notes=[text])))
    line = " ".join(text.split())
    assert cells[:3] == [line, f"{line} is", f"not {line}"]
    assert cells.count(line) >= 6
    tags = set(re.findall(r"<[^>]*>", html)) - {"<h3>", "</h3>"}
    assert tags == set(re.findall(r"<[^>]*>", rendered(plain)[0]))
    assert html.count("<h2>") == rendered(plain)[0].count("<h2>")
    assert "https\\://" in escaped("https://x") and "www\\." in escaped("www.x.y")  # no autolinks
    assert escaped("> <b>") == "\\> \\<b\\>"


def test_codes_that_nobody_sees_are_marked() -> None:
    assert escaped("a\x1b[1m\x00b\u202ec\ud800") == "a\ufffd\\[1m\ufffdb\ufffdc\ufffd"


def test_what_was_measured_is_on_it() -> None:
    delta = edit_of(["Japan"])
    html, cells = rendered(model_card(delta, LORA, result_of(delta)))
    assert "Nothing was measured" not in html
    row = cells[cells.index("question") :]
    assert row[:3] == ["question", "4", "62% [50\u201375]"]
    assert row[3:7] == ["75% [50\u2013100]", "0%", "12%", "25%"]
    assert ["broken answers", "25%", "0% before", "poor"] in [
        cells[i : i + 4] for i in range(len(cells))
    ]
    assert "&lt;b&gt;odd&lt;/b&gt;" in html and "note: a *note*" in html
    place = cells[cells.index("all prompts") :]
    assert place[:4] == ["all prompts", "9", "88%", "0.250"]


def test_a_result_of_another_edit_is_refused(tmp_path: Path) -> None:
    delta, other = edit_of(["Japan"]), edit_of(["Japan"])
    other.layers.popitem()
    with pytest.raises(RoSEError, match="is of another edit"):
        model_card(delta, LORA, result_of(other))
    path = tmp_path / "results.json"
    path.write_text(json.dumps(result_of(delta)))
    assert load_result(path, delta) == result_of(delta)
    with pytest.raises(RoSEError, match="evaluate this one"):
        load_result(path, other)
    assert delta.fingerprint == EditDelta.load(delta.save(tmp_path / "edit")).fingerprint


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[1]", "[" * 100_000, "{}", '{"summary": 3}', '{"summary": {}}'),
        '{"summary": {"forms": {"q": {}}, "headline": {}}}',
        '{"edit": {"x": 1}, "summary": {}}',
    ],
)
def test_a_file_that_is_no_result_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(RoSEError, match="result"):
        load_result(path, edit_of(["Japan"]))
    with pytest.raises(RoSEError, match="cannot be read"):
        load_result(tmp_path / "none.json", edit_of(["Japan"]))


def test_it_stands_beside_every_export(tmp_path: Path, tiny_tokenizer: Any) -> None:
    model = build_model("llama-tied")
    delta = edit_of(["Japan"])
    delta.base = base_of(model, delta)
    result = result_of(delta)
    save_peft_lora(delta, tmp_path / "lora", result)
    save_gguf_lora(delta, tmp_path / "japan.gguf", result)
    save_merged(delta, model, tiny_tokenizer, tmp_path / "merged", result)
    gguf = gguf_form("japan.gguf")
    cards = {"lora/README.md": LORA, "japan.md": gguf, "merged/README.md": MERGED}
    for name, form in cards.items():
        assert (tmp_path / name).read_text() == model_card(delta, form, result)
    assert "--lora japan.gguf\n" in (tmp_path / "japan.md").read_text()


def base_of(model: Any, delta: EditDelta) -> str:
    from rose_easyedit.models.fingerprint import weights_fingerprint

    return weights_fingerprint((name, model.get_parameter(name)) for name in delta.layers)
