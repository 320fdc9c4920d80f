"""The file of a memory, in SQLite: whole after a kill at any moment, and safe for two processes.

Every write is one transaction that has the file to itself from its beginning and is on the disk
when it ends: of two processes one waits for the other.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from rose_easyedit.errors import DiskError, RoSEError, no_file
from rose_easyedit.files.disks import unwritable

_APPLICATION = 0x526F5345  # "RoSE", in the header of the file
_VERSION = 1
_LONGEST = 64 << 20  # bytes of one text or target
_PATIENCE = 60.0  # seconds that a process waits for another one's write
_SCHEMA = (
    "CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    """CREATE TABLE facts (
        number INTEGER PRIMARY KEY, subject TEXT NOT NULL, prompt TEXT NOT NULL,
        target TEXT NOT NULL, ground_truth TEXT, since TEXT NOT NULL, fault TEXT,
        UNIQUE (subject, prompt))""",
    """CREATE TABLE targets (
        digest TEXT PRIMARY KEY, subject TEXT NOT NULL, value BLOB NOT NULL, rest TEXT NOT NULL,
        sha256 TEXT NOT NULL)""",
    """CREATE TABLE history (
        number INTEGER PRIMARY KEY, time TEXT NOT NULL, action TEXT NOT NULL,
        subject TEXT NOT NULL, prompt TEXT NOT NULL, old TEXT, new TEXT)""",
)


class MemoryFile:
    """One file; a connection of its own for each block, so that threads and forks may share it."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()  # wherever the process goes later

    @property
    def is_begun(self) -> bool:
        """Whether there is a file with anything in it; a kill may have left an empty one."""
        if not self.path.is_file():
            return False
        try:
            with self._open("DEFERRED") as file:
                return _has_tables(file)
        except RoSEError:
            return True  # something else, as whoever opens it will be told

    def make(self, settings: Mapping[str, str]) -> None:
        """Makes the file with its tables and settings; one that is there stays as it is.

        Raises:
            RoSEError: there is a folder, or a file that is no memory.
        """
        if self.path.is_dir():
            raise no_file(self.path, "memory", "name a file, such as facts.db")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(self.path, error) from error
        with self._open("IMMEDIATE", mode="rwc") as file:
            # an empty database is what a kill may have left of the first attempt
            if _has_tables(file):
                return
            for statement in _SCHEMA:
                file.execute(statement)
            file.executemany("INSERT INTO settings VALUES (?, ?)", settings.items())
            file.execute(f"PRAGMA application_id = {_APPLICATION}")
            file.execute(f"PRAGMA user_version = {_VERSION}")

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A view of one moment.

        SQLite reads a file that is write-protected; one that is not may have to be mended first,
        where a kill has cut a change off.
        """
        with self._open("DEFERRED") as file:
            self._check(file)
            yield file

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A change that is made whole, or not at all where an error ends the block."""
        with self._open("IMMEDIATE") as file:
            self._check(file)
            yield file

    @contextmanager
    def _open(self, kind: str, *, mode: str = "rw") -> Iterator[sqlite3.Connection]:
        """A transaction; `mode` is SQLite's: a missing file is made in "rwc" alone."""
        if mode != "rwc" and not self.path.is_file():
            raise no_file(self.path, "memory", "add a fact to begin one")
        address = f"{self.path.as_uri()}?mode={mode}"
        try:
            with closing(
                sqlite3.connect(address, timeout=_PATIENCE, isolation_level=None, uri=True)
            ) as file:
                file.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
                file.execute("PRAGMA synchronous = EXTRA")  # it outlives a power cut, too
                file.execute(f"BEGIN {kind}")
                try:
                    yield file
                except BaseException:
                    file.rollback()
                    raise
                file.commit()
        except sqlite3.OperationalError as error:  # locked, read-only, no space
            # a table or column that there is not; a text that is none
            if str(error).startswith(("no such", "Could not decode")):
                raise self.damaged(error) from error
            raise DiskError(
                f"The memory {str(self.path)!r} cannot be used now ({error}); free some space, let "
                "its file and folder be written, or wait for what else uses it."
            ) from error
        except sqlite3.DatabaseError as error:
            raise self.damaged(error) from error

    def damaged(self, reason: object) -> RoSEError:
        """What a file is refused with whose content cannot be a memory's."""
        return RoSEError(
            f"{str(self.path)!r} is damaged or no memory ({reason}); name another file, or put a "
            "copy of it back."
        )

    def _check(self, file: sqlite3.Connection) -> None:
        if not _is_made(file):
            raise RoSEError(f"{str(self.path)!r} is no memory of this package; name another file.")
        (version,) = file.execute("PRAGMA user_version").fetchone()
        if version != _VERSION:
            raise RoSEError(
                f"The memory {str(self.path)!r} has the form {version}, this version reads "
                f"{_VERSION}; use the version of rose_easyedit that wrote it."
            )
        # views, triggers and generated columns could run on for ever, or tell something else
        made = file.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
        if sorted(_in_one_line(sql) for (sql,) in made) != sorted(map(_in_one_line, _SCHEMA)):
            raise self.damaged("its tables are not those of a memory")


def _in_one_line(statement: object) -> str:
    return " ".join(str(statement).split())


def _has_tables(file: sqlite3.Connection) -> bool:
    return bool(file.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])


def _is_made(file: sqlite3.Connection) -> bool:
    return bool(file.execute("PRAGMA application_id").fetchone()[0] == _APPLICATION)
