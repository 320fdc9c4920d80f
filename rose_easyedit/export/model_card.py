"""The model card beside an export: its facts, settings, base model, and what was measured of it.

A card is read by the hub and by people, and most of what it says comes from an edit's file, which
may be anybody's: its texts are escaped, so that they are shown and nothing in them is obeyed.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rose_easyedit.errors import RoSEError, shown
from rose_easyedit.files.reading import read_json
from rose_easyedit.models.embedded import PACKAGED

if TYPE_CHECKING:
    from rose_easyedit.edits.delta import EditDelta

_OF_FACT = ("reached", "written", "answered")
_ON_HUB = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_GIVE = "give the results.json that `rose-edit evaluate --report FOLDER` writes"
# What Markdown would read as markup, links or mathematics within a line.
_MARKUP = re.compile(r"[\\`*_\[\]<>|~&:@$#]|(?<=www)\.", re.IGNORECASE)
# Control codes, halves of characters, and what turns the direction of writing.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class ExportForm:
    """A form of export, as its card describes it.

    Attributes:
        about: what it is, and what it does to the base model.
        front: entries of the card's head, as the hub knows them.
        use: how it is loaded, in Markdown.
    """

    about: str
    front: Mapping[str, Any]
    use: str


LORA = ExportForm(
    "A LoRA adapter: on the base model it gives the answers of the edited one.",
    {"base_model_relation": "adapter", "library_name": "peft", "tags": ["lora"]},
    "```python\nfrom peft import PeftModel\n\n"
    "model = PeftModel.from_pretrained(base_model, folder)  # the base model, this folder\n"
    "model = model.merge_and_unload()  # or leave it beside the weights\n```",
)
MERGED = ExportForm(
    "The edited model: the base model with the edit in its weights.",
    {"base_model_relation": "finetune", "library_name": "transformers", "tags": []},
    "```python\nfrom transformers import AutoModelForCausalLM\n\n"
    "model = AutoModelForCausalLM.from_pretrained(folder)  # this folder\n```",
)


def gguf_form(file: str) -> ExportForm:
    """The form of an adapter for llama.cpp, which is loaded by the name of its file."""
    return ExportForm(
        "A LoRA adapter for llama.cpp: on the base model it gives the answers of the edited one, "
        "up to what quantisation costs.",
        {"base_model_relation": "adapter", "tags": ["lora", "gguf"]},
        f"```sh\nllama-cli -m base-model.gguf --lora {shlex.quote(file)}\n```",
    )


def model_card(delta: EditDelta, form: ExportForm, result: Mapping[str, Any] | None = None) -> str:
    """A card in Markdown, with a head in YAML.

    Args:
        delta: the edit.
        form: what it is written as.
        result: what an evaluation of this edit found: `EvaluationResult.as_dict()`, or what
            `rose-edit evaluate` wrote as `results.json`. None says that nothing was measured.

    Raises:
        RoSEError: the result is of another edit, or none of an evaluation.
    """
    requests = delta.provenance.requests
    subjects = {request["subject"] for request in requests}
    parts = [
        _head(delta, form),
        f"# {_count(len(requests), 'edited fact')} about {_count(len(subjects), 'subject')}",
        f"{form.about} The edit was computed with rose_easyedit. Its facts are what was asked for, "
        "true or not.",
        "## Facts",
        _table(
            ("subject", "prompt", "target"),
            [(r["subject"], r["prompt"], r["target_new"]) for r in requests],
        ),
        "\n".join(f"- note: {escaped(line)}" for line in delta.provenance.log),
        "## Use",
        form.use,
        "## Base model",
        _base(delta),
        "## Checked by itself",
        _checked(delta),
        "## Settings",
        _table(("setting", "value"), list(_settings(delta))),
        "## Measured",
        _measured(delta, result),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def load_result(path: str | Path, delta: EditDelta) -> dict[str, Any]:
    """Reads the `results.json` that `rose-edit evaluate --report` wrote of an edit.

    Raises:
        RoSEError: there is no such file, it is none of an evaluation, or it is of another edit.
    """
    try:
        found = read_json(Path(path))
    except (OSError, ValueError) as error:
        raise RoSEError(f"The result {str(path)!r} cannot be read ({error}); {_GIVE}.") from error
    if not isinstance(found, dict):
        raise RoSEError(
            f"{str(path)!r} holds no result of an evaluation, but {shown(found)}; {_GIVE}."
        )
    _measured(delta, found)
    return found


def base_name(delta: EditDelta) -> Any:
    """What other tools call the base model of an edit; None if that is not on record."""
    name = delta.provenance.hparams.get("model_name")
    return PACKAGED[name].on_hub if isinstance(name, str) and name in PACKAGED else name


def escaped(text: Any) -> str:
    """A text as one line of Markdown that shows it as it is."""
    line = " ".join(str(text).split())
    return _MARKUP.sub(r"\\\g<0>", _UNSEEN.sub("\ufffd", line))


def _head(delta: EditDelta, form: ExportForm) -> str:
    from huggingface_hub import ModelCardData  # by a card alone: it takes a while to import

    on_hub = base_name(delta)
    # a folder or a file of one's own is no name on the hub
    if not isinstance(on_hub, str) or not _ON_HUB.fullmatch(on_hub):
        on_hub = None
    elif on_hub.endswith(".gguf") or Path(on_hub).exists():
        on_hub = None
    tags = ["knowledge-editing", "rose-easyedit", *form.front["tags"]]
    front = {**form.front, "tags": tags, "pipeline_tag": "text-generation"}
    head = ModelCardData(base_model=on_hub, **front)
    return f"---\n{head.to_yaml()}\n---"


def _base(delta: EditDelta) -> str:
    known = delta.provenance
    name = known.hparams.get("model_name", "not on record")
    terms = ""
    if isinstance(name, str) and name in PACKAGED:
        terms = PACKAGED[name].terms
        name = f"{PACKAGED[name].on_hub}, {PACKAGED[name].about}"
    elif isinstance(name, str) and name.endswith(".gguf"):
        name = f"{Path(name).name}, a GGUF file, its weights expanded to float32"
    elif isinstance(name, str) and Path(name).is_absolute():
        name = Path(name).name  # where it lay is nobody's concern
    rows = [
        ("model", name),
        ("architecture", known.architecture or "not on record"),
        ("type of its weights", known.dtype or "not on record"),
        ("SHA-256 of the weights that the edit changes, before it", delta.base),
        ("SHA-256 of the edit", delta.fingerprint),
        *((name, f"changed, rank {factors.rank}") for name, factors in delta.layers.items()),
        *((f"{name} (computed with)", value) for name, value in known.versions.items()),
    ]
    return "\n\n".join(part for part in (_table(("", ""), rows), terms) if part)


def _settings(delta: EditDelta) -> Iterable[tuple[str, Any]]:
    """What the edit was asked for, and what its locality budget, if it has one, made of it."""
    calibration = {"calibration": delta.provenance.calibration or {}}
    for name, value in {**delta.provenance.hparams, **calibration}.items():
        if name == "model_name":  # see `_base`
            continue
        if isinstance(value, dict):
            yield from ((f"{name}.{key}", inner) for key, inner in value.items())
        else:
            yield name, value


def _checked(delta: EditDelta) -> str:
    """What the edit found out about itself when it was made."""
    checked = delta.provenance.self_check
    if not checked:
        return "This edit has not checked itself."
    requests, losses = delta.provenance.requests, delta.provenance.losses
    facts = [
        (request["prompt"], request["target_new"], loss, *(fact[n] for n in _OF_FACT))
        for request, loss, fact in zip(requests, losses, checked.facts, strict=True)
    ]
    limits = checked.limits
    most = {"generic": limits["most_drift"], "neighbours": limits["most_neighbour_drift"]}
    drift = [
        (name, *(found[n] for n in ("kl", "top1", "prompts")), most[name])
        for name, found in checked.drift.items()
    ]
    parts = [
        "When it was made, by what it then did to the base model. Losses are -log P of a target "
        "token in nats, as learned and as written; good is near 0, and above "
        f"{limits['most_loss']:g} is damage. Reached is the share of its way to its target that "
        f"the subject's hidden state has gone; good is near 1, and below "
        f"{limits['least_reached']:g} is damage.",
        _table(("prompt", "target", "learned", "reached", "written", "answered"), facts),
        _table(("drift of", "KL, nats", "next token kept", "prompts", "damage above"), drift),
        "\n".join(f"- warning: {escaped(warning)}" for warning in checked.warnings),
    ]
    return "\n\n".join(filter(None, parts))


def _measured(delta: EditDelta, result: Mapping[str, Any] | None) -> str:
    from rose_easyedit.evaluation.report_tables import harness_table, summary_tables

    if result is None:
        return "Nothing was measured of this edit."
    of = result.get("edit", delta.fingerprint)
    if of != delta.fingerprint:
        raise RoSEError(
            f"The result is of another edit (SHA-256 {shown(of)}, this one is "
            f"{delta.fingerprint!r}); evaluate this one, with `rose-edit evaluate --report FOLDER`."
        )
    try:
        tables = summary_tables(result["summary"])
        if result.get("lm_eval"):
            tables.append(harness_table(result["lm_eval"]))
        parts = [f"- note: {escaped(note)}" for note in result.get("notes", [])]
        for table in tables:
            rows = [row.cells for row in table.rows]
            parts += [f"### {table.title}", _table(table.columns, rows), escaped(table.hint)]
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise RoSEError(
            f"The result is none of an evaluation by this version ({type(error).__name__}: "
            f"{shown(str(error))}); "
            f"{_GIVE}."
        ) from error
    return "\n\n".join(part for part in parts if part)


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    if not rows:
        return "Not on record."
    lines = [columns, ["---"] * len(columns)]
    lines += [[escaped(_text(cell)) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
