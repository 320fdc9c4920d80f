"""What a GGUF file says of itself, and what it says that transformers' loader does not carry over.

The loader reads the families of its own table and passes over some of their keys without a word: a
stretched rotation, the width of a head, the scale of attention. Those are set here as llama.cpp
reads them (`src/models/*.cpp`), or refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rose_easyedit.errors import RoSEError, shown

ROPE_FACTORS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
# The largest of these families scale attention by the width of the stream, not by that of a head.
_LAYERS_OF_27B = {"gemma2": 46, "gemma3": 62}


@dataclass(frozen=True)
class Header:
    """The metadata of a GGUF file.

    Attributes:
        path: of the file.
        values: its keys with single values.
        sizes: how many numbers each of its tensors has.
        rope_factors: what each frequency of the rotation is divided by, or nothing.
    """

    path: Path
    values: dict[str, Any]
    sizes: dict[str, int]
    rope_factors: tuple[float, ...]

    @property
    def family(self) -> str:
        """What llama.cpp calls the architecture."""
        return str(self.values.get("general.architecture"))

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key of the family."""
        return self.values.get(f"{self.family}.{key}", default)

    @property
    def n_weights(self) -> int:
        """How many numbers a model has to take from the file."""
        return sum(size for name, size in self.sizes.items() if name not in ROPE_FACTORS)


def read_header(path: Path) -> Header:
    """Reads the metadata of a model.

    Raises:
        RoSEError: the file is no GGUF file, is damaged, or holds no whole language model of a
            family that an edit knows.
    """
    from gguf import GGUFReader, GGUFValueType

    try:
        reader = GGUFReader(path)
        values = {
            name: field.contents()
            for name, field in reader.fields.items()
            if field.types[:1] != [GGUFValueType.ARRAY]
        }
        sizes = {tensor.name: int(tensor.n_elements) for tensor in reader.tensors}
        factors = [t.data for t in reader.tensors if t.name == ROPE_FACTORS[0]]
        header = Header(path, values, sizes, tuple(map(float, factors[0])) if factors else ())
        reason = _refusal(header)
    except OSError:
        raise
    except Exception as error:  # the reader trusts the file, and fails in as many ways as it can
        raise RoSEError(
            f"{str(path)!r} is no GGUF file that can be read ({type(error).__name__}: "
            f"{shown(str(error))}); name a GGUF file, or a folder in Hugging Face's form."
        ) from error
    if reason:
        raise RoSEError(f"The GGUF file {str(path)!r} {reason}")
    return header


def _refusal(header: Header) -> str | None:
    from rose_easyedit.models.architectures import ARCHITECTURES

    known = sorted({row.gguf for row in ARCHITECTURES.values() if row.gguf})
    kind = header.values.get("general.type", "model")
    if kind != "model":
        return f"holds {shown(kind)}, and no model; name the model that it belongs to."
    if header.values.get("split.count", 0) > 1:
        return (
            f"is one of {header.values['split.count']} parts; join them "
            "(`llama-gguf-split --merge`), and name the whole."
        )
    if header.family not in known:
        return (
            f"is of the architecture {shown(header.family)}; an edit knows {', '.join(known)}. "
            "docs/adding-a-model.md says what a new one needs."
        )
    n_layers = header.get("block_count")
    if type(n_layers) is not int or n_layers > len(header.sizes):
        return (
            f"says that it has {shown(n_layers)} layers, and has {len(header.sizes)} tensors; "
            "save or copy it again."
        )
    if header.get("expert_count", 0):
        return (
            f"is a mixture of experts ({header.get('expert_count')} of them): a subject's value is "
            "spread over several down projections, which this method does not solve for; edit a "
            "dense model."
        )
    return None


def carry_over(header: Header, config: Any) -> None:
    """Sets what transformers' loader has left at its default, as llama.cpp has it.

    Args:
        header: of the file.
        config: as transformers' loader made it; changed.

    Raises:
        RoSEError: the rotation is stretched in a way that is not known here.
    """
    width = header.get("attention.key_length")
    if width is not None and hasattr(config, "head_dim"):
        config.head_dim = width
    if header.family in _LAYERS_OF_27B:
        config.query_pre_attn_scalar = config.head_dim
        if config.num_hidden_layers == _LAYERS_OF_27B[header.family]:
            config.query_pre_attn_scalar = config.hidden_size // config.num_attention_heads
    for cap in ("attn_logit_softcapping", "final_logit_softcapping"):
        if hasattr(config, cap) and header.get(cap) is not None:
            config.__setattr__(cap, header.get(cap))
    if header.family == "gpt2":
        config.n_positions = header.get("context_length")
    if header.family == "phi3" and header.get("rope.dimension_count"):
        head = config.hidden_size // config.num_attention_heads
        config.rope_parameters["partial_rotary_factor"] = header.get("rope.dimension_count") / head
    _carry_rotation(header, config)


def _carry_rotation(header: Header, config: Any) -> None:
    kind = header.get("rope.scaling.type", "linear")
    factor = header.get("rope.scaling.factor") or 1.0
    stretched: dict[str, Any] = {}
    if kind == "linear" and factor != 1.0:
        stretched = {"rope_type": "linear", "factor": factor}
    elif kind not in ("linear", "none") or set(ROPE_FACTORS[1:]) & set(header.sizes):
        raise RoSEError(
            f"The GGUF file {str(header.path)!r} stretches its rotation by "
            f"{shown(kind if kind != 'linear' else 'longrope')}, which is not read here; name the "
            "model in Hugging Face's form."
        )
    if header.rope_factors:
        base = header.get("rope.freq_base", 10000.0)
        stretched = llama3_rotation(base, header.rope_factors)
        if not stretched:
            raise RoSEError(
                f"The GGUF file {str(header.path)!r} has rope_freqs that are not those of Llama "
                "3.1 and 3.2, the only ones read here; name the model in Hugging Face's form."
            )
    # Gemma 3 stretches the rotation of the layers without a window alone
    rotation = config.rope_parameters if hasattr(config, "rope_parameters") else {}
    rotation.get("full_attention", rotation).update(stretched)


def llama3_rotation(base: float, factors: tuple[float, ...]) -> dict[str, Any]:
    """The loader's parameters of a rotation that is stretched as in Llama 3.1 and 3.2.

    Args:
        base: of the rotation's frequencies.
        factors: that frequency i of d / 2 is divided by: 1 for the fast ones, the largest for the
            slow ones, in between by where the wavelength lies.

    Returns:
        The parameters, or nothing if another rule has made the factors.
    """
    largest, original, slow, fast = max(factors), 8192, 1.0, 4.0
    for i, factor in enumerate(factors):
        wavelength = 2 * math.pi * base ** (i / len(factors))
        share = min(max((original / wavelength - slow) / (fast - slow), 0.0), 1.0)
        if not math.isclose(factor, 1 / ((1 - share) / largest + share), rel_tol=1e-4):
            return {}
    return {
        "rope_type": "llama3",
        "factor": largest,
        "low_freq_factor": slow,
        "high_freq_factor": fast,
        "original_max_position_embeddings": original,
    }
