"""What the holder of the writer lock does to the catalogue: one transaction a call.

A commit group's vectors are on the disk before the transaction that names them ends; a crash in between leaves bytes
that no row names, which the next writer cuts off.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    ColumnElement,
    Connection,
    Table,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    insert,
    select,
    update,
)

from audiosearch.errors import MediaError, SpaceMismatch
from audiosearch.store import fulltext, reading
from audiosearch.store import metadata as described
from audiosearch.store.connection import insert_rows, select_in
from audiosearch.store.records import ChunkRecord, CommitBatch, FailureRecord, FileRecord, RecordingInfo
from audiosearch.store.tables import chunk, commit_group, coverage, failure, file, recording, root, space, vector
from audiosearch.store.vectors import Shards, crc32c, to_bytes
from audiosearch.types import Metadata, Space, SpaceSpec


def add_root(connection: Connection, path: bytes) -> int:
    """The id of a root, made if it is new."""
    known = connection.execute(select(root.c.id).where(root.c.path == path)).scalar()
    return known if known is not None else _inserted(connection, root, {"path": path, "is_walked": False})


def add_space(connection: Connection, spec: SpaceSpec, default: bool | None) -> Space:
    """The space of a spec, made if it is new; the first that is no aspect becomes the default unless told otherwise."""
    known = connection.execute(select(space.c.id).where(space.c.fingerprint == spec.fingerprint)).scalar()
    if default is None:
        plain = select(func.count()).select_from(space).where(space.c.is_aspect.is_(False))
        default = known is None and not spec.is_aspect and connection.execute(plain).scalar_one() == 0
    if default:
        connection.execute(update(space).values(is_default=False))
    if known is None:
        known = _inserted(connection, space, {**asdict(spec), "is_default": default})
    elif default:
        connection.execute(update(space).where(space.c.id == known).values(is_default=True))
    return reading.space_by_id(connection, known)


def commit(connection: Connection, shards: Shards, space_id: int, batch: CommitBatch) -> int:
    """Store a batch and return the last commit's seq. The transaction around it is the caller's.

    Raises:
        ValueError: the batch contradicts itself or names what is not stored.
        SpaceMismatch: a vector has not the space's dimension.
        LibraryError: the vectors could not be written.
    """
    recording_ids = _recordings(connection, batch)
    keys, known = _known_chunks(connection, recording_ids, batch.chunks)
    plan = _plan(connection, shards.dim, space_id, batch.chunks, [known.get(key) for key in keys])
    group = CommitGroup(connection, space_id)
    shard, first_row = shards.place(*_last_rows(connection, space_id)) if plan.new else (0, 0)
    # The disk takes the vectors while the catalogue takes the rows: each of them is half of the time. Nobody sees the
    # rows before the caller ends the transaction, and leaving this block waits for the disk, whatever happens.
    with ThreadPoolExecutor(1) as disk:
        data = disk.submit(to_bytes, plan.new)
        appended = disk.submit(lambda: shards.append(shard, first_row, data.result()) if plan.new else None)
        chunk_ids = _chunks(connection, keys, known, batch.chunks)
        if plan.new:
            group.appended(shard, first_row, len(plan.new), crc32c(data.result()))
        if plan.places:
            seq = group.seq()
            places = ((shard, first_row + each) if isinstance(each, int) else each for each in plan.places)
            rows = [(space_id, chunk_ids[at], *place, seq) for at, place in zip(plan.chunks, places, strict=True)]
            insert_rows(connection, vector, "space_id chunk_id shard row commit_seq", rows)
        appended.result()
    _finish(connection, space_id, {recording_ids[each.packet_hash]: each.duration_seconds for each in batch.finished})
    let_go = [
        *_files(connection, recording_ids, batch.files),
        *_failures(connection, batch.failures),
    ]
    forget(connection, group, let_go)
    return reading.max_seq(connection)


def prune(connection: Connection, space_id: int) -> int:
    """Delete the vectors of recordings that no file holds, in every space; return how many recordings that were."""
    unheld = connection.execute(
        select(recording.c.id).where(
            ~exists().where(file.c.recording_id == recording.c.id),
            exists().where(
                chunk.c.recording_id == recording.c.id, vector.c.chunk_id == chunk.c.id, vector.c.deleted_seq.is_(None)
            ),
        )
    ).scalars()
    return forget(connection, CommitGroup(connection, space_id), unheld)


@dataclass
class _Plan:
    """The vector rows of a commit: a chunk each, by its place in the batch, and where its vector is: (shard, row), or a
    position in `new`."""

    chunks: list[int] = field(default_factory=list)
    places: list[tuple[int, int] | int] = field(default_factory=list)
    new: list[NDArray[np.floating]] = field(default_factory=list)


class CommitGroup:
    """The commit group of this transaction, made when something needs its seq."""

    def __init__(self, connection: Connection, space_id: int) -> None:
        self._connection = connection
        self._values: dict[str, int] = {"space_id": space_id, "rows": 0}
        self._seq: int | None = None

    def appended(self, shard: int, first_row: int, rows: int, crc: int) -> None:
        self._values.update(shard=shard, first_row=first_row, rows=rows, crc32c=crc)

    def seq(self) -> int:
        if self._seq is None:
            self._seq = _inserted(self._connection, commit_group, self._values)
        return self._seq


def _recordings(connection: Connection, batch: CommitBatch) -> dict[bytes, int]:
    """Ids of every recording that a batch names; new ones are inserted."""
    named = {
        each.packet_hash for part in (batch.recordings, batch.chunks, batch.finished, batch.files) for each in part
    }
    ids = _recording_ids(connection, named)
    new: dict[bytes, RecordingInfo] = {r.packet_hash: r for r in batch.recordings if r.packet_hash not in ids}
    if new:
        rows = [
            (key, each.media.container, each.media.codec, each.media.sample_rate, each.media.channels,
             each.media.duration_seconds)
            for key, each in new.items()
        ]  # fmt: skip
        names = "packet_hash container codec sample_rate channels duration_seconds"
        insert_rows(connection, recording, names, rows)
        ids.update(_recording_ids(connection, new))
    unknown = named - ids.keys()
    if unknown:
        raise ValueError(f"{len(unknown)} recordings are neither stored nor in the batch: {min(unknown).hex()}, ...")
    return ids


def _recording_ids(connection: Connection, hashes: Iterable[bytes]) -> dict[bytes, int]:
    query = select(recording.c.packet_hash, recording.c.id)
    return dict(select_in(connection, query, recording.c.packet_hash, hashes))


_Span = tuple[int, float, float]  # recording, start, end


def _known_chunks(
    connection: Connection, recording_ids: dict[bytes, int], chunks: Sequence[ChunkRecord]
) -> tuple[list[_Span], dict[_Span, int]]:
    """The batch's chunks by their spans, in order, and the ids of those that are stored; one whose sound now differs is
    corrected."""
    keys = [(recording_ids[each.packet_hash], each.start_seconds, each.end_seconds) for each in chunks]
    if len(set(keys)) != len(keys):
        raise ValueError("a batch has the same span of a recording twice")
    if not keys:
        return [], {}
    span = chunk.c.recording_id, chunk.c.start_seconds, chunk.c.end_seconds
    first, last = min(key[1] for key in keys), max(key[1] for key in keys)
    query = select(*span, chunk.c.id, chunk.c.chunk_hash, chunk.c.silent).where(
        chunk.c.start_seconds >= first, chunk.c.start_seconds <= last
    )
    rows = select_in(connection, query, chunk.c.recording_id, (key[0] for key in keys))
    known = {(row[0], row[1], row[2]): (row[3], row[4], bool(row[5])) for row in rows}
    if known:
        for key, each in zip(keys, chunks, strict=True):
            if key in known and known[key][1:] != (each.chunk_hash, each.silent):
                state = {"chunk_hash": each.chunk_hash, "silent": each.silent}
                connection.execute(update(chunk).where(chunk.c.id == known[key][0]).values(state))
    return keys, {key: value[0] for key, value in known.items()}


def _chunks(
    connection: Connection, keys: Sequence[_Span], known: dict[_Span, int], chunks: Sequence[ChunkRecord]
) -> list[int]:
    """Ids of the batch's chunks, in order; those that are not `known` are inserted."""
    new = [(*key, c.chunk_hash, c.silent) for key, c in zip(keys, chunks, strict=True) if key not in known]
    ids = dict(known)
    if new:
        # The one writer: what is above the highest id is what this insert made.
        before = connection.execute(select(func.max(chunk.c.id))).scalar() or 0
        insert_rows(connection, chunk, "recording_id start_seconds end_seconds chunk_hash silent", new)
        made = connection.execute(select(chunk.c.id).where(chunk.c.id > before).order_by(chunk.c.id)).fetchall()
        ids.update((row[:3], id_) for row, (id_,) in zip(new, made, strict=True))
    return [ids[key] for key in keys]


def _plan(
    connection: Connection,
    dim: int,
    space_id: int,
    chunks: Sequence[ChunkRecord],
    known: Sequence[int | None],
) -> _Plan:
    """Which chunks get a vector row, and which vectors must be written for them; `known` are the ids of those chunks
    that are stored already, of which alone there can be one."""
    query = select(vector.c.chunk_id).where(vector.c.space_id == space_id, vector.c.deleted_seq.is_(None))
    alive = {row[0] for row in select_in(connection, query, vector.c.chunk_id, filter(None, known))}
    wanting = [(at, each) for at, each in enumerate(chunks) if not each.silent and known[at] not in alive]
    shared = {each.chunk_hash for _, each in wanting if each.vector is None}
    stored = reading.stored_places(connection, space_id, shared)
    plan = _Plan()
    position: dict[bytes, int] = {}
    for at, each in wanting:
        place: tuple[int, int] | int | None = position.get(each.chunk_hash)
        if place is None and each.vector is not None:
            if each.vector.shape != (dim,):
                raise SpaceMismatch(f"a vector of shape {each.vector.shape} does not fit a space of {dim} dimensions")
            place = position[each.chunk_hash] = len(plan.new)
            plan.new.append(each.vector)
        if place is None:
            place = stored.get(each.chunk_hash)
        if place is None:
            raise ValueError(f"chunk {each.chunk_hash.hex()} has no vector, and none of the same sound is stored")
        plan.chunks.append(at)
        plan.places.append(place)
    return plan


def _last_rows(connection: Connection, space_id: int) -> tuple[int, int]:
    """(shard, rows in it) of a space's last committed rows."""
    row = connection.execute(
        select(commit_group.c.shard, commit_group.c.first_row + commit_group.c.rows)
        .where(commit_group.c.space_id == space_id, commit_group.c.rows > 0)
        .order_by(commit_group.c.seq.desc())
        .limit(1)
    ).first()
    return (row[0], row[1]) if row else (1, 0)


def _finish(connection: Connection, space_id: int, durations: dict[int, float]) -> None:
    """Mark recordings, by id, as complete in the space."""
    if not durations:
        return
    connection.execute(
        update(recording).where(recording.c.id == bindparam("of")).values(duration_seconds=bindparam("seconds")),
        [{"of": recording_id, "seconds": seconds} for recording_id, seconds in durations.items()],
    )
    query = select(coverage.c.recording_id).where(coverage.c.space_id == space_id)
    known = {row[0] for row in select_in(connection, query, coverage.c.recording_id, durations)}
    new = [(space_id, each) for each in durations if each not in known]
    insert_rows(connection, coverage, "space_id recording_id", new)


def _files(connection: Connection, recording_ids: dict[bytes, int], files: Sequence[FileRecord]) -> list[int]:
    """Write the files; return the recordings that their paths held before."""
    by_path = {(each.root_id, each.path): each for each in files}
    if not by_path:
        return []
    rows = [
        (
            *key,
            each.size,
            each.mtime_ns,
            reading.signed(each.inode),
            recording_ids[each.packet_hash],
            each.warning,
            *described.columns(each.metadata),
        )
        for key, each in by_path.items()
    ]
    let_go = unlink(connection, by_path)
    names = f"root_id path size mtime_ns inode recording_id warning {described.COLUMNS}"
    insert_rows(connection, file, names, rows)
    details: list[tuple[int, Metadata]] = []
    written: list[int] = []
    for root_id, paths in by_root(by_path):
        query = select(failure.c.path, failure.c.id).where(failure.c.root_id == root_id)
        delete_rows(connection, failure, [row[1] for row in select_in(connection, query, failure.c.path, paths)])
        query = select(file.c.path, file.c.id).where(file.c.root_id == root_id)
        for path, file_id in select_in(connection, query, file.c.path, paths):
            written.append(file_id)
            found = by_path[root_id, path].metadata
            if found is not None:
                details.append((file_id, found))
    described.insert_details(connection, details)
    fulltext.refresh(connection, written)
    return let_go


def _attempts(state: dict[str, Any]) -> ColumnElement[int]:
    """One more than before, counted anew for a file that has changed since."""
    same = (failure.c[name] == state[name] for name in ("size", "mtime_ns", "inode"))
    return case((and_(*same), failure.c.attempts + 1), else_=1)


def _failures(connection: Connection, failures: Sequence[FailureRecord]) -> list[int]:
    """Write the failures; return the recordings of files that are certainly no longer what they were."""
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    for each in failures:
        key = failure.c.root_id == each.root_id, failure.c.path == each.path
        state = {
            "size": each.size,
            "mtime_ns": each.mtime_ns,
            "inode": reading.signed(each.inode),
            "cause": each.cause,
            "detail": each.detail,
            "last_attempt_at": now,
        }
        again = connection.execute(update(failure).where(*key).values(**state, attempts=_attempts(state)))
        if not again.rowcount:
            connection.execute(insert(failure), {"root_id": each.root_id, "path": each.path, **state, "attempts": 1})
    return unlink(connection, _overwritten(connection, failures))


def _overwritten(connection: Connection, failures: Sequence[FailureRecord]) -> list[tuple[int, bytes]]:
    """The failed files, by root and path, that certainly hold something else than what the catalogue knows of them.

    Not one that is as it was and passes, say, a limit that was lowered since: its vectors are as good as ever.
    """
    lasting = {
        (each.root_id, each.path): (each.size, each.mtime_ns, reading.signed(each.inode))
        for each in failures
        if each.cause not in MediaError.PASSING
    }
    for root_id, paths in by_root(list(lasting)):
        query = select(file.c.path, file.c.size, file.c.mtime_ns, file.c.inode).where(file.c.root_id == root_id)
        for path, *stat in select_in(connection, query, file.c.path, paths):
            if tuple(stat) == lasting[root_id, path]:
                del lasting[root_id, path]
    return list(lasting)


def unlink(connection: Connection, keys: Iterable[tuple[int, bytes]]) -> list[int]:
    """Remove file rows by (root, path); return the recordings they held."""
    held: list[int] = []
    for root_id, paths in by_root(keys):
        query = select(file.c.path, file.c.id, file.c.recording_id).where(file.c.root_id == root_id)
        rows = list(select_in(connection, query, file.c.path, paths))
        delete_rows(connection, file, [row[1] for row in rows])
        held.extend(row[2] for row in rows)
    return held


def by_root(keys: Iterable[tuple[int, bytes]]) -> Iterable[tuple[int, list[bytes]]]:
    """(root, path) pairs as the paths of each root."""
    paths = defaultdict(list)
    for root_id, path in keys:
        paths[root_id].append(path)
    return paths.items()


def delete_rows(connection: Connection, table: Table, ids: Sequence[int]) -> None:
    """Delete rows by id."""
    if ids:
        connection.execute(delete(table).where(table.c.id == bindparam("gone")), [{"gone": id_} for id_ in ids])


def forget(connection: Connection, group: CommitGroup, recording_ids: Iterable[int]) -> int:
    """Delete the vectors of those recordings that no file holds any more, in every space; return how many."""
    wanted = set(recording_ids)
    held = {row[0] for row in select_in(connection, select(file.c.recording_id), file.c.recording_id, wanted)}
    unheld = sorted(wanted - held)
    if not unheld:
        return 0
    query = select(vector.c.id).join(chunk, chunk.c.id == vector.c.chunk_id).where(vector.c.deleted_seq.is_(None))
    alive = [row[0] for row in select_in(connection, query, chunk.c.recording_id, unheld)]
    connection.execute(
        delete(coverage).where(coverage.c.recording_id == bindparam("gone")), [{"gone": each} for each in unheld]
    )
    if alive:
        connection.execute(
            update(vector).where(vector.c.id == bindparam("gone")).values(deleted_seq=group.seq()),
            [{"gone": each} for each in alive],
        )
    return len(unheld)


def _inserted(connection: Connection, table: Table, values: dict[str, Any]) -> int:
    key = connection.execute(insert(table).values(values)).inserted_primary_key
    assert key is not None
    return int(key[0])
