"""RoSE: write several facts about one subject into a language model.

Every name below is imported when it is first used, so that `import rose_easyedit` takes no time
and needs neither torch nor easyeditor.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rose_easyedit.config.hparams import (
        AlignmentHyperParams,
        HierarchyHyperParams,
        RoSEHyperParams,
        SelfCheckHyperParams,
    )
    from rose_easyedit.easyedit.editor import BaseEditor, apply_rose_to_model, register
    from rose_easyedit.edits.delta import EditDelta
    from rose_easyedit.export.save import save_gguf_lora, save_merged, save_peft_lora
    from rose_easyedit.method.combine import add, combine
    from rose_easyedit.method.edit import compute_edit as edit
    from rose_easyedit.method.extend import extend, update, without
    from rose_easyedit.models.loading import load_model
    from rose_easyedit.requests import EditRequest

    __version__: str

_HOMES = {
    "AlignmentHyperParams": "config.hparams.AlignmentHyperParams",
    "BaseEditor": "easyedit.editor.BaseEditor",
    "EditDelta": "edits.delta.EditDelta",
    "EditRequest": "requests.EditRequest",
    "HierarchyHyperParams": "config.hparams.HierarchyHyperParams",
    "RoSEHyperParams": "config.hparams.RoSEHyperParams",
    "SelfCheckHyperParams": "config.hparams.SelfCheckHyperParams",
    "add": "method.combine.add",
    "apply_rose_to_model": "easyedit.editor.apply_rose_to_model",
    "combine": "method.combine.combine",
    "edit": "method.edit.compute_edit",
    "extend": "method.extend.extend",
    "load_model": "models.loading.load_model",
    "register": "easyedit.editor.register",
    "save_gguf_lora": "export.save.save_gguf_lora",
    "save_merged": "export.save.save_merged",
    "save_peft_lora": "export.save.save_peft_lora",
    "update": "method.extend.update",
    "without": "method.extend.without",
}

__all__ = [
    "AlignmentHyperParams",
    "BaseEditor",
    "EditDelta",
    "EditRequest",
    "HierarchyHyperParams",
    "RoSEHyperParams",
    "SelfCheckHyperParams",
    "__version__",
    "add",
    "apply_rose_to_model",
    "combine",
    "edit",
    "extend",
    "load_model",
    "register",
    "save_gguf_lora",
    "save_merged",
    "save_peft_lora",
    "update",
    "without",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("rose-easyedit")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _HOMES[name].rpartition(".")
    return getattr(import_module(f"{__name__}.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
