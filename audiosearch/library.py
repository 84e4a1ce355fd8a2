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
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from audiosearch.config import Settings, library_directory, load_settings
from audiosearch.errors import LibraryError, LibraryNotFound, SchemaError, UsageError
from audiosearch.filling import INDEX_KINDS as INDEX_KINDS
from audiosearch.filling import Filling, StrPath, background_folder
from audiosearch.models import Models as Models
from audiosearch.models import OpenModels
from audiosearch.models import installed_models as _installed_models
from audiosearch.types import (
    Answer,
    Copied,
    FailedFile,
    FileInfo,
    Hit,
    Label,
    Moment,
    Space,
    SpaceStatus,
    Status,
    StepProgress,
    Verification,
)

if TYPE_CHECKING:
    from audiosearch.embed.base import AudioTextEmbedder
    from audiosearch.index_cache import LiveIndex
    from audiosearch.query import engine
    from audiosearch.query.allowed import Allowed
    from audiosearch.query.confidence import Background, Kind
    from audiosearch.query.grammar import Expression, HitRef
    from audiosearch.query.remembered import Shown
    from audiosearch.query.request import Query
    from audiosearch.query.terms import Referred


_ALL = 1_000_000  # moments: more than a file has


class Library(Filling):
    """One library, opened. Make it with `Library.open`; it is a context manager."""

    def __init__(self, settings: Settings, models: Models) -> None:
        super().__init__(settings, OpenModels(models, settings))
        self._indexes: dict[int, LiveIndex] = {}
        self._filters: Allowed | None = None
        self._backgrounds: dict[int, tuple[object, Background]] = {}  # of spaces, with the file's mark

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

    def query(
        self,
        text: str | Query | Expression | None = None,
        *,
        cancelled: Callable[[], bool] | None = None,
        **options: Any,
    ) -> Answer:
        """The moments that fit best: a whole `Query`, or its `text` and `options`, which are the fields of `Query`.

        What was committed up to now is searched, by any process. Once `cancelled` says True nothing more is heard
        again, and the answer is what is known by then. Raises LibraryEmpty, SpaceMismatch, ModelError, MediaError (of
        an example) and UsageError.
        """
        from audiosearch.query import engine

        query = self._asked(text, options)
        sources = self._sources(cancelled)
        known = sources.store.spaces()
        try:
            return engine.answer(query, sources)
        except LibraryError:
            if sources.store.spaces() == known:
                raise
        return engine.answer(query, sources)  # a space was dropped meanwhile; the others can answer

    def iterate(self, text: str | Query | None = None, **options: Any) -> Iterator[Hit]:
        """Hits without end, best first, until there are no more; `k` is how many are asked for at first. Else as
        `query`. What is committed while one reads may come out of order, but no hit comes twice."""
        query = self._asked(text, options)
        seen: set[str] = set()
        while True:
            hits = self.query(query).hits
            new = [hit for hit in hits if hit.id not in seen]
            seen.update(hit.id for hit in new)
            yield from new
            if len(hits) < query.k:
                return
            query = replace(query, k=4 * query.k)

    def similar(self, hit: str, *, k: int = 10, **options: Any) -> Answer:
        """What sounds like an earlier hit, which itself is left out. `hit` is its id, or the beginning of it; `options`
        as of `query`. Raises UsageError for a hit that was not shown lately, and what `query` raises."""
        from audiosearch.query import remembered
        from audiosearch.query.grammar import Expression, HitRef

        shown = remembered.recall(self.directory, hit)
        answer = self.query(Expression((HitRef(shown.hit_id),)), k=k + 4, **options)
        paths = {str(Path(*place)) for place in self._store().paths_of(shown.packet_hash)}
        others = [hit for hit in answer.hits if hit.path not in paths or not _covers(shown, hit)]
        return replace(answer, hits=tuple(others)[:k])

    def moments(self, path: StrPath, text: str | Query | None = None, **options: Any) -> tuple[Moment, ...]:
        """Every moment of one file under a query, in time order; what is weak is among them. Else as `query`; raises
        UsageError for a file that is not in the library."""
        answer = self._within(path, text, options)
        hits = sorted(answer.hits, key=lambda hit: (hit.start_seconds, hit.end_seconds))
        return tuple(Moment(hit.id, hit.start_seconds, hit.end_seconds, hit.score, hit.curve) for hit in hits)

    def curve(
        self, path: StrPath, text: str | Query | None = None, **options: Any
    ) -> tuple[tuple[float, float, float], ...]:
        """How each stored span of one file fits a query: (start, end, score) in time order, to draw along its waveform.
        Else as `moments`."""
        explanation = self._within(path, text, {**options, "explain": True}).explanation
        assert explanation is not None
        spans = ((each.start_seconds, each.end_seconds, each.stored_score) for each in explanation.candidates)
        return tuple(sorted(spans))

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
        from audiosearch.store.backup import restore

        target = Path(library_directory(directory))
        return restore(Path(os.path.expanduser(os.fspath(source))), target, force=force, progress=progress)  # noqa: PTH111

    def close(self) -> None:
        """Let go of files and models. A closed library may not be used again."""
        if self._reader is not None:
            self._reader.close()
        self._reader = None
        self._indexes.clear()
        self._models.close()

    def __enter__(self) -> Library:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _asked(self, text: str | Query | Expression | None, options: dict[str, Any]) -> Query:
        from audiosearch.query.request import Query

        if isinstance(text, Query):
            return replace(text, **options) if options else text
        if options.get("audio") is not None:
            options = {**options, "audio": os.fspath(options["audio"])}
        return Query(text, **options)

    def _sources(self, cancelled: Callable[[], bool] | None) -> engine.Sources:
        from audiosearch.audio import read_span
        from audiosearch.query import engine, remembered
        from audiosearch.query.allowed import Allowed

        store = self._store()
        with self._opening:
            self._filters = self._filters or Allowed(store)
        return engine.Sources(
            store=store,
            index=self._index,
            embedder=self._models.embedder_of,
            describe=self._models.describe,
            read_span=read_span,
            allowed=self._filters,
            refer=self._refer,
            remember=partial(remembered.remember, self.directory),
            background=self._background,
            model=self.settings.model,
            rerank=self.settings.rerank,
            rerank_seconds=self.settings.rerank_seconds,
            cancelled=cancelled or (lambda: False),
        )

    def _within(self, path: StrPath, text: str | Query | Expression | None, options: dict[str, Any]) -> Answer:
        """All hits in one file."""
        from audiosearch.query.filters import Pattern, Words

        info = self.info(path)
        query = self._asked(text, {**options, "filter": Words("path", Pattern((info.path,)))})
        return self.query(replace(query, k=max(query.k, _ALL)))

    def _refer(self, term: HitRef, space: Space) -> Referred:
        """The place in a recording that `hit:` means, with the stored vector that is nearest to it in time."""
        from audiosearch.query import remembered, terms

        store, shown = self._store(), remembered.recall(self.directory, term.hit_id)
        start = shown.start_seconds if term.start_seconds is None else term.start_seconds
        end = shown.end_seconds if term.start_seconds is None else term.end_seconds
        return terms.Referred(
            paths=tuple(str(Path(*place)) for place in store.paths_of(shown.packet_hash)),
            start_seconds=start,
            end_seconds=end,
            stored=lambda: terms.stored_vector(store, space.id, shown.packet_hash, start, end),
        )

    def _background(self, space: Space, embedder: AudioTextEmbedder, kind: Kind, is_needed: bool) -> Background | None:
        """What impostors of that kind find in a space: as the last ingest left it. What is missing is measured now if
        it `is_needed`, or quickly done."""
        from audiosearch.query import confidence

        store, index, folder = self._store(), self._index(space), background_folder(self.directory, space)
        mark = confidence.mark(folder)
        known_mark, known = self._backgrounds.get(space.id, (None, None))
        if known is None or mark != known_mark:
            known = confidence.load(folder, space.spec.fingerprint)
        with store.snapshot():
            index.refresh()
            if is_needed and (known is None or known.is_stale(len(index))):
                known = confidence.of_space(store, index, folder, embedder.embed_text, save=True)
                mark = confidence.mark(folder)
            if known is not None and kind not in known.nulls and (is_needed or len(index) <= confidence.QUICK):
                known = known.knowing(kind, index.search, confidence.recordings_in(store))
        if known is None:
            return None
        self._backgrounds[space.id] = mark, known
        return known if kind in known.nulls else None

    def _index(self, space: Space) -> LiveIndex:
        with self._opening:
            if space.id not in self._indexes:
                from audiosearch.index_cache import open_index

                alive = {each.id for each in self._store().spaces()}
                self._indexes = {id_: index for id_, index in self._indexes.items() if id_ in alive}
                self._indexes[space.id] = open_index(self._store(), space, self.settings.index_device)
            return self._indexes[space.id]


def _covers(shown: Shown, hit: Hit) -> bool:
    from audiosearch.query.moments import covers

    return covers(shown.start_seconds, shown.end_seconds, hit.start_seconds, hit.end_seconds)
