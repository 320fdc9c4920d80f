"""Files that came from elsewhere: an error of ours or a whole load, and nothing else happens."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import fuzzing
import pytest
import torch
from tiny_models import FACTS, build_model, same_weights, settings, weights_of

from rose_easyedit.cli.main import DONE, WRONG_INPUT, main
from rose_easyedit.config.hparams import RoSEHyperParams
from rose_easyedit.edits.delta import EditDelta
from rose_easyedit.edits.provenance import Provenance
from rose_easyedit.errors import RoSEError
from rose_easyedit.method.edit import compute_edit
from rose_easyedit.method.plan import make_plan
from rose_easyedit.requests import EditRequest, load_requests

# seeds: a sample that `make test` has time for, and the rest
SEEDS = [
    pytest.param(range(500), id="sample"),
    pytest.param(range(500, 10_000), id="rest", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module")
def watch() -> fuzzing.Watch:
    return fuzzing.Watch()


@pytest.fixture(scope="module")
def hparams() -> Any:
    return settings(
        chat_contexts=1, query_formats=1, hierarchy={"fact_steps": 1, "subject_steps": 1}
    )


def check_message(error: RoSEError, path: Path) -> None:
    """An error that a person can read."""
    assert len(str(error)) > 20
    assert len(max(str(error).splitlines(), key=len)) < 3_000, str(error)[:200]


REQUESTS = [
    {**fact, "ground_truth": "French", "case_id": place, "locality": {"p": ["q", 1.5, None]}}
    for place, fact in enumerate(FACTS)
]


def request_file(random: Random) -> bytes:
    how = random.randrange(6)
    records = REQUESTS if how < 3 else fuzzing.changed(REQUESTS, random)
    if random.random() < 0.5 or not isinstance(records, list):
        text = json.dumps(
            records, ensure_ascii=random.random() < 0.5, indent=random.choice([None, 1])
        )
    else:
        text = "\n".join(json.dumps(record, ensure_ascii=False) for record in records)
    coding = random.choice(["utf-8"] * 6 + ["utf-16", "utf-8-sig"])
    content = text.encode(coding, "surrogatepass")
    return fuzzing.damaged(content, random) if how < 3 else content


@pytest.mark.parametrize("seeds", SEEDS)
def test_request_files(
    seeds: range, tmp_path: Path, watch: fuzzing.Watch, tiny_tokenizer: Any, hparams: Any
) -> None:
    model, n_refused, n_edited = build_model("llama-untied"), 0, 0
    before, path = weights_of(model), tmp_path / "facts.json"
    for seed in seeds:
        path.write_bytes(request_file(Random(seed)))
        with watch.watching(tmp_path):
            try:
                requests = load_requests(path)
                for request in requests:
                    assert request == EditRequest.from_mapping(request.as_dict())
                    assert request.subject in request.prompt and request.target_new
                    json.dumps(request.as_dict()).encode()
                make_plan(tiny_tokenizer, requests, hparams, 256)
                if seed % 100 < 4:
                    compute_edit(model, tiny_tokenizer, requests, hparams)
                    n_edited += 1
            except RoSEError as error:
                n_refused += 1
                check_message(error, path)
    assert n_edited and len(seeds) * 0.3 < n_refused < len(seeds) * 0.9
    assert same_weights(model, before)
    assert list(tmp_path.iterdir()) == [path]


SETTINGS = RoSEHyperParams.from_hparams("smollm2-135m").as_dict()


@pytest.mark.parametrize("seed", range(0, 400, 100))
def test_settings(seed: int, watch: fuzzing.Watch, tmp_path: Path) -> None:
    """Of an edit, or of a settings file."""
    n_refused = 0
    for number in range(seed, seed + 100):
        with watch.watching(tmp_path):
            try:
                RoSEHyperParams.from_dict(fuzzing.changed(SETTINGS, Random(number)))
            except RoSEError:
                n_refused += 1
    assert 50 < n_refused < 100


class Edit:
    """A model, and an edit of it as it is in its file."""

    def __init__(self, tokenizer: Any, hparams: Any, folder: Path) -> None:
        from safetensors import safe_open

        from rose_easyedit.edits.file import FORMAT

        self.model = build_model("llama-untied")
        self.delta = compute_edit(self.model, tokenizer, FACTS, hparams)
        path = self.delta.save(folder / "edit")
        self.content = path.read_bytes()
        with safe_open(path, framework="pt") as file:
            self.record = json.loads(file.metadata()[FORMAT])
            self.tensors = {name: file.get_tensor(name) for name in file.keys()}
        self.before = weights_of(self.model)
        with self.delta.applied(self.model):
            self.after = weights_of(self.model)

    def is_equal(self, other: EditDelta) -> bool:
        """Whether another edit is this one, to the last bit."""
        return (
            other.base == self.record["base"]
            and other.provenance == Provenance.from_dict(self.record["provenance"])
            and other.layers.keys() == self.delta.layers.keys()
            and all(
                torch.equal(other.layers[name].left, factors.left)
                and torch.equal(other.layers[name].right, factors.right)
                and other.layers[name].transposed == factors.transposed
                for name, factors in self.delta.layers.items()
            )
            and torch.equal(other.targets, self.delta.targets)
        )


@pytest.fixture(scope="module")
def edit(tiny_tokenizer: Any, hparams: Any, tmp_path_factory: pytest.TempPathFactory) -> Edit:
    return Edit(tiny_tokenizer, hparams, tmp_path_factory.mktemp("edit"))


MUTATIONS: dict[str, Callable[[Edit, Random], bytes]] = {
    "damaged": lambda edit, random: fuzzing.damaged(edit.content, random),
    "header": lambda edit, random: fuzzing.rewritten_header(edit.content, random),
}


@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize("how", MUTATIONS)
def test_damaged_edit_files(
    how: str, seeds: range, tmp_path: Path, watch: fuzzing.Watch, edit: Edit
) -> None:
    """Whatever happened to a file, it is refused, or it is the very edit that was saved."""
    path, n_refused = tmp_path / "edit.safetensors", 0
    for seed in seeds[:: 2 if how == "damaged" else 4]:
        path.write_bytes(MUTATIONS[how](edit, Random(seed)))
        with watch.watching(tmp_path):
            try:
                assert edit.is_equal(EditDelta.load(path)), seed
            except RoSEError as error:
                n_refused += 1
                check_message(error, path)
    assert n_refused > 100
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("seeds", SEEDS)
def test_hostile_edit_files(
    seeds: range,
    tmp_path: Path,
    watch: fuzzing.Watch,
    edit: Edit,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With right checksums: refused, or an edit that can be shown, applied and exported."""
    path, n_refused, n_exported = tmp_path / "edit.safetensors", 0, 0
    for seed in seeds[::4]:
        path.write_bytes(fuzzing.resigned(edit.record, edit.tensors, Random(seed)))
        out = tmp_path / "out"
        with watch.watching(tmp_path):
            code = main(["info", str(path)])
            shown = capsys.readouterr()
            assert code in (DONE, WRONG_INPUT), (seed, shown.err)
            assert not set(shown.out + shown.err) & set("\x1b\x07\0")
            try:
                delta = EditDelta.load(path)
                assert code == DONE, (seed, shown.err)
            except RoSEError as error:
                assert code == WRONG_INPUT, seed
                n_refused += 1
                check_message(error, path)
                continue
            try:
                with delta.applied(edit.model, verify=False):
                    assert not same_weights(edit.model, edit.before)
            except RoSEError as error:
                check_message(error, path)
            assert main(["export", "--delta", str(path), "--lora", str(out)]) == DONE, seed
            n_exported += 1
            adapter = tmp_path / "adapter.gguf"
            code = main(["export", "--delta", str(path), "--gguf", str(adapter)])
            assert code in (DONE, WRONG_INPUT), seed
            for file in tmp_path.glob("adapter.*"):
                assert code == DONE, seed
                file.unlink()
        assert sorted(tmp_path.iterdir()) == [path, out]
        assert {file.name for file in out.iterdir()} == {
            "README.md",
            "adapter_config.json",
            "adapter_model.safetensors",
        }
        for file in out.iterdir():
            file.unlink()
        out.rmdir()
    assert n_refused > 20 and n_exported > 20
    assert same_weights(edit.model, edit.before)
