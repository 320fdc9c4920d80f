"""FactMemory: facts that an agent adds, changes and forgets, and a model that answers from them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, overload

from rose_easyedit.config.compare import differences
from rose_easyedit.errors import RoSEError
from rose_easyedit.files.writing import is_same_file
from rose_easyedit.memory.entries import Change, Entry, Snapshot
from rose_easyedit.memory.file import MemoryFile
from rose_easyedit.memory.finding import Finder, Group, cached, stored
from rose_easyedit.memory.settings import check_same, fitting_model, settings_to_open
from rose_easyedit.memory.store import FactStore
from rose_easyedit.models.lock import model_lock
from rose_easyedit.requests import EditRequest, as_requests, as_subject
from rose_easyedit.restoring import restoring

if TYPE_CHECKING:
    from rose_easyedit.config.hparams import RoSEHyperParams
    from rose_easyedit.edits.delta import EditDelta


Facts = EditRequest | Mapping[str, Any] | Iterable[EditRequest | Mapping[str, Any]]

# Groups optimised between two writes: what a kill can cost, in computing time only.
_AT_ONCE = 64


class FactMemory:
    """Facts in a file, and the model that is edited to know them.

    A fact is on the disk before `add` computes anything. What a subject's facts are optimised to,
    their target, is kept beside them, so a fact costs its own subject and no other; all of them
    are solved together against the unedited weights when the model is next asked. Several
    processes may use one file at the same time, and several threads one object, or several that
    share a model: one waits while another computes or asks.
    """

    def __init__(self, store: FactStore, model: Any, tokenizer: Any, loading: tuple[Any, Any]):
        """Use `open`."""
        self._store = store
        self._model, self._tokenizer, self._loading = model, tokenizer, loading
        self._solved: tuple[list[Group], EditDelta] | None = None
        self._loads = RLock()
        # what `edited` has put into the model, until it is seen to be off; and whether it is open
        self._written: EditDelta | None = None
        self._inside = False

    @classmethod
    def open(
        cls,
        path: str | Path,
        model: Any = None,
        tokenizer: Any = None,
        hparams: RoSEHyperParams | str | Path | None = None,
        *,
        device: Any = None,
        dtype: Any = "auto",
        load_now: bool = False,
    ) -> FactMemory:
        """Opens a memory, or begins one; a model that is named is loaded when it is needed.

        Args:
            path: of the file.
            model: a name as `load_model` takes it, or a model; None takes what the memory was
                begun with, or "embedded".
            tokenizer: of a model that is given as an object.
            hparams: the settings, or the name or path of a settings file; None takes those of the
                memory, or of the embedded model. Settings cannot change later.
            device: where a named model is loaded; None as the settings say.
            dtype: of a named model's weights, as `load_model` takes it; "auto" takes what the
                memory was begun with.
            load_now: load the named model of a new memory before its file is made, and refuse
                settings that do not fit the model, as for a model that is given as an object.

        Raises:
            RoSEError: the file is no memory, the settings differ from the memory's, or a new
                memory lacks its settings or could never be used with them.
        """
        from rose_easyedit.models.loading import dtype_name

        is_object = not (model is None or isinstance(model, str))
        if is_object and tokenizer is None:
            raise RoSEError("A model that is given as an object needs its tokenizer beside it.")
        named = model if isinstance(model, str) else getattr(model, "name_or_path", None)
        hparams = settings_to_open(Path(path), named, hparams)
        begun_with = "auto" if is_object else dtype_name(dtype)
        pair: tuple[Any, Any] = (model, tokenizer) if is_object else (None, None)
        if hparams is not None and not MemoryFile(Path(path)).is_begun:
            hparams, pair = fitting_model(hparams, pair, device, dtype, load=load_now)
        store = FactStore(path, None if hparams is None else hparams.as_dict(), begun_with)
        if hparams is not None:
            check_same(store.settings, hparams.as_dict())
        if is_object:
            return cls(store, *pair, (None, None))
        place = store.settings["device"] if device is None else device
        name = model or store.settings["model_name"]
        return cls(store, *pair, (name, (place, store.dtype if dtype == "auto" else dtype)))

    @property
    def hparams(self) -> RoSEHyperParams:
        """The settings of every edit of this memory."""
        return self._store.hparams

    def add(self, facts: Facts, *, compute: bool = True) -> Sequence[Change]:
        """Adds facts; a known subject and prompt gets the new target.

        Args:
            facts: one request or several, with EasyEdit's field names.
            compute: find the targets now. Otherwise that waits until the model is asked, and no
                model is needed.

        Returns:
            What has changed by it: nothing, for facts that were there already.

        Raises:
            RoSEError: faulty requests, or another model than the memory's, and nothing is kept;
                or facts that are kept, and that the model cannot be made to know (an attention
                sink, say).
        """
        return self._put(facts, compute)

    def update(self, facts: Facts, *, compute: bool = True) -> Sequence[Change]:
        """Changes the targets of facts that are there.

        Args:
            facts: one request or several: known subjects and prompts, with new targets.
            compute: as for `add`.

        Raises:
            RoSEError: as `add`, or a fact is not there; then nothing is changed.
        """
        return self._put(facts, compute, only_known=True)

    def forget(self, subject: str, prompt: str | None = None) -> Sequence[Change]:
        """Forgets all facts about a subject, or the one with this prompt.

        The history keeps what was forgotten.

        Raises:
            RoSEError: there is no such fact.
        """
        return self._store.remove(subject, prompt)

    def list(self, subject: str | None = None) -> Sequence[Entry]:
        """The facts, in the order in which they came; with `subject`, those about it."""
        entries = self._store.entries()
        return [e for e in entries if subject is None or e.request.subject == as_subject(subject)]

    def history(self, subject: str | None = None) -> Sequence[Change]:
        """All that has happened, the earliest first; with `subject`, to its facts."""
        changes = self._store.history()
        return [c for c in changes if subject is None or c.subject == as_subject(subject)]

    @overload
    def ask(self, prompts: str, *, chat: bool | None = ..., max_new_tokens: int = ...) -> str: ...
    @overload
    def ask(
        self, prompts: Sequence[str], *, chat: bool | None = ..., max_new_tokens: int = ...
    ) -> Sequence[str]: ...
    def ask(
        self,
        prompts: str | Sequence[str],
        *,
        chat: bool | None = None,
        max_new_tokens: int = 64,
    ) -> str | Sequence[str]:
        """What the model answers that knows the facts, greedily.

        Args:
            prompts: one question or several.
            chat: as a turn of a chat, or as a text to go on with; None takes the chat where the
                tokenizer has a template.
            max_new_tokens: the longest answer.
        """
        from rose_easyedit.forward.generation import generate_greedy

        texts = [prompts] if isinstance(prompts, str) else prompts
        with self.edited() as model:
            in_chat = self._tokenizer.chat_template is not None if chat is None else chat
            answers = generate_greedy(
                model,
                self._tokenizer,
                texts,
                chat=in_chat,
                max_new_tokens=max_new_tokens,
                template_arguments=self.hparams.template_arguments,
            )
        answers = [answer.strip() for answer in answers]
        return answers[0] if isinstance(prompts, str) else answers

    @restoring
    def edited(self) -> Iterator[Any]:
        """The model that knows the facts, inside the block; the base model again after it.

        Raises:
            RoSEError: such a block is open, or the model is not the one that the memory is of.
        """
        model, _ = self.base()
        with model_lock(model):
            self._take_off(model)
            delta = self.delta()
            try:
                self._inside, self._written = True, delta
                with nullcontext() if delta is None else delta.applied(model):
                    yield model
            finally:
                self._inside = False

    def _take_off(self, model: Any) -> None:
        """Takes off what an earlier block could not, whatever has kept it from that.

        Raises:
            RoSEError: the block is open still.
        """
        if self._inside:
            raise RoSEError("The model is edited now; leave the block of `edited` first.")
        if self._written is not None and self._written.is_applied(model):
            self._written.revert(model)
        self._written = None

    def delta(self) -> EditDelta | None:
        """The edit that writes all facts as they are now; None while there is none.

        Facts of other processes are in it as well. Targets that are missing are computed first,
        and the edit of the same facts that another process has solved is taken as it is.
        """
        if not self._computed().groups:
            return None
        with model_lock(self.base()[0]):
            snapshot = self._computed()  # once more, now that the width of targets is known
            groups = list(snapshot.groups)
            if self._solved is None or self._solved[0] != groups:
                self._solved = groups, self._solve(snapshot)
            return self._solved[1]

    def _solve(self, snapshot: Snapshot) -> EditDelta:
        """The edit of some facts and their targets: a kept one, or computed and kept."""
        from rose_easyedit.memory.solved import keep_solved, load_solved, solved_key

        model, tokenizer = self._checked_base()
        key = solved_key(model, tokenizer, self.hparams, snapshot)
        delta = load_solved(self._store.path, key, model)
        if delta is None:
            from rose_easyedit.method.edit import compute_edit
            from rose_easyedit.method.stage1.cached_targets import group_key

            groups = snapshot.groups
            targets = {group_key(groups[i]): cached(t) for i, t in snapshot.targets.items()}
            facts = [fact for group in groups for fact in group]
            delta = compute_edit(model, tokenizer, facts, self.hparams, cached=targets)
            keep_solved(self._store.path, key, delta)
        return delta

    def save(self, path: str | Path, *, replace: bool = True) -> Path:
        """Writes the edit as a file, which `EditDelta.load` and every command reads.

        Args:
            path: of the file.
            replace: a file of that name; otherwise it is refused.

        Raises:
            RoSEError: there is no fact, or such a file; or it is the memory's own.
        """
        if is_same_file(Path(path), self._store.path):
            raise RoSEError(f"{str(path)!r} is the memory itself; name another file for the edit.")
        delta = self.delta()
        if delta is None:
            raise RoSEError("The memory has no fact to write into a model; add one first.")
        return delta.save(path, replace=replace)

    def load(self, path: str | Path) -> Sequence[Change]:
        """Adds the facts of an edit file, with their targets where the settings are the same.

        Raises:
            RoSEError: it is no edit, or one of another base model; nothing is changed.
        """
        from rose_easyedit.edits.delta import EditDelta
        from rose_easyedit.method.extend import cached_targets, facts_of
        from rose_easyedit.method.stage1.cached_targets import group_key

        delta = EditDelta.load(path)
        targets = cached_targets(delta)
        model, _ = self._checked_base()
        if delta.base != self._store.bind(delta.base):
            raise RoSEError(f"{str(path)!r} is an edit of another model than this memory's.")
        facts_of(model, delta)
        changes = self._store.put(as_requests(delta.provenance.requests))
        if not differences(self._store.settings, delta.provenance.hparams):
            missing = {group_key(group): group for group in self._store.snapshot().missing}
            common = missing.keys() & targets.keys()
            self._store.keep((missing[key], stored(targets[key])) for key in common)
        return changes

    def base(self) -> tuple[Any, Any]:
        """The unedited model and its tokenizer; loaded the first time."""
        with self._loads:
            if self._model is None:
                from rose_easyedit.models.loading import load_model

                name, (device, dtype) = self._loading
                self._model, self._tokenizer = load_model(name, device, dtype)
            return self._model, self._tokenizer

    def _put(self, facts: Facts, compute: bool, *, only_known: bool = False) -> Sequence[Change]:
        requests = as_requests(_several(facts))
        if compute and not self._store.has_all(requests, only_known=only_known):
            self._checked_base()  # what could never be computed with this model is not kept
        changes = self._store.put(requests, only_known=only_known)
        if compute:
            self._computed()
            places = {request.place for request in requests}
            faults = [
                f"{entry.request.label}: {entry.fault}"
                for entry in self._store.entries()
                if entry.fault and entry.request.place in places
            ]
            if faults:
                raise RoSEError.of(
                    "These facts are kept, but the model cannot be made to know them; update or "
                    "forget them:",
                    faults,
                )
        return changes

    def _computed(self) -> Snapshot:
        """The facts, once every one that can be written has its target."""
        while (snapshot := self._store.snapshot(self._width)).missing:
            with model_lock(self.base()[0]):
                # another thread may have found some of them while this one waited
                if missing := self._store.snapshot(self._width).missing:
                    model, tokenizer = self._checked_base()
                    finder = Finder(self._store, model, tokenizer, self.hparams)
                    finder.find(missing[:_AT_ONCE])
        return snapshot

    @property
    def _width(self) -> int | None:
        """Of the model's hidden states, once it is loaded."""
        return None if self._model is None else self._model.config.get_text_config().hidden_size

    def _checked_base(self) -> tuple[Any, Any]:
        """The model, once it is certain that it is the one whose targets are kept, and unedited."""
        from rose_easyedit.method.prepared import base_fingerprint

        model, tokenizer = self.base()
        self._take_off(model)
        if self._solved is not None and self._solved[1].is_applied(model):
            raise RoSEError("The model is edited now; revert the memory's edit first.")
        base = base_fingerprint(model, self.hparams)
        if self._store.bind(base) != base:
            raise RoSEError(
                "This model is not the one that the memory was begun with: it is another one, "
                "another precision, or edited. Load that one, or begin another memory."
            )
        return model, tokenizer


def _several(facts: Facts) -> Iterable[EditRequest | Mapping[str, Any]]:
    return [facts] if isinstance(facts, (EditRequest, Mapping)) else facts
