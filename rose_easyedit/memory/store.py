"""What a memory keeps: facts, their targets, and what has happened to them.

Facts come first: they are on the disk before anything is computed, and there is nothing of them but
this. Targets can be computed again, and are kept for as long as their facts are the same.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rose_easyedit.config.compare import missing_settings
from rose_easyedit.config.hparams import RoSEHyperParams
from rose_easyedit.errors import RoSEError, shown
from rose_easyedit.memory.entries import Change, Entry, Snapshot, StoredTarget, group_digest
from rose_easyedit.memory.file import MemoryFile
from rose_easyedit.models.loading import DTYPES
from rose_easyedit.requests import EditRequest, as_prompt, as_subject, group_by_subject

logger = logging.getLogger(__name__)

_OF_FACT = ("prompt", "subject", "target_new", "ground_truth")


class FactStore:
    """The facts of one file; each call is one transaction."""

    def __init__(
        self,
        path: str | Path,
        settings: Mapping[str, Any] | None = None,
        dtype: str = "auto",
    ) -> None:
        """Opens a file, or makes it.

        Args:
            path: of the file.
            settings: the settings (`RoSEHyperParams.as_dict`) of a file that is made if there is
                none; None makes none.
            dtype: of the model's weights, as `load_model` takes it; that of a file that is made.

        Raises:
            RoSEError: there is no such file, or it is no memory.
        """
        self._file = MemoryFile(Path(path))
        if settings is not None and not self._file.is_begun:
            self._file.make({"hparams": json.dumps(settings), "dtype": dtype})
        with self._file.reading() as file:
            rows = dict(self._texts(file, "SELECT name, value FROM settings"))
        self.dtype = rows.get("dtype", "auto")
        if self.dtype not in DTYPES:
            raise self._file.damaged(f"its dtype is {shown(self.dtype)}")
        self.settings, self.hparams = self._read_settings(rows.get("hparams", ""))
        if lacking := missing_settings(self.settings):
            self._complete(lacking)
        # what shares a target: a subject's facts, or each fact for itself
        self._per_fact = self.settings["hierarchy"]["integration"] == "independent"

    @property
    def path(self) -> Path:
        """Of the file."""
        return self._file.path

    def _read_settings(self, text: str) -> tuple[dict[str, Any], RoSEHyperParams]:
        """The settings as they are in a file, and checked as if a user had given them."""
        try:
            settings = json.loads(text)
            if not isinstance(settings, dict):
                raise ValueError("the settings are no object")
            return settings, RoSEHyperParams.from_dict(settings)
        # no JSON, no mapping, or no settings; nested too deep
        except (TypeError, ValueError, RecursionError) as error:
            raise self._file.damaged(error) from error

    def _complete(self, lacking: Sequence[str]) -> None:
        """Gives a memory that an earlier version began the settings which that did not have."""
        logger.warning(
            "the memory was begun by a version without the settings %s; from now on it has their "
            "defaults, and the targets of its facts are computed again",
            ", ".join(lacking),
        )
        self.settings = self.hparams.as_dict()
        with self._file.writing() as file:
            file.execute(
                "UPDATE settings SET value = ? WHERE name = 'hparams'", [json.dumps(self.settings)]
            )
            file.execute("DELETE FROM targets")

    def bind(self, base: str) -> str:
        """The fingerprint of the base model's weights: this one, unless there is one already."""
        query = "SELECT value FROM settings WHERE name = 'base'"
        with self._file.reading() as file:
            rows = list(self._texts(file, query))
        if not rows:
            with self._file.writing() as file:
                file.execute("INSERT OR IGNORE INTO settings VALUES ('base', ?)", [base])
                rows = list(self._texts(file, query))
        found: str = rows[0][0]
        return found

    def has_all(self, requests: Iterable[EditRequest], *, only_known: bool = False) -> bool:
        """Whether the facts are there already, with their targets.

        Args:
            requests: the facts.
            only_known: refuse a fact that is not there with some target.

        Raises:
            RoSEError: an unknown fact, with `only_known`.
        """
        requests = list(requests)
        with self._file.reading() as file:
            known = {r.place: r for r, _, _ in self._facts(file)}
        if only_known:
            _check_known(requests, known)
        return {r.identity for r in requests} <= {r.identity for r in known.values()}

    def put(self, requests: Iterable[EditRequest], *, only_known: bool = False) -> list[Change]:
        """Adds facts; one of a known subject and prompt takes the place of what was there.

        Args:
            requests: the facts.
            only_known: refuse a fact that is not there with some target.

        Returns:
            What has changed by it; it is on the disk.

        Raises:
            RoSEError: an unknown fact, with `only_known`; nothing is changed.
        """
        requests = list(requests)
        changes = []
        with self._file.writing() as file:
            known = {r.place: r for r, _, _ in self._facts(file)}
            if only_known:
                _check_known(requests, known)
            for new in requests:
                old = known.get(new.place)
                if old is None or old.target_new != new.target_new:
                    changes.append(_put(file, old, new))
                else:  # asked for once more, a fact that was refused is given another chance
                    file.execute(
                        "UPDATE facts SET fault = NULL WHERE subject = ? AND prompt = ?", new.place
                    )
            self._drop_stale(file, {request.subject for request in requests})
        return changes

    def remove(self, subject: str, prompt: str | None = None) -> list[Change]:
        """Forgets a subject, or one fact of it; its targets go, the history keeps what was.

        Raises:
            RoSEError: there is no such fact.
        """
        subject, prompt = as_subject(subject), None if prompt is None else as_prompt(prompt)
        with self._file.writing() as file:
            about = [r for r, _, _ in self._facts(file) if r.subject == subject]
            gone = [r for r in about if prompt in (None, r.prompt)]
            if not gone:
                wanted = "" if prompt is None else f" with the prompt {prompt!r}"
                has = "; of it there is " + ", ".join(repr(r.prompt) for r in about)
                raise RoSEError(
                    f"The memory has no fact about {subject!r}{wanted}{has if about else ''}."
                )
            for fact in gone:
                file.execute("DELETE FROM facts WHERE subject = ? AND prompt = ?", fact.place)
            changes = [_note(file, "forget", r, r.target_new, None) for r in gone]
            self._drop_stale(file, {subject})
        return changes

    def refuse(self, fact: EditRequest, fault: str) -> None:
        """Notes why a fact cannot be written into the model; until it changes, it is left out."""
        with self._file.writing() as file:
            file.execute(
                "UPDATE facts SET fault = ? WHERE subject = ? AND prompt = ? AND target = ?",
                [fault, *fact.identity],
            )
            self._drop_stale(file, {fact.subject})

    def keep(self, found: Iterable[tuple[Sequence[EditRequest], StoredTarget]]) -> None:
        """Files the targets of groups, but of those only whose facts are still the same."""
        with self._file.writing() as file:
            current = set(map(group_digest, self._groups(file)))
            for group, target in found:
                if (digest := group_digest(group)) in current:
                    sha256 = target.digest(digest)
                    row = [digest, group[0].subject, target.value, target.rest(), sha256]
                    file.execute("INSERT OR REPLACE INTO targets VALUES (?, ?, ?, ?, ?)", row)

    def snapshot(self, width: int | None = None) -> Snapshot:
        """The facts that can be written, with the targets that are there and whole.

        Args:
            width: of the model's hidden states, if it is known: what is of another is no target.
        """
        with self._file.reading() as file:
            return self._snapshot(file, width)

    def entries(self) -> list[Entry]:
        """All facts, in the order in which they came."""
        with self._file.reading() as file:
            facts, snapshot = self._facts(file), self._snapshot(file, None)
        ready = {fact for number in snapshot.targets for fact in snapshot.groups[number]}

        def state(fact: EditRequest, fault: str | None) -> str:
            if fault is not None:
                return "refused"
            return "ready" if fact in ready else "waiting"

        return [Entry(fact, since, state(fact, fault), fault) for fact, since, fault in facts]

    def history(self) -> list[Change]:
        """All that has happened, the earliest first."""
        query = "SELECT time, action, subject, prompt, old, new FROM history ORDER BY number"
        with self._file.reading() as file:
            return [Change(*row) for row in self._texts(file, query, may_lack=(4, 5))]

    def _snapshot(self, file: sqlite3.Connection, width: int | None) -> Snapshot:
        groups, targets = self._groups(file), _targets(file)
        found = {}
        for number, group in enumerate(groups):
            target = targets.get(group_digest(group))
            if target is not None and target.is_of(len(group), width):
                found[number] = target
            elif target is not None:
                logger.warning("a target of the memory is damaged; it is computed again")
        return Snapshot(groups, found)

    def _facts(self, file: sqlite3.Connection) -> list[tuple[EditRequest, str, str | None]]:
        """Each fact with its time and its fault.

        Raises:
            RoSEError: one is no fact.
        """
        query = (
            "SELECT prompt, subject, target, ground_truth, since, fault FROM facts ORDER BY number"
        )
        facts = []
        for *fact, since, fault in self._texts(file, query, may_lack=(3, 5)):
            try:
                request = EditRequest.from_mapping(dict(zip(_OF_FACT, fact, strict=True)))
            except RoSEError as error:
                raise self._file.damaged(error) from error
            facts.append((request, since, fault))
        return facts

    def _texts(
        self, file: sqlite3.Connection, query: str, may_lack: Sequence[int] = ()
    ) -> Iterator[tuple[Any, ...]]:
        """The rows of a query, which are of texts; in the columns `may_lack`, or of nothing.

        Raises:
            RoSEError: one is of something else.
        """
        for row in file.execute(query):
            for place, value in enumerate(row):
                if not (isinstance(value, str) or (value is None and place in may_lack)):
                    raise self._file.damaged(f"a text in it is {shown(value)}")
            yield row

    def _groups(self, file: sqlite3.Connection) -> list[list[EditRequest]]:
        facts = [fact for fact, _, fault in self._facts(file) if fault is None]
        if self._per_fact:
            return [[fact] for fact in facts]
        return [[facts[i] for i in indices] for indices in group_by_subject(facts).values()]

    def _drop_stale(self, file: sqlite3.Connection, subjects: Iterable[str]) -> None:
        """Deletes the targets of facts that are no more."""
        current = set(map(group_digest, self._groups(file)))
        for subject in subjects:
            filed = file.execute("SELECT digest FROM targets WHERE subject = ?", [subject])
            for (digest,) in filed.fetchall():
                if digest not in current:
                    file.execute("DELETE FROM targets WHERE digest = ?", [digest])


def _check_known(requests: Iterable[EditRequest], known: Container[tuple[str, str]]) -> None:
    """Refuses facts whose place is not among those that are there."""
    if unknown := [r for r in requests if r.place not in known]:
        raise RoSEError.of(
            "The memory has no such fact to update; add it:",
            [f"{r.subject!r}: {r.prompt!r}" for r in unknown],
        )


def _put(file: sqlite3.Connection, old: EditRequest | None, new: EditRequest) -> Change:
    before = None if old is None else old.target_new
    change = _note(file, "add" if old is None else "update", new, before, new.target_new)
    file.execute(
        "INSERT INTO facts (subject, prompt, target, ground_truth, since) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT (subject, prompt) DO UPDATE SET target = excluded.target, "
        "ground_truth = excluded.ground_truth, since = excluded.since, fault = NULL",
        [*new.identity, new.ground_truth, change.time],
    )
    return change


def _note(
    file: sqlite3.Connection, action: str, fact: EditRequest, old: str | None, new: str | None
) -> Change:
    time = datetime.now(UTC).isoformat(timespec="milliseconds")
    change = Change(time, action, fact.subject, fact.prompt, old, new)
    file.execute(
        "INSERT INTO history (time, action, subject, prompt, old, new) VALUES (?, ?, ?, ?, ?, ?)",
        [time, action, fact.subject, fact.prompt, old, new],
    )
    return change


def _targets(file: sqlite3.Connection) -> dict[str, StoredTarget]:
    """All targets that are whole."""
    found = {}
    for digest, value, rest, sha256 in file.execute(
        "SELECT digest, value, rest, sha256 FROM targets"
    ):
        try:
            target = StoredTarget(value, **json.loads(rest))
            whole = target.digest(digest) == sha256
        except (TypeError, ValueError, RecursionError):
            whole = False
        if whole:
            found[digest] = target
        else:
            logger.warning("a target of the memory is damaged; it is computed again")
    return found
