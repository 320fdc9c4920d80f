"""The words of `--set`, such as `hierarchy.subject_steps=30`, as nested values."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import fields
from typing import Any

from rose_easyedit.errors import RoSEError, first_line

# Settings that have an option of their own, by the name of its value among the words.
_OWN = {"model_name": "model", "device": "device", "seed": "seed"}


def assigned(arguments: Namespace) -> dict[str, Any]:
    """What `--set` and the options of single settings assign, for `with_overrides`.

    Raises:
        RoSEError: a word of `--set` has no name or no value, its value is not YAML or of another
            shape than the setting, or it sets what an option sets as well.
    """
    from omegaconf import OmegaConf

    container = OmegaConf.create()
    for word in arguments.set:
        _assign(container, word)
    values: dict[str, Any] = OmegaConf.to_container(container)  # type: ignore[assignment]
    for name, option in _OWN.items():
        given = getattr(arguments, option)
        if given is None:
            continue
        if name in values:
            raise RoSEError(
                f"--{option} {given} and --set {name}={values[name]} set the same; leave one out."
            )
        values[name] = given
    return values


def _assign(container: Any, word: str) -> None:
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    name, _, text = word.partition("=")
    if "=" not in word or not all(name.split(".")):
        raise RoSEError(f"--set takes KEY=VALUE, not {word!r}.")
    if not text.strip():
        raise RoSEError(f"--set {word} has no value; write one, or {name}=null for none.")
    try:
        container.merge_with_dotlist([word])
    except YAMLError as error:
        reason = first_line(str(getattr(error, "problem", None) or error))
        raise RoSEError(
            f"--set {word}: the value {text!r} is not YAML ({reason}); close what is open, or put "
            "quotes around a text."
        ) from error
    except OmegaConfBaseException as error:
        raise RoSEError(f"--set {word}: {first_line(str(error))}; mend the word.") from error
    _check_shape(container, word, name)


def _check_shape(container: Any, word: str, name: str) -> None:
    """Refuses parts of what has none, and single values for lists."""
    from omegaconf import ListConfig

    from rose_easyedit.config.hparams import RoSEHyperParams

    kinds = {field.name: str(field.type) for field in fields(RoSEHyperParams)}
    whole, _, part = name.partition(".")
    kind = kinds.get(whole, "")
    if part and kind and not kind.endswith("HyperParams") and not kind.startswith("dict"):
        raise RoSEError(f"--set {word}: {whole} is one setting without parts; give all of it.")
    value = container[whole]
    if kind.startswith("list") and not (value is None or isinstance(value, ListConfig)):
        raise RoSEError(
            f"--set {word}: {whole} is a list, and {value!r} is none; write {whole}=[{value}]."
        )
