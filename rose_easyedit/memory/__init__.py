"""An agent's memory: facts that are kept in a file, and written into a model when it is asked."""

from rose_easyedit.memory.entries import Change, Entry
from rose_easyedit.memory.memory import FactMemory

__all__ = ["Change", "Entry", "FactMemory"]
