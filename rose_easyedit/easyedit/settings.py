"""EasyEdit's own methods, and their settings as they follow from a model's settings of ours.

What EasyEdit's functions assume of their caller, and say nowhere, is data here: which of them write
one fact a call, on which side they count padding, and how many layers they want.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rose_easyedit.errors import RoSEError, no_file

if TYPE_CHECKING:
    from rose_easyedit.config.hparams import RoSEHyperParams
    from rose_easyedit.models.architectures import EditableModel

logger = logging.getLogger(__name__)


@dataclass
class EasyEditSettings:
    """Which of EasyEdit's own methods makes the edit, and how.

    Attributes:
        algorithm: its name in EasyEdit (`MEMIT`); null edits with ours.
        file: a hparams file of EasyEdit's, in place of `settings`.
        settings: of the method, by EasyEdit's names; null stands for what follows from `hparams`.
    """

    algorithm: str | None = None
    file: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)


Layers = Callable[[Sequence[int], int], list[int]]


def _all(layers: Sequence[int], n_layers: int) -> list[int]:
    return list(layers)


def _middle(layers: Sequence[int], n_layers: int) -> list[int]:
    return [layers[len(layers) // 2]]


def _at(*depths: float) -> Layers:
    """The layers at parts of the depth, from the first to the last of them."""
    return lambda layers, n_layers: list(
        range(int(depths[0] * n_layers), int(depths[-1] * n_layers) + 1)
    )


@dataclass(frozen=True)
class HostMethod:
    """A method of EasyEdit's.

    Attributes:
        package: its folder in `easyeditor/models`.
        hparams: the class of its settings.
        layers: those that it edits, of our layers and the model's number of them.
        together: whether a call writes all of its facts; else only the first.
        padding: the side on which it expects it.
        inverts: whether it inverts the second moment, which then has to have an inverse.
        spaced: whether a target needs its space, which other methods put before it themselves.
        generic: whether each fact comes with a text that is not about it.
    """

    package: str
    hparams: str
    layers: Layers = _all
    together: bool = True
    padding: str = "right"
    inverts: bool = True
    spaced: bool = False
    generic: bool = False


METHODS: dict[str, HostMethod] = {
    "MEMIT": HostMethod("memit", "MEMITHyperParams"),
    "AlphaEdit": HostMethod("alphaedit", "AlphaEditHyperParams", inverts=False),
    "FT": HostMethod("ft", "FTHyperParams", _at(21 / 32), padding="left"),
    "ROME": HostMethod("rome", "ROMEHyperParams", _middle, together=False),
    "R-ROME": HostMethod("r_rome", "R_ROMEHyperParams", _middle, together=False),
    "EMMET": HostMethod("emmet", "EMMETHyperParams", _middle),
    "ULTRAEDIT": HostMethod(
        "ultraedit", "UltraEditHyperParams", _at(18 / 28, 26 / 28), padding="left"
    ),
    "LoRA": HostMethod("lora", "LoRAHyperParams", padding="left"),
    # EasyEdit pads on the left for it, while it counts from the left
    "PMET": HostMethod("pmet", "PMETHyperParams", spaced=True),
    "EAMET": HostMethod("eamet", "EAMETHyperParams"),
    "SPHERE": HostMethod("SPHERE", "SPHEREHyperParams", inverts=False),
    "WISE": HostMethod(
        "wise", "WISEHyperParams", _at(27 / 32), together=False, padding="left", generic=True
    ),
    "GRACE": HostMethod("grace", "GraceHyperParams", _at(27 / 32), together=False, padding="left"),
}

# What depends on this process and this call, and is ours to say with a file of EasyEdit's, too.
_OF_THE_CALL = (
    "model_name",
    "device",
    "model_parallel",
    "stats_dir",
    "P_loc",
    "save_path",
    "load_path",
)


def easyedit_faults(asked: EasyEditSettings, folder: Path | None) -> list[str]:
    """Why an EasyEdit cannot be asked for a method.

    Args:
        asked: the method and its settings.
        folder: EasyEdit's package; None if it is not there.
    """
    if asked.algorithm is None:
        left = [name for name in ("file", "settings") if getattr(asked, name)]
        return [f"easyedit.{name} is set, but easyedit.algorithm is not" for name in left]
    if asked.algorithm not in METHODS:
        return [
            f"easyedit.algorithm is {asked.algorithm!r}; choose one of {', '.join(METHODS)}, or "
            "null"
        ]
    faults = []
    if asked.file is not None and not Path(asked.file).is_file():
        faults.append(f"easyedit.file is {asked.file!r}, which is no file")
    if folder is None:
        faults.append(
            f"easyedit.algorithm is {asked.algorithm!r}, and easyeditor is not installed; put a "
            "clone of EasyEdit on PYTHONPATH, or install its release with `pip install --no-deps "
            "easyeditor==0.0.1.dev0`"
        )
    elif not (folder / "models" / METHODS[asked.algorithm].package).is_dir():
        faults.append(
            f"easyedit.algorithm is {asked.algorithm!r}, which the EasyEdit in '{folder}' does not "
            "have; put a clone of its repository on PYTHONPATH"
        )
    return faults


def host_name(editable: EditableModel) -> str:
    """A model's name in which EasyEdit finds how the weights lie, and nothing by accident."""
    transposed = editable.is_transposed(0)
    return "gpt2-xl" if transposed else f"llama-{editable.model.config.model_type}"


def host_hparams(
    kind: Any,
    asked: EasyEditSettings,
    editable: EditableModel,
    hparams: RoSEHyperParams,
    n_facts: int,
) -> Any:
    """The settings of a method in EasyEdit's own form.

    Args:
        kind: EasyEdit's class of them.
        asked: the method; its settings, or the file that holds them.
        editable: the model.
        hparams: the model's settings of ours, with their layers named.
        n_facts: how many facts a call is given.

    Raises:
        RoSEError: EasyEdit does not take the settings, in its words.
    """
    known = {field.name for field in fields(kind)}
    derived = _derived(asked.algorithm or "", editable, hparams, n_facts)
    if asked.file is not None:
        found = _read(kind, asked.file)
        logger.info("the settings are those of %s, in place of easyedit.settings", asked.file)
        of_the_call = [*_OF_THE_CALL, *(["batch_size", "batch_size_once"] * _fixed_size(known))]
        for name in known.intersection(of_the_call):
            setattr(found, name, derived.get(name))
        return found
    given = {name: value for name, value in asked.settings.items() if value is not None}
    if left_out := sorted(set(given) - known):
        logger.warning(
            "%s of this EasyEdit has no %s, which is left out", kind.__name__, ", ".join(left_out)
        )
    values = {name: v for name, v in {**derived, **given}.items() if name in known}
    try:
        return kind(**values)
    except TypeError as error:
        raise RoSEError(
            f"EasyEdit's {kind.__name__} cannot be made: {error}; give what is missing as "
            "+easyedit.settings.NAME=VALUE, or a whole file of EasyEdit's as easyedit.file."
        ) from error


def _fixed_size(known: set[str]) -> bool:
    """Whether the method writes as many facts as its settings say, and drops the others."""
    return "batch_size_once" in known


def _read(kind: Any, file: str) -> Any:
    path = Path(file)
    if not path.is_file():
        raise no_file(path, "hparams file of EasyEdit's", "name one as easyedit.file")
    try:
        return kind.from_hparams(str(path.resolve()))
    except Exception as error:
        raise RoSEError(
            f"EasyEdit's {kind.__name__} cannot be read from {file!r}: {type(error).__name__}: "
            f"{error}"
        ) from error


def _derived(
    algorithm: str, editable: EditableModel, hparams: RoSEHyperParams, n_facts: int
) -> dict[str, Any]:
    """Values for every field that follows from the model, its settings of ours, or the call."""
    method, paths = METHODS[algorithm], editable.paths
    layers = method.layers([int(layer) for layer in hparams.layers], editable.n_layers)
    layer, down = f"{paths.layers}.{{}}", paths.down_projection
    mlp, attention = f"{layer}.{down.rpartition('.')[0]}", f"{layer}.{_attention(editable)}"
    weight = float(hparams.alignment.covariance_weight)
    values: dict[str, Any] = {
        "alg_name": algorithm,
        "model_name": host_name(editable),
        "tokenizer_name": host_name(editable),
        "model_class": "AutoModelForCausalLM",
        "tokenizer_class": "AutoTokenizer",
        "device": str(editable.device),
        "model_parallel": False,
        "layers": layers,
        "layer_selection": "all",
        "fact_token": "subject_last",
        "v_loss_layer": editable.n_layers - 1,
        "mom2_update_weight": weight,
        "nullspace_threshold": hparams.alignment.null_space_threshold,
        "rewrite_module_tmp": f"{layer}.{down}",
        "rewrite_module_tmps": [f"{layer}.{down}"],
        "layer_module_tmp": layer,
        "mlp_module_tmp": mlp,
        "attn_module_tmp": attention,
        "ln_f_module": paths.final_norm,
        "lm_head_module": _head(editable),
        "mom2_dataset": "wikipedia",  # never asked for: the statistics are ours
        "mom2_n_samples": 1,
        "mom2_dtype": "float32",
        "stats_dir": "stats",
        "P_loc": "null_space_project.pt",  # in a folder of the call's own
        # as an expression, which EasyEdit evaluates
        "inner_params": [f"{paths.layers}[{index}].{down}.weight" for index in layers],
        "batch_size": n_facts,
        "dropout": 0.0,
        "no_grad_layers": None,
        "token": "mask",
        "silent": True,
        "results_dir": "results",
    }
    if algorithm == "FT":
        values["rewrite_module_tmp"] += ".weight"
    elif algorithm == "EAMET":
        values["mom2_update_weight"] = [weight] * len(layers)
    elif algorithm == "PMET":
        values["mlp_module_tmp"] = f"{layer}.{down}"
        values["attn_module_tmp"] = f"{attention}.{_output_projection(editable)}"
    elif algorithm == "ULTRAEDIT":
        values["batch_size_once"] = 1
        values["inner_params"] = list(_into_mlps(editable, layers))
    return values


def _head(editable: EditableModel) -> str:
    """The module that holds the head's weight, by the name under which it is a parameter.

    A head that is tied to the embeddings is no parameter of its own.
    """
    wanted = editable.head.get_parameter("weight")
    parameters = editable.model.named_parameters()
    name = next(name for name, parameter in parameters if parameter is wanted)
    return str(name).removesuffix(".weight")


def _attention(editable: EditableModel) -> str:
    children = editable.layers[0].named_children()
    return next(name for name, child in children if type(child).__name__.endswith("Attention"))


def _output_projection(editable: EditableModel) -> str:
    """The last linear map of the attention, by its name there."""
    attention = editable.layers[0].get_submodule(_attention(editable))
    names = [name for name, child in attention.named_children() if _is_linear(child)]
    return next(name for name in names if name in ("o_proj", "c_proj", "out_proj", "dense"))


def _into_mlps(editable: EditableModel, layers: Sequence[int]) -> Sequence[str]:
    """The linear maps of the layers' MLPs but the one that leads out, kind by kind."""
    inside, _, out = editable.paths.down_projection.rpartition(".")
    mlp = editable.layers[0].get_submodule(inside)
    kinds = [n for n, child in mlp.named_children() if _is_linear(child) and n != out]
    return [f"{editable.paths.layers}.{i}.{inside}.{kind}" for kind in kinds for i in layers]


def _is_linear(module: Any) -> bool:
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, nn.Linear | Conv1D)
