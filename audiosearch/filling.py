"""The half of a library that writes: everything here takes the writer lock while it works.

Paths become absolute names, what is not said is as in the library's default space, and the indexes are brought up to
date at the end; the work itself is `ingest`'s and `store`'s.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audiosearch.config import DEFAULT_MODEL, Settings
from audiosearch.errors import LibraryError, UsageError
from audiosearch.models import OpenModels
from audiosearch.types import (
    BuiltIndex,
    IngestProgress,
    IngestSummary,
    ModelDescription,
    Space,
    StepProgress,
    SyncSummary,
    Vectors,
)

if TYPE_CHECKING:
    from audiosearch.ingest.scan import Listed, Target
    from audiosearch.store.store import Store

StrPath = str | os.PathLike[str]
INDEX_KINDS = ("auto", "flat", "hnsw", "ivf", "ivf-sq8", "ivf-pq")


class Filling:
    """What `Library` does to fill, follow and re-arrange a library."""

    def __init__(self, settings: Settings, models: OpenModels) -> None:
        self.settings = settings
        self._models = models
        self._opening = threading.RLock()  # held to open what is not there yet
        self._reader: Store | None = None

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
                failures=lambda: tuple(self._store().failures()),
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
            description = self._models.describe(self.settings.model or space.spec.model_name)
            summary = resume(
                store,
                space,
                description,
                lambda: self._models.embedder(description.name, description.fingerprint),
                workers=workers or self.settings.workers,
                other_embedders=lambda: self._models.further_loads(description),
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
            lambda: self._models.embedder(description.name, description.fingerprint),
            paths,
            window_seconds=window,
            hop_seconds=hop,
            workers=workers or settings.workers,
            other_embedders=lambda: self._models.further_loads(description),
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
            self._models.describe(settings.model or (like.model_name if like else DEFAULT_MODEL)),
            window_seconds or settings.window_seconds or (like.window_seconds if like else WINDOW_SECONDS),
            hop_seconds or settings.hop_seconds or (like.hop_seconds if like else HOP_SECONDS),
        )

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
        if not summary.interrupted and summary.device is not None:  # the model is at hand
            self._save_background(store, summary.space)
        return replace(summary, warnings=tuple(warnings))

    def _store(self) -> Store:
        """The store as a reader sees it."""
        with self._opening:
            if self._reader is None:
                from audiosearch.store.store import Store

                self._reader = Store.open(self.directory)
            return self._reader

    def _save_background(self, store: Store, fingerprint: str) -> None:
        """Measure what impostors find in the space that was filled, if what is known of that is stale. A cache: where
        it cannot be written, nothing happens."""
        from audiosearch.index_cache import open_index
        from audiosearch.query import confidence

        space = store.space(fingerprint)
        if space is None:
            return
        folder = background_folder(self.directory, space)
        known = confidence.load(folder, fingerprint)
        held = {each.id: state.vectors for each, state in zip(store.spaces(), store.status().spaces, strict=True)}
        if known is None or known.is_stale(held[space.id]):
            with store.snapshot():
                index = open_index(store, space)
                index.refresh()
                if len(index):
                    embedder = self._models.embedder_of(space)
                    confidence.of_space(store, index, folder, embedder.embed_text, save=True)


def background_folder(directory: str, space: Space) -> Path:
    """Where a space's background of scores is: beside its indexes."""
    return Path(directory, "indexes", space.spec.fingerprint)
