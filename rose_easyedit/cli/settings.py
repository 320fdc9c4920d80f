"""From the words on a command line to settings and a model."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rose_easyedit.cli.assignments import assigned
from rose_easyedit.config.paths import conf_dir, hparams_dir
from rose_easyedit.errors import RoSEError

if TYPE_CHECKING:
    from rose_easyedit.config.hparams import RoSEHyperParams
    from rose_easyedit.edits.delta import EditDelta

EMBEDDED_SETTINGS = "smollm2-135m"


def edit_settings(arguments: Namespace, base: RoSEHyperParams | None = None) -> RoSEHyperParams:
    """The settings of `rose-edit edit`: a file, then a preset, then single values.

    Args:
        arguments: the words.
        base: what stands for the file where none is named; None takes the model's.
    """
    if base is None or arguments.hparams:
        base = settings_of(arguments.hparams, arguments.model)
    if arguments.method:
        base = _of_method(base, arguments.method)
    return base.with_overrides(**assigned(arguments))


def _of_method(hparams: RoSEHyperParams, method: str) -> RoSEHyperParams:
    """The settings with a preset's in place; a method of EasyEdit's is told where it runs."""
    hosts = conf_dir() / "method" / "easyedit"
    name = method.lower().replace("-", "_")
    try:
        return hparams.with_preset(method)
    except RoSEError as error:
        if (hosts / f"{name}.yaml").is_file() and not Path(method).exists():
            raise RoSEError(
                f"{method} is a method of EasyEdit's own, which writes no edit file; compare it in "
                f"a sweep: rose-experiment method=easyedit/{name}."
            ) from error
        raise


def _read(name: str) -> RoSEHyperParams:
    """The settings of a file, which a fault of theirs names as well."""
    from rose_easyedit.config.hparams import RoSEHyperParams

    try:
        return RoSEHyperParams.from_hparams(name)
    except RoSEError as error:
        if name in str(error):
            raise
        raise RoSEError(f"{name}: {error}") from error


def settings_of(file: str | None, model: str | None) -> RoSEHyperParams:
    """The settings of a file, by name or path; those of the model where none is named."""
    return _read(file) if file else model_settings(model)


def model_settings(model: str | None) -> RoSEHyperParams:
    """The settings of a model given by name or folder: shipped ones, or the package's defaults.

    The defaults leave the layers to causal tracing (`layers: auto`).
    """
    from rose_easyedit.config.hparams import RoSEHyperParams

    shipped = shipped_settings(model)
    if shipped is None:
        return RoSEHyperParams(model_name=str(model))
    return _read(shipped)


def shipped_settings(model: str | None) -> str | None:
    """The name of the shipped settings for a model given by name or folder, if there are some."""
    if model in (None, "embedded"):
        return EMBEDDED_SETTINGS
    shipped = {path.stem: path for path in sorted((hparams_dir() / "RoSE").glob("*.yaml"))}
    wanted = Path(str(model)).name.lower()
    for name, path in shipped.items():
        if wanted in (name, Path(_model_name(path)).name.lower()):
            return name
    return None


def load_base(delta: EditDelta, arguments: Namespace) -> tuple[Any, Any]:
    """The model and tokenizer that an edit was computed for, unless the words name others.

    Raises:
        RoSEError: the model cannot be loaded, or is another one than the edit's; in words that
            fit a shell, and before anything is asked of it.
    """
    from rose_easyedit.models.loading import load_model

    settings = delta.provenance.hparams
    name = arguments.model or settings.get("model_name")
    if name is None:
        raise RoSEError("The edit does not say which model it is for; add --model NAME.")
    device = arguments.device if arguments.device is not None else settings.get("device", "cpu")
    precision = delta.provenance.dtype or "auto"
    dtype = arguments.dtype or precision
    model, tokenizer = load_model(name, device, dtype)
    if not delta.is_of(model):
        raise RoSEError(
            f"The edit was computed for {settings.get('model_name', 'a model')!r} in {precision}, "
            f"and the weights of {name!r} in {dtype} are others: it is another model, another "
            "precision, or edited already. Leave out --model and --dtype, or name that model."
        )
    return model, tokenizer


def _model_name(path: Path) -> str:
    from rose_easyedit.config.yaml_files import read_yaml

    return str(read_yaml(path)["model_name"])
