"""`rose-edit`: the shell around the package."""

from rose_easyedit.cli.main import main

__all__ = ["main"]
