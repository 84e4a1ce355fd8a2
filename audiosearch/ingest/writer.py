"""What is ready for the store, gathered into commit groups and committed in a thread beside everything else.

add ─> the group that is gathered ─> [thread: Store.commit] ─> committed
       at most 4,096 rows or 2 s      one group at a time
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from audiosearch.store.records import (
    ChunkRecord,
    CommitBatch,
    FailureRecord,
    FileRecord,
    FinishedRecording,
    RecordingInfo,
)
from audiosearch.store.store import Store

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

GROUP_ROWS = 4096
GROUP_SECONDS = 2.0


class Writer:
    """Collects records in the order they may be seen and commits them together, one group after the other.

    A group always holds everything added before it was handed over, so a recording whose end is added after its last
    chunk is never finished in the store before that chunk is there. Use from one thread.
    """

    def __init__(self, store: Store, space_id: int) -> None:
        self._store, self._space_id = store, space_id
        self._thread: ThreadPoolExecutor | None = None
        self._under_way: tuple[Future[None], list[FinishedRecording], set[bytes]] | None = None
        self._is_broken = False
        self.busy_seconds = 0.0  # spent in commits
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
        """Whether this sound's vector is on its way: in the store it is only once its group is committed."""
        return chunk_hash in self._hashes or (self._under_way is not None and chunk_hash in self._under_way[2])

    @property
    def is_due(self) -> bool:
        """Whether the group should go: it is full, or old enough and the one before it is committed."""
        if self._rows >= GROUP_ROWS:
            return True
        is_old = self._rows > 0 and time.monotonic() - self._opened_at >= GROUP_SECONDS
        return is_old and (self._under_way is None or self._under_way[0].done())

    def hand_over(self) -> list[bytes]:
        """Start to commit what has been gathered, after waiting for the group before it.

        Returns the packet hashes of the recordings that this wait has made complete in the store. Raises what that
        commit raised; from then on nothing is committed, for later groups may count on the lost one.
        """
        complete = self.collect(wait=True)
        if self._rows and not self._is_broken:
            if self._thread is None:
                from concurrent.futures import ThreadPoolExecutor

                self._thread = ThreadPoolExecutor(1, thread_name_prefix="commit")
            batch = CommitBatch(
                recordings=self._recordings,
                chunks=self._chunks,
                finished=self._finished,
                files=self._files,
                failures=self._failures,
            )
            self._under_way = self._thread.submit(self._commit, batch), self._finished, self._hashes
        self._new_group()
        return complete

    def collect(self, *, wait: bool = False) -> list[bytes]:
        """The packet hashes of the recordings that have become complete in the store since the last call.

        Raises what the commit raised.
        """
        if self._under_way is None or not (wait or self._under_way[0].done()):
            return []
        (commit, finished, _), self._under_way = self._under_way, None
        try:
            commit.result()
        except BaseException:
            self._is_broken = True
            raise
        return [each.packet_hash for each in finished]

    def close(self) -> None:
        """Commit everything, on the disk when this returns, and end the thread."""
        try:
            self.hand_over()
            self.collect(wait=True)
        finally:
            if self._thread is not None:
                self._thread.shutdown()
                self._thread = None

    def _commit(self, batch: CommitBatch) -> None:
        started = time.perf_counter()
        try:
            self._store.commit(self._space_id, batch)
        finally:
            self.busy_seconds += time.perf_counter() - started
