"""Loads a model with its tokenizer: a built-in one, a folder, a GGUF file, or a hub's name."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rose_easyedit.errors import RoSEError, first_line, shown
from rose_easyedit.models.embedded import PACKAGED, intact_model, packaged_model
from rose_easyedit.models.gguf_file import gguf_model
from rose_easyedit.models.tiny import TINY, build_tiny
from rose_easyedit.restoring import restoring

EMBEDDED = "embedded"
LABORATORY = "laboratory"
# In Hugging Face's form, with the texts of its world and the record of its training.
LABORATORY_FOLDER = Path(__file__).with_name("laboratory")
BUILT_IN = (*PACKAGED, LABORATORY, TINY)
_OFFLINE = f"the names {', '.join(BUILT_IN)} always work offline"
_SHOWN_NAMES = 5
DTYPES = ("auto", "float32", "bfloat16", "float16")


def load_model(name: str = EMBEDDED, device: Any = "cpu", dtype: Any = "auto") -> tuple[Any, Any]:
    """Loads a causal language model and its tokenizer, ready to be evaluated.

    Args:
        name: "embedded" (SmolLM2-135M-Instruct) or "gemma-3-270m", out of Python packages;
            "laboratory" (small, of an invented world) or "tiny-random" (random weights), which
            are part of this package; a folder in Hugging Face's form, a GGUF file, or a name on
            the hub.
        device: "cpu", "cuda:0", a CUDA index, or a `torch.device`.
        dtype: "auto" (as the checkpoint has it; the built-in ones are float32), "float32",
            "bfloat16", "float16", or a `torch.dtype`.

    Returns:
        The model in evaluation mode on the device, and its tokenizer, which has a padding token.

    Raises:
        RoSEError: no such model, dtype or device, with what would do; a checkpoint that cannot be
            read, lacks weights or has others; or a GGUF file of a family or with a tokenizer that
            is not read, by its name.
    """
    import torch

    place, precision = _device(device), _dtype(dtype)
    check_name(str(name))
    if name == TINY:
        model, tokenizer = build_tiny()
        _without_length_warning(tokenizer)
        return model.to(place, None if precision == "auto" else precision).eval(), tokenizer
    with ThreadPoolExecutor(1) as beside:
        # checksums of hundreds of megabytes, while the interpreter reads what is behind this import
        checked = beside.submit(intact_model, name)
        import transformers.modeling_utils
    source = str(checked.result() or _folder(name))
    try:
        shown = sys.stderr.isatty() and name not in BUILT_IN
        # there first, whatever the default device of the process is
        with transformers_progress(shown=shown), torch.device("cpu"):
            # an edit from elsewhere may name the model: its code is never run
            tokenizer = transformers.AutoTokenizer.from_pretrained(source, trust_remote_code=False)
            model, found = transformers.AutoModelForCausalLM.from_pretrained(
                source, dtype=precision, trust_remote_code=False, output_loading_info=True
            )
    except MemoryError:
        raise
    except Exception as error:  # of safetensors, pickle, a tokenizer's or a quantiser's package
        raise RoSEError(_cannot_load(str(name), error)) from error
    if faults := _weight_faults(found):
        raise RoSEError.of(
            f"The weights of {str(name)!r} are not those of a {type(model).__name__}, which would "
            "be completed with random numbers or lose some; name a whole checkpoint:",
            faults,
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    _without_length_warning(tokenizer)
    return model.to(place).eval(), tokenizer


def _weight_faults(found: Mapping[str, Any]) -> list[str]:
    """Which weights a checkpoint lacks, has beside the model's, or in another shape."""
    kinds = {"missing_keys": "lacks", "unexpected_keys": "also has", "mismatched_keys": "misfits"}
    faults = []
    for kind, word in kinds.items():
        names = sorted(str(name) for name in found.get(kind) or ())
        more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
        if names:
            faults.append(f"it {word} {', '.join(map(shown, names[:_SHOWN_NAMES]))}{more}")
    return faults


def check_name(name: str) -> None:
    """Refuses a name of no model, here or on the hub, without reading or asking anything.

    Raises:
        RoSEError: it is a file of another kind than GGUF, a folder without a configuration, or a
            path to nothing.
    """
    path = Path(name)
    if name in BUILT_IN:
        return
    if path.is_file() and path.suffix.lower() != ".gguf":
        raise RoSEError(
            f"The model {name!r} is a file; name a GGUF file (.gguf), or the folder of a model in "
            "Hugging Face's form."
        )
    if path.is_dir() and not (path / "config.json").is_file():
        raise RoSEError(
            f"The folder {name!r} does not load as a causal language model: it has no config.json; "
            "name the folder of a model in Hugging Face's form."
        )
    near = difflib.get_close_matches(name, BUILT_IN, n=1, cutoff=0.8)
    if near and not path.exists():  # before the hub is asked, several times where there is none
        raise RoSEError(f"There is no model {name!r} to load; did you mean {near[0]!r}?")
    placed = path.is_absolute() or name.startswith((".", "~")) or path.suffix.lower() == ".gguf"
    if placed and not path.exists():
        raise RoSEError(f"There is no model {name!r} to load: no such place; {_OFFLINE}.")


def _without_length_warning(tokenizer: Any) -> None:
    """What is too long is refused, with its length, by whatever puts it to the model."""
    key = "sequence-length-is-longer-than-the-specified-maximum"
    tokenizer.deprecation_warnings[key] = True  # as if it had been shown


def _folder(name: str) -> Path | str:
    if name in PACKAGED:
        return packaged_model(name)
    if name == LABORATORY:
        return LABORATORY_FOLDER
    if Path(name).is_file():
        return gguf_model(Path(name))
    return name


@restoring
def transformers_progress(*, shown: bool) -> Iterator[None]:
    """Puts transformers' progress bars away for a while unless `shown`, then back as they were."""
    from transformers.utils import logging

    if shown or not logging.is_progress_bar_enabled():
        yield
        return
    try:
        logging.disable_progress_bar()
        yield
    finally:
        logging.enable_progress_bar()


def named_device(device: Any) -> Any:
    """The `torch.device` of a name or a CUDA index, whether this machine has it or not.

    Raises:
        RoSEError: it names none.
    """
    import torch

    index = int(device) if str(device).isdigit() else None
    try:
        return torch.device(device) if index is None else torch.device("cuda", index)
    except (RuntimeError, TypeError) as error:
        raise RoSEError(
            f'device is {device!r}; give "cpu", "cuda:0" or the index of a CUDA device.'
        ) from error


def _device(device: Any) -> Any:
    import torch

    place = named_device(device)
    if place.type == "cuda" and not (place.index or 0) < torch.cuda.device_count():
        raise RoSEError(
            f"device is {device!r}, but PyTorch finds {torch.cuda.device_count()} CUDA devices "
            'here; device "cpu" always works.'
        )
    try:
        if place.type == "meta":
            raise RuntimeError("it holds no numbers")
        torch.empty(1, device=place)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise RoSEError(
            f"device is {device!r}, which PyTorch cannot compute on here "
            f'({first_line(str(error)) or type(error).__name__}); device "cpu" always works.'
        ) from error
    return place


def _dtype(dtype: Any) -> Any:
    import torch

    if isinstance(dtype, torch.dtype) or dtype == "auto":
        return dtype
    return getattr(torch, dtype_name(dtype))


def dtype_name(dtype: Any) -> str:
    """What a type of weights is called, one of `DTYPES`.

    Raises:
        RoSEError: it is none of them.
    """
    name = dtype if isinstance(dtype, str) else str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise RoSEError(f"dtype is {dtype!r}; choose one of {', '.join(DTYPES)}.")
    return name


def _cannot_load(name: str, error: Exception) -> str:
    reason = shown(first_line(str(error)) or type(error).__name__)[1:-1]
    if Path(name).is_dir():
        return f"The folder {name!r} does not load as a causal language model: {reason}"
    return (
        f"There is no model {name!r} to load: it is no folder here, and the hub's answer was: "
        f"{reason} {_OFFLINE}."
    )
