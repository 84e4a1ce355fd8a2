"""The library's truth: a catalogue in SQLite and shards of vectors beside it.

    DIR/library.db             the catalogue (tables.py)
    DIR/vectors/<space>/       shards (vectors.py)
    DIR/indexes/<space>/       index files, a cache (indexes/)
    DIR/writer.lock            held by the one writer (lock.py)

Readers never write and may be many, in any thread and process; each read is a short transaction, and several are one
inside `with store.snapshot():`. A reader sees exactly the commits that were complete when its transaction began.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

import numpy as np
import sqlalchemy
from numpy.typing import NDArray

from audiosearch.errors import LibraryError, LibraryNotFound, SchemaError
from audiosearch.store import connection as connections
from audiosearch.store import fulltext, labels, metadata, places, reading, schema, spaces, writing
from audiosearch.store.connection import database_faults
from audiosearch.store.faults import disk_faults
from audiosearch.store.filesystem import make_directories
from audiosearch.store.lock import WriterLock
from audiosearch.store.records import (
    Changes,
    ChunkRecord,
    CommitBatch,
    DescribedFile,
    FailureRecord,
    FileMove,
    FileRecord,
    FileState,
    FinishedRecording,
    JudgedVectors,
    KnownFile,
    LabelRecord,
    RecordingInfo,
    RecordingState,
    Root,
    StoredChunk,
)
from audiosearch.store.vectors import Shards
from audiosearch.types import FailedFile, FileInfo, Label, Metadata, Space, SpaceSpec, Status, Vectors

__all__ = [
    "Changes",
    "ChunkRecord",
    "CommitBatch",
    "FailureRecord",
    "FileRecord",
    "FileState",
    "FinishedRecording",
    "RecordingInfo",
    "RecordingState",
    "Store",
    "StoredChunk",
]


class Store:
    """An open library; a context manager. Made by `create` and `open`."""

    def __init__(self, directory: Path, lock: WriterLock | None) -> None:
        self.directory = directory
        self._lock = lock
        self._database = directory / connections.DATABASE
        self._engine = connections.engine(self._database, write=lock is not None)
        self._thread = threading.local()  # .connection: the snapshot this thread is in
        self._committing = threading.Lock()
        self._shards: dict[int, Shards] = {}
        self.journal_note: str | None = None  # for a writer: that the file system cannot do what a library wants

    @classmethod
    def create(cls, directory: str | os.PathLike[str]) -> Store:
        """Make a new library and open it for writing. The directory may exist, and hold other things.

        Raises:
            LibraryError: there is one already, or the directory cannot be written to.
            LibraryLocked: another process is making one.
        """
        home = Path(directory).absolute()
        try:
            make_directories(home)
        except OSError as error:
            raise LibraryError(f"{home}: cannot make a library here ({error.strerror})") from error
        lock = WriterLock(home)
        try:
            if (home / connections.DATABASE).exists():
                raise LibraryError(f"{home} is a library already")
            with disk_faults(home), database_faults(home / connections.DATABASE):
                schema.create(home / connections.DATABASE)
            return cls(home, lock)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def open(cls, directory: str | os.PathLike[str], *, write: bool = False, repair: bool = False) -> Store:
        """Open a library to read, or as its one writer. A writer upgrades an older schema, after a backup.

        A writer also cuts off what a crash left behind the committed rows; with `repair` that is left to
        `repair.repair`, which copes with missing rows.

        Raises:
            LibraryNotFound: there is none.
            LibraryLocked: another process is writing.
            SchemaError: the database is not a library's, is newer than this program, or is older and opened to read.
            LibraryError: it cannot be read, or committed vectors are missing.
        """
        home = Path(directory).absolute()
        database = home / connections.DATABASE
        if not database.exists():
            raise LibraryNotFound(f"{home}: no library here; make one with `audiosearch ingest FOLDER`")
        older = schema.needs_upgrade(database)
        if not write:
            if older:
                raise SchemaError(f"{home} is of an older version; `audiosearch ingest FOLDER` upgrades it")
            return cls(home, None)
        lock = WriterLock(home)
        try:
            with disk_faults(home), database_faults(database):
                if schema.needs_upgrade(database):
                    schema.upgrade(database)
                store = cls(home, lock)
                store.journal_note = connections.journal_note(database)
                if not repair:
                    store.cut_shards()
                    store._sweep()
            return store
        except BaseException:
            lock.release()
            raise

    def close(self) -> None:
        """Let go of files, connections and the writer lock. Calling it again does nothing."""
        self._shards.clear()
        self._engine.dispose()
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Everything that this thread reads inside is of one moment."""
        with self._read():
            yield

    # Spaces and roots

    def spaces(self) -> list[Space]:
        """Every space, oldest first."""
        with self._read() as connection:
            return reading.spaces(connection)

    def space(self, fingerprint: str) -> Space | None:
        """The space with that fingerprint."""
        return next((each for each in self.spaces() if each.spec.fingerprint == fingerprint), None)

    def default_space(self) -> Space | None:
        """The space that is searched when none is named."""
        return next((each for each in self.spaces() if each.is_default), None)

    def add_space(self, spec: SpaceSpec, *, default: bool | None = None) -> Space:
        """The space of `spec`, made if it is new. The first that is no aspect becomes the default, which
        `default=True` changes."""
        if not spaces.FOLDER_NAME.fullmatch(spec.fingerprint):
            raise ValueError(f"{spec.fingerprint!r} cannot name a folder")
        if self.space(spec.fingerprint) is None:
            self._sweep()  # one that was dropped and comes again begins with no shard
        with self._write() as connection:
            return writing.add_space(connection, spec, default)

    def find_space(self, name: str) -> Space:
        """The one space that `name` means: the beginning of its fingerprint, its model or its instruction.

        Raises:
            UsageError: there is none, or more than one.
        """
        return spaces.named(self.spaces(), name)

    def set_default(self, space: Space) -> None:
        """Let queries search this space when none is named.

        Raises:
            UsageError: it is an aspect.
        """
        with self._write() as connection:
            spaces.set_default(connection, space)

    def drop_space(self, space: Space) -> None:
        """Forget a space and its vectors; its files go when the library is next opened for writing.

        Raises:
            UsageError: it is the default, and another space could be.
        """
        with self._committing, self._write() as connection:
            spaces.drop(connection, space)
        self._shards.pop(space.id, None)

    def missing_files(self, space_id: int) -> list[tuple[int, str, bytes]]:
        """(recording, root, path in it) of every file whose recording is not complete in the space; the copies of a
        recording come one after another."""
        with self._read() as connection:
            return [(id_, os.fsdecode(root), path) for id_, root, path in spaces.missing_files(connection, space_id)]

    def roots(self) -> list[tuple[int, str]]:
        """(id, absolute path) of every root."""
        with self._read() as connection:
            return reading.roots(connection)

    def add_root(self, path: str) -> int:
        """The id of the root with that absolute path, made if it is new."""
        if not Path(path).is_absolute():
            raise ValueError(f"{path!r} is not absolute")
        with self._write() as connection:
            return writing.add_root(connection, os.fsencode(os.path.normpath(path)))

    def root_states(self) -> list[Root]:
        """Every root with what is known of its place, oldest first."""
        with self._read() as connection:
            return places.roots(connection)

    def describe_root(self, root_id: int, *, volume: str | None = None, is_walked: bool | None = None) -> None:
        """Write down which disk a root is on, or that all of it was asked for; what is None stays."""
        with self._write() as connection:
            places.describe_root(connection, root_id, volume, is_walked)

    def relocate_root(self, root_id: int, path: str) -> None:
        """Say that a root, with all its files, is at another absolute path now."""
        with self._write() as connection:
            places.relocate_root(connection, root_id, os.fsencode(os.path.normpath(path)))

    def forget_roots(self, root_ids: Collection[int]) -> None:
        """Remove those of the roots that hold no file and no failure."""
        with self._write() as connection:
            places.forget_roots(connection, root_ids)

    def known_paths(self, root_id: int) -> set[bytes]:
        """The paths in a root that hold a file or a failure."""
        with self._read() as connection:
            return places.known_paths(connection, root_id)

    def files_of_sizes(self, space_id: int, sizes: Collection[int]) -> list[KnownFile]:
        """Every known file, in whatever root, that has one of these sizes in bytes."""
        with self._read() as connection:
            return places.files_of_sizes(connection, space_id, sizes)

    def move_files(self, space_id: int, moves: Sequence[FileMove]) -> None:
        """Give known files other places, all at once; what was known of those places is let go.

        Nothing is embedded, and what a search finds is at the new place from then on. A commit that this makes, of the
        vectors of what was let go, is counted for `space_id`.
        """
        with self._committing, self._write() as connection:
            places.move_files(connection, space_id, moves)

    def remove_files(self, space_id: int, keys: Collection[tuple[int, bytes]]) -> int:
        """Remove files, and failures, by (root, path in it); return how many recordings no file holds any more.

        Their vectors are deleted in every space; the commit is counted for `space_id`.
        """
        with self._committing, self._write() as connection:
            return places.remove_files(connection, space_id, keys)

    # What an ingest asks and does

    def file_states(self, root_id: int, space_id: int) -> dict[bytes, FileState]:
        """What is known of every file of a root, by its path in the root; failed files included."""
        with self._read() as connection:
            return reading.file_states(connection, root_id, space_id)

    def recording_state(self, space_id: int, packet_hash: bytes) -> RecordingState | None:
        """The recording with that identity, or None if it is not known."""
        with self._read() as connection:
            return reading.recording_state(connection, space_id, packet_hash)

    def hashes_present(self, space_id: int, hashes: Sequence[bytes]) -> set[bytes]:
        """Those chunk hashes whose sound has a vector in the space: `commit` needs none for them."""
        with self._read() as connection:
            return set(reading.stored_places(connection, space_id, hashes))

    def commit(self, space_id: int, batch: CommitBatch) -> int:
        """Store a batch as one commit group, on the disk when this returns; returns the last commit's seq.

        What a crash or an earlier run already stored is recognised and not stored again. On an exception nothing of the
        batch is stored and the store can be used on.

        Raises:
            ValueError: the batch contradicts itself, names an unknown recording, or lacks a vector that is not stored.
            SpaceMismatch: a vector has another dimension than the space.
            LibraryError: the disk is full, read-only or gone.
        """
        with self._committing, self._write() as connection:
            return writing.commit(connection, self.shard_files(space_id), space_id, batch)

    def describe(self, described: Iterable[DescribedFile]) -> None:
        """Write what was read of known files that are still as they were then."""
        with self._committing, self._write() as connection:
            metadata.describe(connection, described)

    def prune(self, space_id: int) -> int:
        """Delete the vectors of recordings that no file holds (an ingest was cut off, then the file changed).

        Not while a recording is between its first and last commit. Returns how many recordings that were; the commit is
        counted for `space_id`, the deletion concerns every space.
        """
        with self._committing, self._write() as connection:
            return writing.prune(connection, space_id)

    # What a search asks

    def max_seq(self, space_id: int) -> int:
        """The last commit, 0 before the first. Commits of other spaces count too: one order for everything."""
        with self._read() as connection:
            return reading.max_seq(connection)

    def commit_mark(self, space_id: int, seq: int) -> str:
        """What tells the space's history up to commit `seq` from another one with the same numbers."""
        with self._read() as connection:
            return reading.commit_mark(connection, space_id, seq)

    def changes_since(self, space_id: int, seq: int) -> Changes:
        """How the space's searchable vectors differ from those at commit `seq` (0: nothing)."""
        with self._read() as connection:
            return reading.changes_since(connection, space_id, seq)

    def alive_at(self, space_id: int, seq: int) -> Changes:
        """The vectors that could be found in the space at commit `seq`; `shards` is 0 where one was lost since."""
        with self._read() as connection:
            return reading.alive_at(connection, space_id, seq)

    def vectors(self, space_id: int, ids: NDArray[np.int64]) -> Vectors:
        """Unit rows [n, dim] in the order of `ids`.

        Raises:
            KeyError: an id is not one of the space's vectors.
            LibraryError: a shard is missing or too short.
        """
        with self._read() as connection:
            shards, rows = reading.places(connection, space_id, ids)
        return self.vectors_at(space_id, shards, rows)

    def vectors_at(self, space_id: int, shards: NDArray[np.int64], rows: NDArray[np.int64]) -> Vectors:
        """Unit rows [n, dim] at (shard, row) pairs that `changes_since` gave, in their order.

        Raises:
            LibraryError: a shard is missing or too short.
        """
        return self.shard_files(space_id).read(shards, rows)

    def text_matches(
        self, words: str, *, condition: sqlalchemy.ColumnElement[bool] | None = None, limit: int = fulltext.LIMIT
    ) -> list[fulltext.TextMatch]:
        """The files whose names or metadata have any of the words, best first; `condition` is one on a row of `file`
        (`query.conditions.file_condition`)."""
        with self._read() as connection:
            return fulltext.search(connection, words, condition=condition, limit=limit)

    def resolve(self, ids: Sequence[int] | NDArray[np.int64]) -> list[StoredChunk]:
        """Where the vectors' sounds are, in the order of `ids`; without those deleted, unknown, or held by no file."""
        with self._read() as connection:
            return reading.resolve(connection, [int(each) for each in ids])

    def chunks_of(self, space_id: int, packet_hash: bytes) -> list[StoredChunk]:
        """The chunks of a recording that have a vector in the space, in time order."""
        with self._read() as connection:
            return reading.chunks_of(connection, space_id, packet_hash)

    def paths_of(self, packet_hash: bytes) -> tuple[tuple[str, str], ...]:
        """The files that hold a recording, as (root, path below it)."""
        with self._read() as connection:
            return reading.paths_of(connection, packet_hash)

    # What the user says of hits

    def add_labels(self, records: Iterable[LabelRecord]) -> None:
        """Write labels, on the disk when this returns; each replaces what was said of the same span about the same
        thing. It needs no writer lock: beside an ingest it waits for the end of a commit at most.

        Raises:
            SchemaError: a newer program has upgraded the library meanwhile.
            LibraryError: the disk is full, read-only or gone.
        """
        with self._beside() as connection:
            labels.put(connection, records)

    def remove_labels(self, hit_id: str, tag: str | None = None) -> int:
        """Remove the labels of a hit, by its whole id: those about `tag`, or all; return how many. Else as
        `add_labels`."""
        with self._beside() as connection:
            return labels.remove(connection, hit_id, tag)

    def labels(self, *, tag: str | None = None, hit_prefix: str | None = None) -> list[Label]:
        """Labels, oldest first: those about `tag`, those of hits whose id begins like this, or all."""
        with self._read() as connection:
            return labels.listed(connection, tag=tag, hit_prefix=hit_prefix)

    def judged_vectors(self, space_id: int, tag: str) -> JudgedVectors:
        """The vectors of what was said to be `tag`, and not to be it: those of the chunks that overlap each labelled
        span best; their direction on average, where several do so alike.

        Raises:
            LibraryError: a shard is missing or too short.
        """
        dim = self.shard_files(space_id).dim
        with self._read() as connection:
            found = labels.judged(connection, space_id, tag)
            newest = {tuple(ids): verdict for verdict, ids in found if ids}  # of one sound the last word counts
            rows = self.vectors(space_id, np.array([id_ for ids in newest for id_ in ids], np.int64)).reshape(-1, dim)
        if newest:
            first = np.cumsum([0, *map(len, newest)])[:-1]
            rows = np.add.reduceat(rows, first, axis=0)
            rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        is_yes = np.array(list(newest.values()), np.bool_)
        return JudgedVectors(rows[is_yes], rows[~is_yes], sum(not ids for _, ids in found))

    def some_vectors(self, space_id: int, n: int) -> Vectors:
        """Unit rows [at most n, dim] of vectors from all over the space: the same ones until it changes.

        Raises:
            LibraryError: a shard is missing or too short.
        """
        dim = self.shard_files(space_id).dim
        with self._read() as connection:
            return self.vectors(space_id, reading.spread(connection, space_id, n)).reshape(-1, dim)

    # What a person asks

    def metadata(self, places: Collection[tuple[str, str]]) -> dict[tuple[str, str], Metadata]:
        """What files say of themselves, by (root, path in the root), as far as it has been read."""
        with self._read() as connection:
            return metadata.of_places(connection, places)

    def file_info(self, path: str) -> FileInfo | None:
        """All that is known of the file at an absolute path; None if nothing is."""
        with self._read() as connection:
            return metadata.file_info(connection, os.fsencode(os.path.normpath(path)))

    def failures(self) -> list[FailedFile]:
        """The failure ledger, by path."""
        with self._read() as connection:
            return reading.failures(connection)

    def failed_places(self) -> list[tuple[str, bytes, str]]:
        """(root, path in it, cause) of each line of the failure ledger."""
        with self._read() as connection:
            return reading.failed_places(connection)

    def status(self) -> Status:
        """The whole library at a glance."""
        with self._read() as connection:
            return reading.status(connection, str(self.directory), _bytes_below(self.directory))

    def state(self) -> object:
        """Changes with every transaction of any process; None where that cannot be told. Costs a look at two files."""
        try:
            files = [os.stat(path) for path in (self._database, f"{self._database}-wal") if os.path.exists(path)]  # noqa: PTH110, PTH116
        except OSError:
            return None
        return tuple((each.st_ino, each.st_size, each.st_mtime_ns) for each in files)

    # What upkeep needs

    @contextmanager
    def connected(self) -> Iterator[sqlalchemy.Connection]:
        """This thread's snapshot as a connection, for `verify`."""
        with self._read() as connection:
            yield connection

    @contextmanager
    def changing(self) -> Iterator[sqlalchemy.Connection]:
        """One transaction of the writer, for `verify`."""
        with self._committing, self._write() as connection:
            yield connection

    def reindex(self) -> None:
        """Build the database's own indexes again."""
        with self._committing, self._write() as connection:
            connection.exec_driver_sql("REINDEX")

    # Inside

    @contextmanager
    def _read(self) -> Iterator[sqlalchemy.Connection]:
        """This thread's snapshot, or a transaction of its own."""
        current = getattr(self._thread, "connection", None)
        if current is not None:
            yield current
            return
        with database_faults(self._database), self._engine.connect() as connection, connection.begin():
            self._thread.connection = connection
            try:
                yield connection
            finally:
                self._thread.connection = None

    @contextmanager
    def _write(self) -> Iterator[sqlalchemy.Connection]:
        assert self._lock is not None, "the library is open to read only"
        with database_faults(self._database), self._engine.connect() as connection:
            connection = connection.execution_options(immediate=True)
            with connection.begin():
                yield connection

    @contextmanager
    def _beside(self) -> Iterator[sqlalchemy.Connection]:
        """A short transaction beside the one writer, for what that does not count on. The database makes one wait for
        the other."""
        engine = connections.engine(self._database, write=True)
        try:
            with database_faults(self._database), engine.connect() as connection:
                connection = connection.execution_options(immediate=True)
                with connection.begin():
                    schema.check_current(connection, self._database)
                    yield connection
        finally:
            engine.dispose()

    def shard_files(self, space_id: int) -> Shards:
        """The shards of a space."""
        if space_id not in self._shards:
            with self._read() as connection:
                spec = reading.space_by_id(connection, space_id).spec
            self._shards[space_id] = Shards(self.directory / "vectors" / spec.fingerprint, spec.dim)
        return self._shards[space_id]

    def cut_shards(self) -> None:
        """Take away what a crash left behind the committed rows."""
        with self._read() as connection:
            committed = reading.committed_rows(connection)
            known = reading.spaces(connection)
        for each in known:
            self.shard_files(each.id).cut(committed.get(each.id, {}))

    def _sweep(self) -> None:
        """Take away the files of spaces that were dropped."""
        spaces.sweep(self.directory, {each.spec.fingerprint for each in self.spaces()})


def _bytes_below(directory: Path) -> int:
    size = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            with suppress(OSError):  # a writer may have taken it away meanwhile
                size += (Path(folder) / name).stat().st_size
    return size
