"""The spectrum of generic keys, and the cache that makes it cost nothing the second time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import FACTS, build_model, same_weights, settings, weights_of
from torch import Tensor

from rose_easyedit.config.hparams import AlignmentHyperParams
from rose_easyedit.errors import RoSEError
from rose_easyedit.forward.activations import frozen
from rose_easyedit.method.edit import compute_edit
from rose_easyedit.method.generic import generic_passages
from rose_easyedit.method.prepared import Prepared
from rose_easyedit.method.stage2 import statistics
from rose_easyedit.method.stage2.constraints import Spectrum
from rose_easyedit.method.stage2.statistics import load_spectra, spectrum_of, spectrum_on

D_FF = 64


def forbid_collecting(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on, whatever runs the model for statistics fails."""

    def fail(*_args: Any) -> None:
        raise AssertionError("the statistics were collected anew")

    monkeypatch.setattr(statistics, "_collect", fail)


def spectra(
    folder: Path,
    tokenizer: Any,
    *,
    model: Any = None,
    layers: tuple[int, ...] = (0, 1),
    text: Path | None = None,
    tokens: int = 400,
    subject_weight: float = 0.0,
    leading: int | None = None,
) -> dict[int, Spectrum]:
    model = model if model is not None else build_model("llama-tied")
    hparams = AlignmentHyperParams(
        statistics_text=None if text is None else str(text),
        statistics_tokens=tokens,
        subject_weight=subject_weight,
    )
    with frozen(model):
        return load_spectra(
            Prepared.of(model, tokenizer, settings()), layers, hparams, folder, leading=leading
        )


def test_what_another_precision_read_is_kept_apart(tiny_tokenizer: Any, tmp_path: Path) -> None:
    model = build_model("llama-tied")
    found = {}
    for precision in ("weights", "bfloat16", "weights"):
        with frozen(model):
            prepared = Prepared.of(model, tiny_tokenizer, settings(precision=precision))
            text = AlignmentHyperParams(statistics_tokens=400)
            spectra = load_spectra(prepared, [0], text, tmp_path)
        before = found.setdefault(precision, spectra[0])
        assert torch.equal(before.eigenvalues, spectra[0].eigenvalues)
    assert len(list(tmp_path.iterdir())) == 2
    exact, fast = found["weights"].eigenvalues, found["bfloat16"].eigenvalues
    assert not torch.equal(exact, fast)
    torch.testing.assert_close(exact[:4], fast[:4], rtol=0.02, atol=0)


@pytest.mark.parametrize(("n_tokens", "width"), [(5, 12), (12, 12), (40, 12), (1, 12), (3, 1)])
def test_the_spectrum_is_that_of_the_dense_moment(n_tokens: int, width: int) -> None:
    generator = torch.Generator().manual_seed(n_tokens)
    keys = torch.randn(n_tokens, width, generator=generator) * torch.logspace(1, -1, width)
    moment = keys.double().T @ keys.double()
    values, vectors = torch.linalg.eigh(moment)
    values, vectors = values.flip(0), vectors.T.flip(0)
    found = spectrum_of(keys)
    rank = min(n_tokens, width)
    assert found.eigenvalues.shape == (rank,) and found.directions.shape == (rank, width)
    torch.testing.assert_close(found.eigenvalues.double(), values[:rank], rtol=1e-5, atol=1e-7)
    overlap = (found.directions.double() * vectors[:rank]).sum(1).abs()
    torch.testing.assert_close(overlap, torch.ones_like(overlap), rtol=0, atol=1e-4)
    identity = found.directions @ found.directions.T
    torch.testing.assert_close(identity, torch.eye(rank), rtol=0, atol=1e-5)
    assert found.mean == pytest.approx(float(moment.trace()) / width, rel=1e-5)


def test_directions_that_no_key_has_are_left_out() -> None:
    generator = torch.Generator().manual_seed(0)
    keys = torch.randn(20, 3, generator=generator) @ torch.randn(3, 8, generator=generator)
    # in float64, so that rounding adds no direction of its own
    assert len(spectrum_of(keys.double()).eigenvalues) <= 4
    same = keys[:1].expand(6, -1)
    assert len(spectrum_of(same.double()).eigenvalues) == 1


@torch.no_grad()
def keys_one_by_one(model: Any, passages: list[list[int]], layer: int) -> Tensor:
    seen: list[Tensor] = []
    handle = model.model.layers[layer].mlp.down_proj.register_forward_pre_hook(
        lambda _m, args: seen.append(args[0][0])
    )
    for ids in passages:
        model(torch.tensor([ids]))
    handle.remove()
    return torch.cat(seen)


def test_a_device_without_room_for_a_spectrum_leaves_it_to_the_cpu(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    keys = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    wanted = spectrum_of(keys)

    def small(keys: Tensor) -> Spectrum:
        if keys.is_meta:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.")
        return spectrum_of(keys)

    monkeypatch.setattr(statistics, "spectrum_of", small)
    found = spectrum_on(torch.device("meta"), keys)
    assert torch.equal(found.eigenvalues, wanted.eigenvalues)
    assert torch.equal(found.directions, wanted.directions)
    assert "meta has no room for a spectrum" in caplog.text


@pytest.mark.parametrize(
    ("device", "message"), [("cpu", "out of memory"), ("meta", "the matrix is ill-conditioned")]
)
def test_no_other_failure_of_a_spectrum_is_tried_again(
    device: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def fail(keys: Tensor) -> Spectrum:
        tried.append(keys.device.type)
        raise RuntimeError(message)

    monkeypatch.setattr(statistics, "spectrum_of", fail)
    with pytest.raises(RuntimeError, match=message):
        spectrum_on(torch.device(device), torch.ones(2, 4))
    assert tried == [device]


def test_keys_are_those_of_the_texts_own_tokens(tmp_path: Path, tiny_tokenizer: Any) -> None:
    """Padding within a batch neither counts nor leaks."""
    text = tmp_path / "text.txt"
    lines = ["Marie Curie was born.", "A physicist!", "Paris, London and Warsaw in England."]
    text.write_text("\n\n".join(f"  {line} " for line in lines))
    model = build_model("llama-tied")
    found = spectra(tmp_path, tiny_tokenizer, model=model, text=text, tokens=10_000)
    passages = [tiny_tokenizer(line)["input_ids"] for line in lines]
    for layer, spectrum in found.items():
        keys = keys_one_by_one(model, passages, layer).double()
        wanted = torch.linalg.eigvalsh(keys.T @ keys / len(keys)).flip(0)
        rank = len(spectrum.eigenvalues)
        torch.testing.assert_close(
            spectrum.eigenvalues.double(), wanted[:rank], rtol=1e-3, atol=1e-5
        )


def test_subjects_count_by_their_last_tokens(tmp_path: Path, tiny_tokenizer: Any) -> None:
    """C = E_text[k k^T] + weight * E_subjects[k k^T], the expectation over last tokens only."""
    model = build_model("llama-tied")
    text = tmp_path / "text.txt"
    text.write_text("Marie Curie was born in Warsaw.")
    hparams = AlignmentHyperParams(statistics_text=str(text), subject_weight=3.0)
    line, *subjects = generic_passages(tiny_tokenizer, hparams)
    assert len(subjects) >= 200 and all(passage.last_only for passage in subjects)
    own = keys_one_by_one(model, [list(line.ids)], 1).double()
    last = torch.stack(
        [keys_one_by_one(model, [list(passage.ids)], 1)[-1] for passage in subjects]
    ).double()
    moment = own.T @ own / len(own) + 3.0 * last.T @ last / len(last)
    found = spectra(tmp_path / "c", tiny_tokenizer, model=model, text=text, subject_weight=3.0)[1]
    wanted = torch.linalg.eigvalsh(moment).flip(0)[: len(found.eigenvalues)]
    torch.testing.assert_close(found.eigenvalues.double(), wanted, rtol=1e-3, atol=1e-5)


def test_the_number_of_tokens_is_kept(
    tmp_path: Path, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []
    collect = statistics._collect

    def spy(editable: Any, passages: Any, layers: Any, batch_size: int) -> Any:
        keys = collect(editable, passages, layers, batch_size)
        counts.append(len(keys[0]))
        assert sum(len(passage.ids) for passage in passages) == len(keys[0])
        return keys

    monkeypatch.setattr(statistics, "_collect", spy)
    for tokens in (1, 130, 400):
        spectra(tmp_path, tiny_tokenizer, tokens=tokens)
    assert counts == [1, 130, 400]


def test_a_text_without_line_breaks_is_read_in_parts(tiny_tokenizer: Any, tmp_path: Path) -> None:
    text = tmp_path / "one line.txt"
    text.write_text("Marie Curie was born in Warsaw. " * 100, encoding="utf-8")
    ids = tiny_tokenizer(text.read_text(encoding="utf-8").strip())["input_ids"]
    assert len(ids) > 2 * 128 + 1
    for wanted in (5, 128, 129, 10**6):
        hparams = AlignmentHyperParams(
            statistics_text=str(text), statistics_tokens=wanted, subject_weight=0.0
        )
        passages = [passage.ids for passage in generic_passages(tiny_tokenizer, hparams)]
        assert [token for part in passages for token in part] == ids[:wanted]
        assert max(map(len, passages)) == min(128, wanted)


def test_the_built_in_text_suffices_for_every_preset(tmp_path: Path, tiny_tokenizer: Any) -> None:
    spectrum = spectra(tmp_path, tiny_tokenizer, tokens=8192, subject_weight=1.0)[0]
    assert spectrum.directions.shape == (D_FF, D_FF)


def test_the_second_time_it_is_read(
    tmp_path: Path, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = spectra(tmp_path, tiny_tokenizer)
    assert len(list(tmp_path.iterdir())) == 2  # a file a layer, no remains of writing
    forbid_collecting(monkeypatch)
    second = spectra(tmp_path, tiny_tokenizer)
    for layer in (0, 1):
        assert torch.equal(first[layer].eigenvalues, second[layer].eigenvalues)
        assert torch.equal(first[layer].directions, second[layer].directions)


def test_only_what_is_missing_is_collected(
    tmp_path: Path, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    spectra(tmp_path, tiny_tokenizer, layers=(1,))
    asked: list[list[int]] = []
    collect = statistics._collect

    def spy(editable: Any, passages: Any, layers: Any, batch_size: int) -> Any:
        asked.append(list(layers))
        return collect(editable, passages, layers, batch_size)

    monkeypatch.setattr(statistics, "_collect", spy)
    assert sorted(spectra(tmp_path, tiny_tokenizer, layers=(0, 1, 2))) == [0, 1, 2]
    assert asked == [[0, 2]]


def damage_truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def damage_empty(path: Path) -> None:
    path.write_bytes(b"")


def damage_text(path: Path) -> None:
    path.write_text("not a tensor file at all")


def damage_one_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def damage_header(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content.replace(b"directions", b"directionz"))


def damage_foreign(path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"eigenvalues": torch.ones(3)}, path)


def damage_without_a_digest(path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save_file(load_file(path), path)


def damage_types(path: Path) -> None:
    from safetensors.torch import load_file, save_file

    odd = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(path).items()}
    save_file(odd, path, {"sha256": "a b"})


def damage_with_its_digest(change: Any) -> Any:
    """What is changed by somebody who knows the format."""

    def damage(path: Path) -> None:
        from rose_easyedit.cache.entries import Cache, CacheEntry

        entries = Cache(path.parent)
        tensors = entries.read(path.stem, lambda entry: entry.tensors)
        changed = {name: change(tensor) for name, tensor in tensors.items()}
        entries.write(path.stem, CacheEntry(changed), rows=512)

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        damage_types,
        damage_with_its_digest(lambda x: x * torch.nan),
        damage_with_its_digest(lambda x: x.double()),
        damage_with_its_digest(lambda x: x[..., :-1].contiguous()),
        damage_with_its_digest(lambda x: x.reshape(1, -1)),
        damage_truncate,
        damage_empty,
        damage_text,
        damage_one_bit,
        damage_header,
        damage_foreign,
        damage_without_a_digest,
    ],
)
def test_a_damaged_file_is_rebuilt(damage: Any, tmp_path: Path, tiny_tokenizer: Any) -> None:
    first = spectra(tmp_path, tiny_tokenizer, layers=(0,))
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    damage(path)
    assert path.read_bytes() != whole
    again = spectra(tmp_path, tiny_tokenizer, layers=(0,))
    assert torch.equal(again[0].directions, first[0].directions)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("leading", [0, 3, 4, 5])
def test_leading_directions_are_those_of_the_whole(
    leading: int, tmp_path: Path, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "_FIRST", 4)
    computed = spectra(tmp_path, tiny_tokenizer, layers=(0,), leading=leading)[0]
    forbid_collecting(monkeypatch)
    whole = spectra(tmp_path, tiny_tokenizer, layers=(0,))[0]
    read = spectra(tmp_path, tiny_tokenizer, layers=(0,), leading=leading)[0]
    assert len(whole.directions) > 5
    for found in (computed, read):
        assert torch.equal(found.directions, whole.directions[:leading])
        assert torch.equal(found.eigenvalues, whole.eigenvalues[:leading])


def test_leading_directions_are_read_without_the_others_and_are_whole(
    tmp_path: Path, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "_FIRST", 4)
    first = spectra(tmp_path, tiny_tokenizer, layers=(0,))[0]
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    directions = first.directions.numpy().tobytes()
    start = content.index(directions)
    row = len(directions) // len(first.directions)

    def damage(number: int) -> None:
        changed = bytearray(content)
        changed[start + number * row] ^= 1
        path.write_bytes(changed)

    damage(4)
    found = spectra(tmp_path, tiny_tokenizer, layers=(0,), leading=4)[0]
    assert torch.equal(found.directions, first.directions[:4])
    assert path.read_bytes() != content
    spectra(tmp_path, tiny_tokenizer, layers=(0,))
    assert path.read_bytes() == content
    damage(3)
    spectra(tmp_path, tiny_tokenizer, layers=(0,), leading=4)
    assert path.read_bytes() == content


def changed_weights(model: Any) -> Any:
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight.mul_(1.01)
    return model


def test_the_key_holds_everything_that_matters(tmp_path: Path, tiny_tokenizer: Any) -> None:
    text, other = tmp_path / "a.txt", tmp_path / "b.txt"
    text.write_text("Marie Curie was born in Warsaw. " * 20)
    other.write_text("Marie Curie was born in London. " * 20)
    folder = tmp_path / "cache"
    base: dict[str, Any] = dict(layers=(0,), text=text, tokens=50)
    spectra(folder, tiny_tokenizer, **base)
    changes: list[dict[str, Any]] = [
        {"layers": (1,)},
        {"text": other},
        {"text": None},
        {"tokens": 51},
        {"subject_weight": 1.0},
        {"subject_weight": 2.0},
        {"model": build_model("llama-untied")},
        {"model": changed_weights(build_model("llama-tied"))},
        {"model": build_model("llama-tied").to(torch.bfloat16)},
        {"model": build_model("llama-tied", rms_norm_eps=0.1)},
    ]
    for n_files, change in enumerate(changes, start=2):
        spectra(folder, tiny_tokenizer, **{**base, **change})
        assert len(list(folder.iterdir())) == n_files, change


def test_the_key_holds_nothing_else(
    tmp_path: Path, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, copy = tmp_path / "a.txt", tmp_path / "copy.txt"
    text.write_text("Marie Curie was born in Warsaw.\n" * 5)
    copy.write_text("\nMarie Curie was born in Warsaw.  \n" * 5)
    folder = tmp_path / "cache"
    spectra(folder, tiny_tokenizer, text=text)
    forbid_collecting(monkeypatch)
    spectra(folder, tiny_tokenizer, text=copy)
    tiny_tokenizer.padding_side = "left"
    try:
        spectra(folder, tiny_tokenizer, text=text)
    finally:
        tiny_tokenizer.padding_side = "right"


def test_the_users_cache_folder_is_the_default(
    tmp_path: Path, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROSE_EASYEDIT_CACHE", str(tmp_path))
    model = build_model("llama-tied")
    weights = weights_of(model)
    hparams = settings(alignment={"protected_directions": 3, "statistics_tokens": 200})
    delta = compute_edit(model, tiny_tokenizer, FACTS, hparams)
    assert same_weights(model, weights)
    assert len(list((tmp_path / "statistics").glob("*.safetensors"))) == 2
    forbid_collecting(monkeypatch)
    again = compute_edit(model, tiny_tokenizer, FACTS, hparams)
    for name, factors in delta.layers.items():
        assert torch.equal(factors.dense(), again.layers[name].dense())
    # and what is protected is protected
    with frozen(model):
        found = load_spectra(Prepared.of(model, tiny_tokenizer, hparams), [0, 1], hparams.alignment)
    for layer, factors in enumerate(delta.layers.values()):
        touched = factors.dense() @ found[layer].directions[:3].double().T
        assert float(touched.norm()) < 1e-5 * float(factors.dense().norm())


def test_no_statistics_where_none_are_needed(
    tmp_path: Path, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_collecting(monkeypatch)
    monkeypatch.setenv("ROSE_EASYEDIT_CACHE", str(tmp_path))
    compute_edit(build_model("llama-tied"), tiny_tokenizer, FACTS, settings())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read .*leave it null for what is built in"),
        (b"\xff\xfe\xfa", "cannot be read .*UTF-8"),
        (b"", "holds no text"),
        (b"\n  \n\t\n", "holds no text"),
    ],
)
def test_a_text_that_cannot_be_used(
    content: bytes | None, message: str, tmp_path: Path, tiny_tokenizer: Any
) -> None:
    text = tmp_path / "mine.txt"
    if content is not None:
        text.write_bytes(content)
    with pytest.raises(RoSEError, match=f"(?s)mine.txt.*{message}"):
        spectra(tmp_path / "cache", tiny_tokenizer, text=text)
    assert not (tmp_path / "cache").exists()


def test_an_interrupted_write_leaves_no_file(
    tmp_path: Path, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        spectra(tmp_path, tiny_tokenizer)
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_no_obstacle(
    tmp_path: Path, tiny_tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    found = spectra(tmp_path / "file" / "folder", tiny_tokenizer)
    assert sorted(found) == [0, 1]
    assert "not kept for the next time" in caplog.text


@pytest.mark.parametrize("leading", [None, 3])
def test_an_entry_under_another_key_is_not_used(
    leading: int | None, tmp_path: Path, tiny_tokenizer: Any
) -> None:
    first = spectra(tmp_path, tiny_tokenizer, layers=(0,), leading=leading)[0]
    (path,) = tmp_path.iterdir()
    second = spectra(tmp_path, tiny_tokenizer, layers=(1,), leading=leading)[1]
    (other,) = set(tmp_path.iterdir()) - {path}
    other.write_bytes(path.read_bytes())
    again = spectra(tmp_path, tiny_tokenizer, layers=(1,), leading=leading)[1]
    assert torch.equal(again.directions, second.directions)
    assert not torch.equal(first.directions, second.directions)
