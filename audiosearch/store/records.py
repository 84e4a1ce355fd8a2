"""The values that go into and come out of the store; frozen, without rows or handles.

Paths inside a root are bytes here, as the file system gave them; absolute paths are `str` as everywhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from audiosearch.types import MediaInfo, Metadata, Vectors


class FileState(NamedTuple):
    """What the catalogue knows of one file. A tuple, for a hundred thousand of them are made on every no-op ingest.

    `done`: its recording is complete in the space asked about. `failed_cause`: the last attempt at this size, time and
    inode failed, with that cause, after so many attempts.
    """

    size: int
    mtime_ns: int
    inode: int
    done: bool
    failed_cause: str | None
    failed_attempts: int = 0
    described: bool = True  # today's program has read what the file says of itself


@dataclass(frozen=True, slots=True)
class Root:
    """A folder whose files are known. `volume`: the disk it is on, as `ingest.volumes` names it, where that is known.

    `is_walked`: the whole folder was asked for, not only single files or parts of it.
    """

    id: int
    path: str  # absolute
    volume: str | None
    is_walked: bool


class KnownFile(NamedTuple):
    """A file that the catalogue has. `stat` is size, mtime_ns and inode; `done` as in FileState."""

    id: int
    root_id: int
    root: str
    path: bytes
    stat: tuple[int, int, int]
    done: bool


@dataclass(frozen=True, slots=True)
class FileMove:
    """A known file that is at another place now; `inode` is its number there."""

    file_id: int
    root_id: int
    path: bytes
    inode: int


@dataclass(frozen=True, slots=True)
class RecordingState:
    """A known recording, and whether all its chunks are in the space asked about."""

    id: int
    complete: bool


@dataclass(frozen=True, slots=True)
class RecordingInfo:
    """A recording and what a probe said of it."""

    packet_hash: bytes
    media: MediaInfo


@dataclass(frozen=True, slots=True, eq=False)
class ChunkRecord:
    """A chunk and its vector [dim]. None: it is silent, or the same sound is stored or comes earlier in the batch."""

    packet_hash: bytes
    start_seconds: float
    end_seconds: float
    chunk_hash: bytes
    silent: bool
    vector: NDArray[np.floating] | None = None


@dataclass(frozen=True, slots=True)
class FinishedRecording:
    """Every chunk of the recording is in this batch or an earlier one; `duration_seconds` as decoded."""

    packet_hash: bytes
    duration_seconds: float


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file that holds a recording. Clears an earlier failure; what the path held before is let go."""

    root_id: int
    path: bytes
    size: int
    mtime_ns: int
    inode: int
    packet_hash: bytes
    warning: str | None = None
    metadata: Metadata | None = None


@dataclass(frozen=True, slots=True)
class DescribedFile:
    """What a known file says of itself, read when it had this `stat` (size, mtime_ns, inode)."""

    root_id: int
    path: bytes
    stat: tuple[int, int, int]
    metadata: Metadata
    warning: str = ""


@dataclass(frozen=True, slots=True)
class FailureRecord:
    """A file that could not be read; `cause` is one of `MediaError.CAUSES`."""

    root_id: int
    path: bytes
    size: int
    mtime_ns: int
    inode: int
    cause: str
    detail: str


@dataclass(frozen=True, slots=True, eq=False)
class CommitBatch:
    """What becomes visible at once: either all of it, or after a crash nothing."""

    recordings: Sequence[RecordingInfo] = ()
    chunks: Sequence[ChunkRecord] = ()
    finished: Sequence[FinishedRecording] = ()
    files: Sequence[FileRecord] = ()
    failures: Sequence[FailureRecord] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Changes:
    """How a space's searchable vectors differ from an earlier commit; arrays of shape (n,), ordered by id.

    `deleted_ids` are those that the earlier commit had. `seq` is the commit reached.
    """

    added_ids: NDArray[np.int64]
    shards: NDArray[np.int64]
    rows: NDArray[np.int64]
    deleted_ids: NDArray[np.int64]
    seq: int


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """Where a vector's sound is: every file that holds its recording, as (root, path in the root)."""

    vector_id: int
    recording_id: int
    packet_hash: bytes
    start_seconds: float
    end_seconds: float
    paths: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class LabelRecord:
    """What the user said of a span: that it is (`verdict`) the tag, or without one (empty) what the query asked for."""

    packet_hash: bytes
    start_seconds: float
    end_seconds: float
    verdict: bool
    tag: str
    query: str
    hit_id: str


@dataclass(frozen=True, slots=True)
class JudgedVectors:
    """A unit row for each labelled span that a space holds, [n, dim] each; of `missing` labels it does not."""

    yes: Vectors
    no: Vectors
    missing: int
