"""What is ready for the store, gathered into commit groups."""

from __future__ import annotations

import time

from audiosearch.store.records import (
    ChunkRecord,
    CommitBatch,
    FailureRecord,
    FileRecord,
    FinishedRecording,
    RecordingInfo,
)
from audiosearch.store.store import Store

GROUP_ROWS = 4096
GROUP_SECONDS = 2.0


class Writer:
    """Collects records in the order they may be seen and commits them together.

    A group always holds everything added before it was written, so a recording whose end is added after its last chunk
    is never finished in the store before that chunk is there.
    """

    def __init__(self, store: Store, space_id: int) -> None:
        self._store, self._space_id = store, space_id
        self._new_group()

    def _new_group(self) -> None:
        self._recordings: list[RecordingInfo] = []
        self._chunks: list[ChunkRecord] = []
        self._finished: list[FinishedRecording] = []
        self._files: list[FileRecord] = []
        self._failures: list[FailureRecord] = []
        self._hashes: set[bytes] = set()
        self._rows = 0
        self._opened_at = 0.0

    def add(self, record: RecordingInfo | ChunkRecord | FinishedRecording | FileRecord | FailureRecord) -> None:
        """Put one record into the group that is being gathered."""
        if not self._rows:
            self._opened_at = time.monotonic()
        self._rows += 1
        match record:
            case RecordingInfo():
                self._recordings.append(record)
            case ChunkRecord():
                self._chunks.append(record)
                if record.vector is not None:
                    self._hashes.add(record.chunk_hash)
            case FinishedRecording():
                self._finished.append(record)
            case FileRecord():
                self._files.append(record)
            case FailureRecord():
                self._failures.append(record)

    def holds_vector(self, chunk_hash: bytes) -> bool:
        """Whether this sound's vector is in the group: in the store it is only once the group is written."""
        return chunk_hash in self._hashes

    @property
    def is_due(self) -> bool:
        """Whether the group is large or old enough."""
        return self._rows >= GROUP_ROWS or (self._rows > 0 and time.monotonic() - self._opened_at >= GROUP_SECONDS)

    def flush(self) -> None:
        """Commit what has been gathered."""
        if not self._rows:
            return
        self._store.commit(
            self._space_id,
            CommitBatch(
                recordings=self._recordings,
                chunks=self._chunks,
                finished=self._finished,
                files=self._files,
                failures=self._failures,
            ),
        )
        self._new_group()
