"""Importing easyeditor as it is found, without its two dozen requirements and its side effects.

Two distributions are served, told apart by what they contain: a clone of the repository, and the
release on PyPI, which knows no device but CUDA.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import logging
import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from rose_easyedit.errors import RoSEError

_PACKAGE = "easyeditor"
# Vision code, which the PyPI release cannot import beside a current transformers.
_OPTIONAL = f"{_PACKAGE}.trainer.blip2_models"
_REQUIRED = ("torch", "transformers", "numpy")


def import_easyeditor() -> ModuleType:
    """Imports easyeditor, or returns it when it is there already.

    Packages that easyeditor asks for and that are missing or broken are replaced by stand-ins that
    only easyeditor's own modules see, and that name the package once they are used. The random
    generators, the root logger, the warning filters, the environment and the working directory
    are left as they were.

    Returns:
        The package; a plain `import easyeditor` gives the same afterwards.

    Raises:
        RoSEError: easyeditor is not installed.
    """
    if hasattr(sys.modules.get(_PACKAGE), "BaseEditor"):
        return sys.modules[_PACKAGE]
    _forget(_PACKAGE)
    folder = easyeditor_folder()
    if folder is None:
        raise RoSEError(
            "easyeditor is not installed; install its release with `pip install --no-deps "
            "easyeditor==0.0.1.dev0`, or put a clone of EasyEdit on PYTHONPATH."
        )
    honours_device = (folder / "util" / "device.py").is_file()
    try:
        with (
            _process_left_as_it_was(),
            _missing_packages_replaced(),
            nullcontext() if honours_device else _devices_honoured(),
        ):
            return importlib.import_module(_PACKAGE)
    except BaseException:
        _forget(_PACKAGE)
        raise


def easyeditor_folder() -> Path | None:
    """Where the easyeditor is that an import would find, without importing it; None if nowhere."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0])


def _forget(package: str) -> None:
    """Drops what a failed import has left, for it was compiled and bound without our help."""
    for name in list(sys.modules):
        if _within(name, package):
            del sys.modules[name]


def _within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


class _Missing:
    """Any name of a package that is not there: harmless to import, an ImportError to use."""

    def __init__(self, name: str, reason: str, importing: Callable[[], bool]) -> None:
        self._name, self._reason, self._importing = name, reason, importing

    def __getattr__(self, attribute: str) -> Any:
        if attribute == "__all__":  # a star import of a stand-in brings nothing
            return []
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        return _Missing(f"{self._name}.{attribute}", self._reason, self._importing)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self._importing():
            raise ImportError(f"easyeditor needs {self._name} for this: {self._reason}")
        # As a decorator it leaves the decorated object alone.
        return args[0] if len(args) == 1 and callable(args[0]) and not kwargs else self

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        missing = self

        class MissingBase:
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                missing(*args, **kwargs)

        return (MissingBase,)

    def __instancecheck__(self, instance: Any) -> bool:
        return False

    def __getitem__(self, item: Any) -> _Missing:
        return self

    def __iter__(self) -> Iterator[Any]:
        # Without it, __getitem__ would make every loop over a stand-in endless.
        self()
        return iter(())

    def __or__(self, other: Any) -> _Missing:
        return self

    __ror__ = __or__


@contextmanager
def _missing_packages_replaced() -> Iterator[None]:
    """Hands stand-ins to easyeditor's modules, and to nobody else, for imports that fail.

    Nothing is put into `sys.modules`: other packages probe there for what is installed.
    """
    real_import = builtins.__import__
    importing = True

    def tolerant_import(
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> Any:
        importer = (globals or {}).get("__name__") or ""
        wanted = _absolute(name, globals or {}, level)
        optional = _within(wanted, _OPTIONAL) and not _within(importer, _OPTIONAL)
        required = (_PACKAGE, *_REQUIRED) if not optional else _REQUIRED
        if not _within(importer, _PACKAGE) or wanted.split(".")[0] in required:
            return real_import(name, globals, locals, fromlist or (), level)
        try:
            return real_import(name, globals, locals, fromlist or (), level)
        except Exception as error:  # a broken binary package may raise anything
            if optional:
                _forget(_OPTIONAL)
            return _Missing(
                wanted if fromlist else wanted.split(".")[0],
                f"{type(error).__name__}: {error}",
                lambda: importing,
            )

    builtins.__import__ = tolerant_import
    try:
        yield
    finally:
        builtins.__import__ = real_import
        importing = False


def _absolute(name: str, importer_globals: Mapping[str, Any], level: int) -> str:
    if level == 0:
        return name
    return importlib.util.resolve_name("." * level + name, importer_globals["__package__"])


class _DeviceRewrite(ast.NodeTransformer):
    """Turns `f"cuda:{device}"` into "cuda:0" for 0, and into "cpu" for "cpu"."""

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        match node.values:
            case [ast.Constant(value="cuda:"), ast.FormattedValue(value=device)]:
                honoured = ast.parse(
                    "(lambda d: f'cuda:{d}' if str(d).isdigit() else str(d))(device)", mode="eval"
                ).body
                assert isinstance(honoured, ast.Call)
                honoured.args = [device]
                return ast.copy_location(honoured, node)
        return node


class _DeviceLoader(importlib.machinery.SourceFileLoader):
    """Compiles from the source each time: a .pyc would carry the rewrite into plain imports."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        tree = _DeviceRewrite().visit(ast.parse(self.get_data(path), path))
        return compile(ast.fix_missing_locations(tree), path, "exec", dont_inherit=True)


class _DeviceFinder(importlib.abc.MetaPathFinder):
    """Finds easyeditor's modules where they are and has `_DeviceLoader` load them."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not _within(fullname, _PACKAGE):
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = _DeviceLoader(spec.loader.name, spec.loader.path)
        return spec


@contextmanager
def _devices_honoured() -> Iterator[None]:
    finder = _DeviceFinder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


@contextmanager
def _process_left_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    environment, directory, path = dict(os.environ), os.getcwd(), list(sys.path)
    try:
        # Its invalid escapes and old calls are not the user's to mend.
        with generators_left_as_they_were(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        # easyeditor turns INFO on for everybody; its own log files shall still get their lines.
        if root.level != level:
            logging.getLogger(_PACKAGE).setLevel(root.level)
        root.setLevel(level)
        root.handlers[:] = handlers
        for name in set(os.environ) - set(environment):
            del os.environ[name]
        os.environ.update(environment)
        os.chdir(directory)
        sys.path[:] = path


@contextmanager
def generators_left_as_they_were() -> Iterator[None]:
    """The random generators of Python, NumPy and torch are afterwards as they were before."""
    import numpy
    import torch

    python_state, numpy_state = random.getstate(), numpy.random.get_state()
    started = torch.cuda.is_initialized()
    forked: AbstractContextManager[None] = torch.random.fork_rng(
        devices=range(torch.cuda.device_count()) if started else []
    )
    try:
        with forked:
            yield
    finally:
        random.setstate(python_state)
        numpy.random.set_state(numpy_state)
        if not started and torch.cuda.is_available():
            # The seed waits for CUDA to start, and there is no state yet that could be put back.
            torch.cuda.manual_seed_all(torch.initial_seed())
