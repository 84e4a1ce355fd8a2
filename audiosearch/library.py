"""The public face: one library to ingest into and to search. It assembles the parts and decides nothing itself.

    with Library.open("sounds.library", create=True) as library:
        library.ingest(["~/Recordings"])
        for hit in library.query("dog barking in rain").hits:
            ...

Nothing is printed, and a part is imported, opened or loaded only when it is first needed. Any number of threads may
query one object, and any number of processes one library, while one of them ingests: each query answers by what was
committed when it began.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

from audiosearch.config import DEFAULT_MODEL, Settings, library_directory, load_settings
from audiosearch.errors import LibraryError, LibraryNotFound, SchemaError, SpaceMismatch, UsageError
from audiosearch.types import (
    Answer,
    BuiltIndex,
    Copied,
    FailedFile,
    FileInfo,
    IngestProgress,
    IngestSummary,
    ModelDescription,
    Space,
    SpaceStatus,
    Status,
    StepProgress,
    SyncSummary,
    Vectors,
    Verification,
)

if TYPE_CHECKING:
    from audiosearch.embed.base import AudioTextEmbedder
    from audiosearch.index_cache import LiveIndex
    from audiosearch.ingest.scan import Listed, Target
    from audiosearch.store.store import Store

StrPath = str | os.PathLike[str]
INDEX_KINDS = ("auto", "flat", "hnsw", "ivf", "ivf-sq8", "ivf-pq")


@dataclass(frozen=True, slots=True)
class Models:
    """Where models come from; tests put a hand-computed one here. `describe(name)` must not need torch;
    `load(name, device=..., dtype=...)` gives the embedder; `other_devices(device)` says where else an ingest may load
    it when `device` is what the user asked for."""

    describe: Callable[[str], ModelDescription]
    load: Callable[..., AudioTextEmbedder]
    other_devices: Callable[[str | None], Sequence[str]] = lambda device: ()


def _installed_models() -> Models:
    def describe(name: str) -> ModelDescription:
        from audiosearch.model.fingerprint import describe_model

        return describe_model(name)

    def load(name: str, *, device: str | None, dtype: str | None) -> AudioTextEmbedder:
        from audiosearch.embed import load_embedder

        return load_embedder(name, device=device, dtype=dtype)

    def other_devices(device: str | None) -> Sequence[str]:
        from audiosearch.embed.batching import other_devices

        return other_devices(device)

    return Models(describe, load, other_devices)


class Library:
    """One library, opened. Make it with `Library.open`; it is a context manager."""

    def __init__(self, settings: Settings, models: Models) -> None:
        self.settings = settings
        self._models = models
        self._opening = threading.RLock()  # held to open or load what is not there yet
        self._reader: Store | None = None
        self._indexes: dict[int, LiveIndex] = {}
        self._embedders: dict[tuple[str, str | None], AudioTextEmbedder] = {}  # by fingerprint and device
        self._descriptions: dict[str, ModelDescription] = {}

    @classmethod
    def open(
        cls,
        directory: StrPath | None = None,
        *,
        create: bool = False,
        model: str | None = None,
        device: str | None = None,
        models: Models | None = None,
        **settings: Any,
    ) -> Library:
        """The library in `directory`, else in $AUDIOSEARCH_LIBRARY, else in the user data directory.

        `model`, `device` and the other fields of `config.Settings` override its `config.toml` and the environment. With
        `create` a library that does not exist is made. Raises LibraryNotFound, SchemaError, UsageError.
        """
        library = cls(load_settings(directory, model=model, device=device, **settings), models or _installed_models())
        from audiosearch.store.store import Store

        try:
            library._reader = Store.open(library.directory)
        except LibraryNotFound:
            if not create:
                raise
            Store.create(library.directory).close()
        except SchemaError:
            if not create:  # who may create may ingest, and the writer upgrades an older schema or says why not
                raise
        return library

    @property
    def directory(self) -> str:
        """The absolute directory of the library."""
        return self.settings.library

    def ingest(
        self,
        paths: Iterable[StrPath],
        *,
        instruction: str | None = None,
        window_seconds: float | None = None,
        hop_seconds: float | None = None,
        workers: int | None = None,
        progress: Callable[[IngestProgress], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> IngestSummary:
        """Index every sound under `paths` that is new or changed; folders are walked, files taken as they are.

        What is not said is as in the library's default space, so that all of it stays searchable together. With an
        `instruction` the sound is embedded under it, into an aspect space of its own. `progress` is called often;
        `cancelled` is asked often, and once it says True what was done so far is committed and the summary says
        `interrupted`. Raises LibraryLocked if another process is writing, UsageError for a path that does not exist,
        ModelError. A file that cannot be read raises nothing: see `IngestSummary.failed`.
        """
        from audiosearch.store.store import Store

        chosen = [os.fspath(path) for path in paths]
        if not chosen:
            raise UsageError("nothing to ingest: name at least one file or folder")
        if instruction is not None and not instruction.strip():
            raise UsageError("the instruction is empty: leave it out to ingest without one")
        with Store.open(self.directory, write=True) as store:
            return self._ingest(
                store,
                [os.path.expanduser(path) for path in chosen],  # noqa: PTH111 - a Path would normalise the name
                instruction=instruction,
                window_seconds=window_seconds,
                hop_seconds=hop_seconds,
                workers=workers,
                progress=progress,
                cancelled=cancelled,
            )

    def watch(
        self,
        paths: Iterable[StrPath],
        *,
        on_round: Callable[[IngestSummary], None],
        on_note: Callable[[str], None] = lambda note: None,
        settle_seconds: float | None = None,
        poll_seconds: float | None = None,
        progress: Callable[[IngestProgress], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
        **options: Any,
    ) -> None:
        """Ingest `paths`, then whatever is new or changed below them, until `cancelled` says True or Ctrl-C.

        A file is taken once it has not changed for `settle_seconds`. Where the system does not tell of changes, folders
        are looked at every `poll_seconds`; `on_note` hears about that and whatever else one should know. Each round of
        ingest is told to `on_round`; the library is locked, and a model loaded, only while and once there is something
        to do. Files that are deleted stay in the library until `sync`. `options` are as of `ingest`, and so is what is
        raised; LibraryLocked only at the beginning, later rounds wait for their turn.
        """
        from audiosearch.errors import LibraryLocked
        from audiosearch.ingest import scan, watch
        from audiosearch.store.store import Store

        chosen = [os.path.expanduser(os.fspath(path)) for path in paths]  # noqa: PTH111 - as above
        scan.targets(chosen, [])  # a path that is not there is an error, though only at the beginning
        options |= {"progress": progress, "cancelled": cancelled}
        interrupted = locked = False

        def finished(summary: IngestSummary) -> None:
            nonlocal interrupted, locked
            interrupted, locked = summary.interrupted, False
            on_round(summary)

        def take(files: list[str]) -> bool:
            nonlocal locked
            try:
                with Store.open(self.directory, write=True) as store:
                    roots = [path for _, path in store.roots()]
                    summary = self._ingest(store, scan.listed(files, roots), **options)
            except LibraryLocked as error:
                if not locked:
                    on_note(f"waiting: {error}")
                locked = True
                return False
            finished(summary)
            return True

        with watch.Watcher(
            chosen,
            exclude=[self.directory],
            settle_seconds=watch.SETTLE_SECONDS if settle_seconds is None else settle_seconds,
            poll_seconds=watch.POLL_SECONDS if poll_seconds is None else poll_seconds,
            say=on_note,
        ) as watcher:
            finished(self.ingest(chosen, **options))
            watch.watch(
                watcher,
                take,
                failures=self.failures,
                stopped=lambda: interrupted or (cancelled is not None and cancelled()),
            )

    def retry(
        self,
        paths: Iterable[StrPath] = (),
        *,
        cause: str | None = None,
        workers: int | None = None,
        progress: Callable[[IngestProgress], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> IngestSummary:
        """Read failed files again, whatever their cause and however often they failed: those at or below `paths`, or
        all, and those of one `cause` (`MediaError.CAUSES`), or of any.

        They go into the default space. Else as `ingest`; raises UsageError for a cause that there is not.
        """
        from audiosearch.ingest.ledger import failed_files
        from audiosearch.store.store import Store

        chosen = [os.path.expanduser(os.fspath(path)) for path in paths]  # noqa: PTH111 - as above
        with Store.open(self.directory, write=True) as store:
            files, notes = failed_files(store, chosen, cause)
            summary = self._ingest(store, files, retry=True, workers=workers, progress=progress, cancelled=cancelled)
        return replace(summary, warnings=(*notes, *summary.warnings))

    def sync(
        self,
        paths: Iterable[StrPath] = (),
        *,
        relocate: Mapping[str, str] | None = None,
        dry_run: bool = False,
        prune_all: bool = False,
        workers: int | None = None,
        progress: Callable[[IngestProgress], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> SyncSummary:
        """Bring the library in step with the folders that were ingested, or with what lies at or below `paths` in them.

        New and changed files go into the default space, as `ingest` does it; files that moved keep their vectors; files
        that are gone are removed, except of roots where that looks like a disk that is not mounted
        (`SyncSummary.held_back`), unless with `prune_all`. `relocate`: whole roots that are elsewhere now, old path ->
        new path. With `dry_run` nothing is written. Raises LibraryEmpty, UsageError, and what `ingest` raises.
        """
        from audiosearch.ingest import sync
        from audiosearch.model.fingerprint import space_spec
        from audiosearch.store.store import Store

        chosen = [os.path.expanduser(os.fspath(path)) for path in paths]  # noqa: PTH111 - as above
        with Store.open(self.directory, write=not dry_run) as store:
            if dry_run:
                description, window, hop = self._like_default(store)
                space = store.space(
                    space_spec(description, instruction=None, window_seconds=window, hop_seconds=hop).fingerprint
                )
                return sync.preview(
                    store,
                    space.id if space else 0,
                    chosen,
                    relocate=relocate,
                    prune_all=prune_all,
                    progress=progress,
                    cancelled=cancelled,
                )
            ingest = partial(self._ingest, store, workers=workers, progress=progress, cancelled=cancelled)
            summary = sync.sync(store, ingest, chosen, relocate=relocate, prune_all=prune_all)
            if summary.files_removed:
                assert summary.ingest is not None
                summary = replace(summary, ingest=self._save_indexes(store, summary.ingest))
        return summary

    def query(
        self,
        text: str | None = None,
        *,
        audio: StrPath | None = None,
        start_seconds: float | None = None,
        end_seconds: float | None = None,
        instruction: str | None = None,
        k: int = 10,
    ) -> Answer:
        """The `k` moments that fit best: `text`, an example sound (`audio`, or its span), or both as one joint input.

        What was committed up to now is searched, by any process. Raises LibraryEmpty, SpaceMismatch, ModelError,
        MediaError (of the example) and UsageError.
        """
        from audiosearch.audio import read_span
        from audiosearch.query import engine

        query = engine.Query(
            text=text,
            audio=None if audio is None else os.fspath(audio),
            start_seconds=start_seconds,
            end_seconds=end_seconds,
            instruction=instruction,
            k=k,
        )
        sources = engine.Sources(
            store=self._store(),
            index=self._index,
            embedder=self._embedder_of,
            describe=self._describe,
            read_span=read_span,
            model=self.settings.model,
            rerank=self.settings.rerank,
            rerank_seconds=self.settings.rerank_seconds,
        )
        known = sources.store.spaces()
        try:
            return engine.answer(query, sources)
        except LibraryError:
            if sources.store.spaces() == known:
                raise
        return engine.answer(query, sources)  # a space was dropped meanwhile; the others can answer

    def spaces(self) -> tuple[SpaceStatus, ...]:
        """The spaces, oldest first. One is full when its `recordings` are as many as `status().recordings`."""
        return self.status().spaces

    def find_space(self, name: str) -> SpaceStatus:
        """The one space that `name` means: the beginning of its fingerprint, or its model or instruction where no other
        space has the same. Raises UsageError if there is none, or more than one."""
        store = self._store()
        with store.snapshot():
            found = store.find_space(name)
            return next(
                each for space, each in zip(store.spaces(), store.status().spaces, strict=True) if space.id == found.id
            )

    def set_default_space(self, name: str) -> None:
        """Search the space `name` (as in `find_space`) from now on, and ingest as it was made. Raises UsageError (also
        for an aspect) and LibraryLocked."""
        from audiosearch.store.store import Store

        with Store.open(self.directory, write=True) as store:
            store.set_default(store.find_space(name))

    def drop_space(self, name: str) -> None:
        """Forget a space: its vectors are out of every answer from now on; the disk is freed when the library is next
        opened to write. Raises UsageError (also for the default one while others could be it) and LibraryLocked."""
        from audiosearch.store.store import Store

        with Store.open(self.directory, write=True) as store:
            store.drop_space(store.find_space(name))

    def resume_space(
        self,
        name: str,
        *,
        workers: int | None = None,
        progress: Callable[[IngestProgress], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> IngestSummary:
        """Embed what the library knows and the space `name` lacks, with the space's own model, window, hop and
        instruction. Else as `ingest`. Raises UsageError, SpaceMismatch if that model is no longer the same, and what
        `ingest` raises."""
        from audiosearch.ingest.resume import resume
        from audiosearch.store.store import Store

        with Store.open(self.directory, write=True) as store:
            space = store.find_space(name)
            description = self._describe(self.settings.model or space.spec.model_name)
            summary = resume(
                store,
                space,
                description,
                lambda: self._embedder(description.name, description.fingerprint),
                workers=workers or self.settings.workers,
                other_embedders=lambda: self._further_loads(description),
                limits=self.settings.limits,
                progress=progress,
                cancelled=cancelled,
            )
            summary = self._save_indexes(store, summary)
        if store.journal_note:
            summary = replace(summary, warnings=(store.journal_note, *summary.warnings))
        return summary

    def reindex(
        self,
        kind: str = "auto",
        *,
        space: str | None = None,
        queries: Mapping[str, Vectors] | None = None,
        progress: Callable[[StepProgress], None] | None = None,
    ) -> tuple[BuiltIndex, ...]:
        """Build the index of `space` (as in `find_space`), or of each, anew from the stored vectors; the model is not
        called.

        `kind` is one of `INDEX_KINDS`; `auto` goes by the number of vectors and by recall@10 measured on them, with
        every kind of query; beside made-up ones with your `queries`: unit rows by name, for instance `text` and
        `audio`, which need a `space` if there are several. Running readers go over to the new index with their next
        query. Raises UsageError and LibraryLocked.
        """
        from audiosearch.index_build import rebuild
        from audiosearch.store.store import Store

        if kind not in INDEX_KINDS:
            raise UsageError(f"no kind of index is called {kind}: choose from {', '.join(INDEX_KINDS)}")
        with Store.open(self.directory, write=True) as store:
            chosen = store.spaces() if space is None else [store.find_space(space)]
            for each in chosen:
                for name, rows in (queries or {}).items():
                    if rows.ndim != 2 or rows.shape[1] != each.spec.dim:
                        raise UsageError(f"the queries {name!r} are not rows of the {each.spec.dim} dimensions stored")
            return tuple(rebuild(store, each, kind, queries=queries, progress=progress) for each in chosen)

    def status(self) -> Status:
        """What the library holds, space by space."""
        return self._store().status()

    def info(self, path: StrPath) -> FileInfo:
        """All that the library knows of one file, what it says of itself included.

        Raises UsageError for a file that is not in the library.
        """
        absolute = os.path.abspath(os.path.expanduser(os.fspath(path)))  # noqa: PTH100, PTH111 - links stay as given
        found = self._store().file_info(absolute)
        if found is None:
            raise UsageError(f"{os.fspath(path)} is not in this library: run `audiosearch ingest` on it first")
        return found

    def failures(self, *, cause: str | None = None) -> tuple[FailedFile, ...]:
        """The files that could not be read, by path; with `cause` only those that failed like this."""
        return tuple(each for each in self._store().failures() if cause in (None, each.cause))

    def label(self, hit: str | Hit, verdict: bool, tag: str | None = None) -> Label:
        """Say that a hit, or the one whose id begins like this, is (`verdict`) or is not `tag`; without a tag, what its
        query asked for. It replaces what was said of that span about the same thing, and may be done beside an ingest.

        Raises UsageError for a hit that was not shown lately.
        """
        from audiosearch.query import labelling

        return labelling.add(self._store(), hit if isinstance(hit, str) else hit.id, verdict, tag)

    def unlabel(self, hit: str | Hit, tag: str | None = None) -> tuple[Label, ...]:
        """Take back what was said of a hit: about `tag`, or all of it; returns that. Raises UsageError if there is
        nothing."""
        from audiosearch.query import labelling

        return tuple(labelling.remove(self._store(), hit if isinstance(hit, str) else hit.id, tag))

    def labels(self, tag: str | None = None) -> tuple[Label, ...]:
        """What was said of hits, oldest first; with `tag` only what is about it."""
        return tuple(self._store().labels(tag=tag))

    def verify(self, *, repair: bool = False, progress: Callable[[StepProgress], None] | None = None) -> Verification:
        """Hold the catalogue, the vectors and the index files against each other; reads all of them.

        With `repair` what can be repaired is: vectors that are lost are forgotten, so that the next ingest embeds just
        their sound, and bad index files removed. Raises LibraryLocked for a repair beside an ingest, LibraryError.
        """
        from audiosearch import index_cache
        from audiosearch.store import verify
        from audiosearch.store.store import Store

        with Store.open(self.directory, write=repair, repair=repair) as store:
            found = verify.check(store, progress)
            repaired = verify.repair(store, found) if repair else []
            indexes = index_cache.IndexFindings() if found.is_beyond_repair else index_cache.check(store, progress)
            if repair:
                index_cache.remove(indexes)
                repaired += [problem for _, problem in indexes.bad]
        open_ = [*found.problems(), *(problem for _, problem in indexes.bad)]
        return Verification(
            problems=tuple(each for each in open_ if each not in repaired),
            repaired=tuple(repaired),
            notes=() if repair else (*found.notes, *(note for _, note in indexes.useless)),
            commit_groups=found.groups,
            vectors=found.vectors,
            indexes=indexes.checked,
            bytes_read=found.bytes_read,
        )

    def backup(self, directory: StrPath, *, progress: Callable[[StepProgress], None] | None = None) -> Copied:
        """Copy what is committed now into `directory`, new or empty or with an earlier backup, which is brought up to
        date. Safe beside an ingest. Raises UsageError, LibraryError."""
        from pathlib import Path

        from audiosearch.store.backup import backup

        return backup(Path(self.directory), Path(os.path.expanduser(os.fspath(directory))), progress)  # noqa: PTH111

    @staticmethod
    def restore(
        source: StrPath,
        directory: StrPath | None = None,
        *,
        force: bool = False,
        progress: Callable[[StepProgress], None] | None = None,
    ) -> Copied:
        """Make a library from the backup `source`, in `directory` or where `open` would look for it, and verify it.

        With `force` a library that is there is moved aside first. Raises UsageError, LibraryError.
        """
        from pathlib import Path

        from audiosearch.store.backup import restore

        target = Path(library_directory(directory))
        return restore(Path(os.path.expanduser(os.fspath(source))), target, force=force, progress=progress)  # noqa: PTH111

    def close(self) -> None:
        """Let go of files and models. A closed library may not be used again."""
        if self._reader is not None:
            self._reader.close()
        self._reader = None
        self._indexes.clear()
        self._embedders.clear()

    def __enter__(self) -> Library:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ingest(
        self,
        store: Store,
        paths: Collection[str | Target | Listed],
        *,
        window_seconds: float | None = None,
        hop_seconds: float | None = None,
        workers: int | None = None,
        **options: Any,
    ) -> IngestSummary:
        """Run an ingest with what is not said as in the default space, and bring the indexes up to date."""
        from audiosearch.ingest.pipeline import ingest

        description, window, hop = self._like_default(store, window_seconds, hop_seconds)
        settings = self.settings
        summary = ingest(
            store,
            description,
            lambda: self._embedder(description.name, description.fingerprint),
            paths,
            window_seconds=window,
            hop_seconds=hop,
            workers=workers or settings.workers,
            other_embedders=lambda: self._further_loads(description),
            limits=settings.limits,
            **options,
        )
        if store.journal_note:
            summary = replace(summary, warnings=(store.journal_note, *summary.warnings))
        return self._save_indexes(store, summary)

    def _like_default(
        self, store: Store, window_seconds: float | None = None, hop_seconds: float | None = None
    ) -> tuple[ModelDescription, float, float]:
        """(model, window, hop) of an ingest: as given, else as set, else as in the default space."""
        from audiosearch.chunk import HOP_SECONDS, WINDOW_SECONDS

        default, settings = store.default_space(), self.settings
        like = default.spec if default else None
        return (
            self._describe(settings.model or (like.model_name if like else DEFAULT_MODEL)),
            window_seconds or settings.window_seconds or (like.window_seconds if like else WINDOW_SECONDS),
            hop_seconds or settings.hop_seconds or (like.hop_seconds if like else HOP_SECONDS),
        )

    def _store(self) -> Store:
        with self._opening:
            if self._reader is None:
                from audiosearch.store.store import Store

                self._reader = Store.open(self.directory)
            return self._reader

    def _index(self, space: Space) -> LiveIndex:
        with self._opening:
            if space.id not in self._indexes:
                from audiosearch.index_cache import open_index

                alive = {each.id for each in self._store().spaces()}
                self._indexes = {id_: index for id_, index in self._indexes.items() if id_ in alive}
                self._indexes[space.id] = open_index(self._store(), space, self.settings.index_device)
            return self._indexes[space.id]

    def _save_indexes(self, store: Store, summary: IngestSummary) -> IngestSummary:
        """The summary, with a warning for an index that could not be saved: everything is in the store."""
        # Who pressed Ctrl-C should not wait: the index is a cache, and a reader catches up on what was not saved.
        from audiosearch import index_cache
        from audiosearch.store.faults import disk_faults

        warnings = list(summary.warnings)
        for space in [] if summary.interrupted else store.spaces():
            try:
                with disk_faults(self.directory):
                    index_cache.save_generation(store, space)
            except LibraryError as error:
                warnings.append(f"an index was not saved, so queries begin more slowly: {error}")
        return replace(summary, warnings=tuple(warnings))

    def _describe(self, name: str) -> ModelDescription:
        # Once per model: the weights are hashed for it. A model that is replaced meanwhile counts for the next Library.
        with self._opening:
            if name not in self._descriptions:
                self._descriptions[name] = self._models.describe(name)
            return self._descriptions[name]

    def _further_loads(self, description: ModelDescription) -> list[Callable[[], AudioTextEmbedder]]:
        """How to load the model on each further device that an ingest may use."""
        devices = self._models.other_devices(self.settings.device)
        return [partial(self._embedder, description.name, description.fingerprint, device) for device in devices]

    def _embedder(self, name: str, fingerprint: str, device: str | None = None) -> AudioTextEmbedder:
        """The model `name`, loaded once a device, checked to be the one that `fingerprint` names, for any thread."""
        with self._opening:
            key = fingerprint, device
            if key not in self._embedders:
                from audiosearch.embed.shared import one_at_a_time

                embedder = self._models.load(name, device=device or self.settings.device, dtype=self.settings.dtype)
                if embedder.fingerprint != fingerprint:
                    raise SpaceMismatch(
                        f"the model {name} is not the one whose vectors are stored (it has changed since): "
                        "run `audiosearch ingest` on the same folders again"
                    )
                self._embedders[key] = one_at_a_time(embedder)
            return self._embedders[key]

    def _embedder_of(self, space: Space) -> AudioTextEmbedder:
        # By the name asked for: the same weights may have another name on this machine than where they were ingested.
        return self._embedder(self.settings.model or space.spec.model_name, space.spec.model_fingerprint)
