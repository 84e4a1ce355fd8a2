"""What can be asked of the catalogue: functions of a connection, values out."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, Connection, RowMapping, Select, and_, exists, func, or_, select

from audiosearch.errors import MediaError
from audiosearch.metadata import VERSION
from audiosearch.store.connection import select_in
from audiosearch.store.records import Changes, FileState, RecordingState, StoredChunk
from audiosearch.store.tables import chunk, commit_group, coverage, failure, file, recording, root, space, vector
from audiosearch.types import FailedFile, Space, SpaceSpec, SpaceStatus, Status

_SPEC = ("fingerprint", "model_name", "model_fingerprint", "document_instruction", "is_aspect", "dim", "window_seconds",
         "hop_seconds", "resampler", "channel_policy", "front_end", "licence")  # fmt: skip

_COMMITS = 16  # that a sample is taken from

# What every query asks, built once: see `select_in`.
_CHUNKS = (
    select(vector.c.id, chunk.c.recording_id, recording.c.packet_hash, chunk.c.start_seconds, chunk.c.end_seconds)
    .join(chunk, chunk.c.id == vector.c.chunk_id)
    .join(recording, recording.c.id == chunk.c.recording_id)
    .where(vector.c.deleted_seq.is_(None))
)
_FILES = select(file.c.recording_id, root.c.path, file.c.path).join(root, root.c.id == file.c.root_id)
# By the ids alone: asked for the space too, SQLite reads all of the space instead.
_PLACES = select(vector.c.id, vector.c.space_id, vector.c.shard, vector.c.row)


def signed(inode: int) -> int:
    """An unsigned 64-bit number as the signed one that a database column holds."""
    return inode - (1 << 64) if inode >= 1 << 63 else inode


def unsigned(inode: int) -> int:
    """The inverse of `signed`."""
    return inode + (1 << 64) if inode < 0 else inode


def spaces(connection: Connection) -> list[Space]:
    """Every space, oldest first."""
    return [_space(row) for row in connection.execute(select(space).order_by(space.c.id)).mappings()]


def space_by_id(connection: Connection, space_id: int) -> Space:
    """The space with an id that the store gave out."""
    return _space(connection.execute(select(space).where(space.c.id == space_id)).mappings().one())


def roots(connection: Connection) -> list[tuple[int, str]]:
    """(id, absolute path) of every root."""
    rows = connection.execute(select(root.c.id, root.c.path).order_by(root.c.id))
    return [(id_, os.fsdecode(path)) for id_, path in rows]


def file_states(connection: Connection, root_id: int, space_id: int) -> dict[bytes, FileState]:
    """What is known of every file of a root, by its path in the root."""
    covered = and_(coverage.c.recording_id == file.c.recording_id, coverage.c.space_id == space_id)
    rows = connection.execute(
        select(file.c.path, file.c.size, file.c.mtime_ns, file.c.inode, coverage.c.space_id, file.c.metadata_version)
        .select_from(file.outerjoin(coverage, covered))
        .where(file.c.root_id == root_id)
    )
    states = {
        path: FileState(size, mtime, unsigned(inode), done is not None, None, 0, version == VERSION)
        for path, size, mtime, inode, done, version in rows
    }
    failures = connection.execute(
        select(
            failure.c.path,
            failure.c.size,
            failure.c.mtime_ns,
            failure.c.inode,
            failure.c.cause,
            failure.c.attempts,
        ).where(failure.c.root_id == root_id)
    )
    # A failure is younger than what the path held before.
    states.update(
        (path, FileState(size, mtime, unsigned(inode), False, cause, attempts))
        for path, size, mtime, inode, cause, attempts in failures
    )
    return states


def recording_state(connection: Connection, space_id: int, packet_hash: bytes) -> RecordingState | None:
    """The recording with that identity, if it is known."""
    complete = exists().where(coverage.c.recording_id == recording.c.id, coverage.c.space_id == space_id)
    row = connection.execute(select(recording.c.id, complete).where(recording.c.packet_hash == packet_hash)).first()
    return RecordingState(row[0], bool(row[1])) if row else None


def stored_places(connection: Connection, space_id: int, hashes: Iterable[bytes]) -> dict[bytes, tuple[int, int]]:
    """(shard, row) of each sound of `hashes` that has a vector; deleted ones count, their bytes are still there."""
    query = select(chunk.c.chunk_hash, vector.c.shard, vector.c.row).join(
        vector, and_(vector.c.chunk_id == chunk.c.id, vector.c.space_id == space_id)
    )
    query = query.where(vector.c.shard > 0)  # but not of those a repair found lost
    found = select_in(connection, query, chunk.c.chunk_hash, hashes)
    return {chunk_hash: (shard, row) for chunk_hash, shard, row in found}


def max_seq(connection: Connection) -> int:
    """The last commit, 0 if there is none."""
    return connection.execute(select(func.max(commit_group.c.seq))).scalar() or 0


def commit_mark(connection: Connection, space_id: int, seq: int) -> str:
    """What tells this history up to commit `seq` from another one with the same numbers (an older backup, used on)."""
    row = connection.execute(
        select(commit_group.c.seq, commit_group.c.shard, commit_group.c.first_row, commit_group.c.crc32c)
        .where(commit_group.c.space_id == space_id, commit_group.c.seq <= seq, commit_group.c.rows > 0)
        .order_by(commit_group.c.seq.desc())
        .limit(1)
    ).first()
    return "-".join(map(str, row)) if row else ""


def changes_since(connection: Connection, space_id: int, seq: int) -> Changes:
    """What commits after `seq` added to a space and deleted from it."""
    mine = vector.c.space_id == space_id
    added = connection.execute(
        select(vector.c.id, vector.c.shard, vector.c.row)
        .where(mine, vector.c.commit_seq > seq, vector.c.deleted_seq.is_(None))
        .order_by(vector.c.id)
    ).fetchall()
    deleted = connection.execute(
        select(vector.c.id)
        .where(mine, vector.c.deleted_seq.is_not(None), vector.c.deleted_seq > seq, vector.c.commit_seq <= seq)
        .order_by(vector.c.id)
    ).scalars()
    columns = np.array([tuple(row) for row in added], np.int64).reshape(-1, 3).T
    return Changes(columns[0], columns[1], columns[2], np.fromiter(deleted, np.int64), max_seq(connection))


def alive_at(connection: Connection, space_id: int, seq: int) -> Changes:
    """What could be found in the space at commit `seq`; a place in shard 0 means that its bytes were lost since."""
    still = or_(vector.c.deleted_seq.is_(None), vector.c.deleted_seq > seq)
    rows = connection.execute(
        select(vector.c.id, vector.c.shard, vector.c.row)
        .where(vector.c.space_id == space_id, vector.c.commit_seq <= seq, still)
        .order_by(vector.c.id)
    ).fetchall()
    columns = np.array([tuple(row) for row in rows], np.int64).reshape(-1, 3).T
    return Changes(columns[0], columns[1], columns[2], np.empty(0, np.int64), seq)


def committed_rows(connection: Connection) -> dict[int, dict[int, int]]:
    """How many rows each shard has, by space and shard."""
    end = func.max(commit_group.c.first_row + commit_group.c.rows)
    rows = connection.execute(
        select(commit_group.c.space_id, commit_group.c.shard, end)
        .where(commit_group.c.rows > 0)
        .group_by(commit_group.c.space_id, commit_group.c.shard)
    )
    committed: dict[int, dict[int, int]] = defaultdict(dict)
    for space_id, shard, count in rows:
        committed[space_id][shard] = count
    return committed


def places(
    connection: Connection, space_id: int, ids: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(shards, rows) of vectors of a space, in the order of `ids`.

    Raises:
        KeyError: an id is not one of the space's vectors.
    """
    rows = select_in(connection, _PLACES, vector.c.id, ids.tolist())
    found = {id_: (shard, row) for id_, space, shard, row in rows if space == space_id}
    pairs = np.array([found[id_] for id_ in ids.tolist()], np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def spread(connection: Connection, space_id: int, n: int) -> NDArray[np.int64]:
    """Ids of at most `n` searchable vectors of a space from all over it, ascending; the same until it changes.

    They are taken from a few commits, so that a million of vectors need not be counted.
    """
    seqs = connection.execute(
        select(commit_group.c.seq).where(commit_group.c.space_id == space_id).order_by(commit_group.c.seq)
    ).scalars()
    query = select(vector.c.id).where(vector.c.space_id == space_id, vector.c.deleted_seq.is_(None))
    some = connection.execute(query.where(vector.c.commit_seq.in_(_evenly(list(seqs), _COMMITS)))).scalars()
    return np.array(_evenly(sorted(some), n), np.int64)


def _evenly(values: list[int], n: int) -> list[int]:
    """At most `n` of the values, as far apart as can be."""
    return [values[len(values) * each // n] for each in range(n)] if len(values) > n else values


def resolve(connection: Connection, ids: Sequence[int]) -> list[StoredChunk]:
    """The chunks of vectors, in the order of `ids`, without those that are deleted or whose recording no file holds."""
    found: dict[int, Any] = {row[0]: row for row in select_in(connection, _CHUNKS, vector.c.id, ids)}
    paths = _paths(connection, {row[1] for row in found.values()})
    kept = (found[id_] for id_ in ids if id_ in found)
    return [StoredChunk(row[0], row[1], row[2], row[3], row[4], paths[row[1]]) for row in kept if row[1] in paths]


def chunks_of(connection: Connection, space_id: int, packet_hash: bytes) -> list[StoredChunk]:
    """The chunks of a recording that have a vector in the space, in time order."""
    query = (
        select(vector.c.id)
        .join(chunk, chunk.c.id == vector.c.chunk_id)
        .join(recording, recording.c.id == chunk.c.recording_id)
        .where(recording.c.packet_hash == packet_hash, vector.c.space_id == space_id, vector.c.deleted_seq.is_(None))
        .order_by(chunk.c.start_seconds, chunk.c.end_seconds)
    )
    return resolve(connection, list(connection.execute(query).scalars()))


def paths_of(connection: Connection, packet_hash: bytes) -> tuple[tuple[str, str], ...]:
    """The files that hold a recording, as (root, path below it)."""
    ids = list(connection.execute(select(recording.c.id).where(recording.c.packet_hash == packet_hash)).scalars())
    return next(iter(_paths(connection, ids).values()), ())


def _paths(connection: Connection, recording_ids: Iterable[int]) -> dict[int, tuple[tuple[str, str], ...]]:
    found: dict[int, list[tuple[bytes, bytes]]] = defaultdict(list)
    for recording_id, folder, path in select_in(connection, _FILES, file.c.recording_id, recording_ids):
        found[recording_id].append((folder, path))
    return {
        recording_id: tuple((os.fsdecode(folder), os.fsdecode(path)) for folder, path in sorted(pairs))
        for recording_id, pairs in found.items()
    }


def failures(connection: Connection) -> list[FailedFile]:
    """The failure ledger, by path."""
    rows = connection.execute(
        select(root.c.path, failure).join(root, root.c.id == failure.c.root_id).order_by(root.c.path, failure.c.path)
    ).mappings()
    return [
        FailedFile(
            path=os.fsdecode(os.path.join(row[root.c.path], row[failure.c.path])),  # noqa: PTH118 - bytes
            cause=row[failure.c.cause],
            detail=row[failure.c.detail],
            attempts=row[failure.c.attempts],
            last_attempt_at=row[failure.c.last_attempt_at],
            will_retry=MediaError.is_tried_again(row[failure.c.cause], row[failure.c.attempts]),
        )
        for row in rows
    ]


def failed_places(connection: Connection) -> list[tuple[str, bytes, str]]:
    """(root, path in it, cause) of each line of the failure ledger."""
    rows = connection.execute(
        select(root.c.path, failure.c.path, failure.c.cause)
        .join(root, root.c.id == failure.c.root_id)
        .order_by(root.c.path, failure.c.path)
    )
    return [(os.fsdecode(folder), path, cause) for folder, path, cause in rows]


def status(connection: Connection, directory: str, bytes_on_disk: int) -> Status:
    """The library at a glance. Recordings that no file holds any more are not counted."""
    held = exists().where(file.c.recording_id == recording.c.id)
    recordings, seconds = connection.execute(
        select(func.count(), func.coalesce(func.sum(recording.c.duration_seconds), 0.0)).where(held)
    ).one()
    held_chunk = exists().where(file.c.recording_id == chunk.c.recording_id)
    by_cause = select(failure.c.cause, func.count()).group_by(failure.c.cause).order_by(failure.c.cause)
    causes: dict[str, int] = {row[0]: row[1] for row in connection.execute(by_cause)}
    return Status(
        directory=directory,
        roots=tuple(path for _, path in roots(connection)),
        files=_count(connection, select(func.count()).select_from(file)),
        recordings=recordings,
        chunks=_count(connection, select(func.count()).select_from(chunk).where(held_chunk)),
        failed=sum(causes.values()),
        failed_by_cause=causes,
        audio_seconds=seconds,
        bytes_on_disk=bytes_on_disk,
        spaces=tuple(_space_status(connection, each) for each in spaces(connection)),
    )


def _space_status(connection: Connection, each: Space) -> SpaceStatus:
    """`chunks` are those that a search of the space can find, `vectors` the rows stored for them: chunks that sound the
    same share one."""

    def rows(condition: ColumnElement[bool], what: ColumnElement[int]) -> int:
        return _count(connection, select(what).where(condition))

    return SpaceStatus(
        name=each.spec.fingerprint[:12],
        model=each.spec.model_name,
        document_instruction=each.spec.document_instruction,
        is_aspect=each.spec.is_aspect,
        is_default=each.is_default,
        window_seconds=each.spec.window_seconds,
        hop_seconds=each.spec.hop_seconds,
        dim=each.spec.dim,
        recordings=rows(coverage.c.space_id == each.id, func.count()),
        chunks=rows(and_(vector.c.space_id == each.id, vector.c.deleted_seq.is_(None)), func.count()),
        vectors=rows(
            and_(commit_group.c.space_id == each.id, commit_group.c.crc32c.is_not(None)),
            func.coalesce(func.sum(commit_group.c.rows), 0),
        ),
        licence=each.spec.licence,
    )


def _count(connection: Connection, query: Select[Any]) -> int:
    return int(connection.execute(query).scalar_one())


def _space(row: RowMapping) -> Space:
    return Space(row["id"], SpaceSpec(**{name: row[name] for name in _SPEC}), row["is_default"])
