"""EasyEdit from a clone of its repository, for the scripts that measure it."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from rose_easyedit.easyedit.importing import import_easyeditor


@contextlib.contextmanager
def easyedit_at(home: str, *modules: str) -> Iterator[list[Any]]:
    """Modules of EasyEdit ("memit.memit_main") from the clone at `home`, which ends without one."""
    if not (Path(home) / "easyeditor" / "__init__.py").is_file():
        sys.exit(f"EASYEDIT_HOME is {home!r}, which holds no easyeditor package.")
    with mock.patch.object(sys, "path", [home, *sys.path]):
        import_easyeditor()
        yield [importlib.import_module(f"easyeditor.models.{name}") for name in modules]
